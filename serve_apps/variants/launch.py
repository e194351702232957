"""Bringing one variant up on this machine, and down again.

Takes the Ray and the Serve that are there, starts what is not, and stops only what it started. It
prints nothing: whoever calls it says what the user should read.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import httpx

from cluster.local import ended_with_ray, ray_connection
from cluster.ports import free_port, reachable
from cluster.serve import (
    application_status,
    delete_application,
    reason_of,
    serve_is_running,
    start_application,
    start_serve,
    stop_serve,
)
from cluster.shutdown import best_effort, terminate_like_interrupt, wait_for_interrupt
from serve_apps.variants.app import build
from serve_apps.variants.args import VariantArgs
from serve_apps.variants.identity import check_papers, identify, model_ids
from serve_apps.variants.proof import plain_request
from ztom.engines.embedding_models import gives_embeddings
from ztom.errors import ConfigError, EngineError, EngineTimeoutError
from ztom.io.places import StoreAddress
from ztom.settings import Settings
from ztom.variants.signature import read_signature, require_signer

_POLL_S = 0.2
_QUERY_TIMEOUT_S = 120.0
_FAILED = {"DEPLOY_FAILED", "UNHEALTHY"}


@dataclass(frozen=True)
class ServedVariant:
    """A variant that answers requests. Stop it with `stop`, or use it as a context manager.

    Attributes:
        url: Base of the API without ``/v1``, as in ``http://127.0.0.1:8000``.
        models: The names it answers to.
        app_name: Name of its Serve application.
    """

    url: str
    models: tuple[str, ...]
    app_name: str
    _undo: contextlib.ExitStack = field(repr=False, compare=False)

    @property
    def api_base(self) -> str:
        """What an OpenAI client takes as ``base_url``."""
        return f"{self.url}/v1"

    def stop(self) -> None:
        """Take the application down, and Serve and Ray with it where they were started for it."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def serve_variant(
    args: VariantArgs,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    route_prefix: str = "/",
    blocking: bool = True,
    ready_timeout_s: float = 900,
    on_ready: Callable[[ServedVariant], None] | None = None,
) -> ServedVariant:
    """Serve a variant on this machine and wait until it has answered a real request over HTTP.

    Args:
        args: Arguments that say what is served, and how.
        host: Address to listen on; anything but loopback is open to the network, without a key.
        port: Port to listen on; 0 takes a free one. Where Serve runs already, the one it has.
        route_prefix: Path under which the API stands, for several variants on one Serve.
        blocking: Stay until interrupted (Ctrl-C, SIGTERM), then stop what was started.
        ready_timeout_s: Seconds until the variant must have answered.
        on_ready: Callback with the variant once it has answered.

    Returns:
        The served variant; already stopped when ``blocking``.

    Raises:
        VariantError: The manifest does not verify. Nothing was started then.
        SignatureError: It is signed with a wrong key, or not at all although it has to be.
        ConfigError: The port is taken, the variant is served already, or the options do not fit
            the cluster.
        EngineError: The variant does not load or does not answer.
        EngineTimeoutError: It was not ready in time.
    """
    if isinstance(args.variant, StoreAddress):  # the node that loads it fetches and hashes it
        digest = check_papers(args).digest
    else:
        digest = identify(args).digest
    name = args.name or args.variant.name
    signed = read_signature(args.variant, digest)
    require_signer(args.variant, signed, settings=Settings())
    deadline = time.monotonic() + ready_timeout_s
    with contextlib.ExitStack() as undo:
        ray_is_ours = undo.enter_context(ray_connection()).is_ours
        if blocking:
            terminate_like_interrupt()
        port, serve_is_ours = _start_serve(host=host, port=port)
        if serve_is_ours and not ray_is_ours:
            undo.callback(best_effort, stop_serve)
        app_name = _app_name(name)
        _refuse_second(app_name)
        application = build(args)
        undo.callback(best_effort, delete_application, app_name)
        start_application(application, name=app_name, route_prefix=route_prefix)
        url = f"http://{reachable(host)}:{port}{route_prefix.rstrip('/')}"
        _wait_until_running(app_name, deadline)
        _query(url, args, digest, deadline)
        served = ServedVariant(url, model_ids(name, digest), app_name, undo.pop_all())
    if on_ready is not None:
        _stopping_on_error(served, on_ready)
    if blocking:
        with ended_with_ray(), served:
            wait_for_interrupt()
    return served


def _stopping_on_error(served: ServedVariant, call: Callable[[ServedVariant], None]) -> None:
    try:
        call(served)
    except BaseException:
        served.stop()
        raise


def _start_serve(*, host: str, port: int) -> tuple[int, bool]:
    """The port Serve listens on, and whether it was started here."""
    if serve_is_running():
        _require_serve_at(f"http://{reachable(host)}:{port}")
        return port, False
    port = free_port(host, port)
    start_serve(host=host, port=port)
    return port, True


def _require_serve_at(url: str) -> None:
    try:
        httpx.get(f"{url}/-/healthz", timeout=_QUERY_TIMEOUT_S)
    except httpx.TransportError as error:
        raise ConfigError(
            "Serve runs in this Ray already, at another address",
            got=url,
            fix="Give its host and port, or stop it with `serve shutdown`.",
        ) from error


def _refuse_second(app_name: str) -> None:
    if application_status(app_name) is not None:
        raise ConfigError(
            "a variant of this name is served already",
            got=app_name,
            fix="Give this one another name with the option 'name', and another route prefix.",
        )


def _wait_until_running(app_name: str, deadline: float) -> None:
    for _ in _until(deadline, app_name):
        application = application_status(app_name)
        if application is None:
            continue
        if application.status == "RUNNING":
            return
        if application.status in _FAILED:
            raise EngineError("the variant cannot be served", reason=reason_of(application))


def _query(url: str, args: VariantArgs, digest: str, deadline: float) -> None:
    """Ask for one token over HTTP, the way a client would."""
    model = model_ids(args.name or args.variant.name, digest)[1]
    plain = plain_request(embeds=gives_embeddings(args.variant))
    path = "/v1/embeddings" if plain.kind == "embedding" else "/v1/completions"
    body = {"model": model, **plain.body}
    for _ in _until(deadline, model):
        try:
            reply = httpx.post(f"{url}{path}", json=body, timeout=_QUERY_TIMEOUT_S)
        except httpx.TransportError:
            continue
        if reply.status_code == 200:
            return
        # 404 and 503 pass while the proxy learns of the application.
        if reply.status_code not in (404, 503):
            raise EngineError("the served variant does not answer", got=reply.text)


def _until(deadline: float, what: str) -> Iterator[None]:
    while time.monotonic() < deadline:
        yield
        time.sleep(_POLL_S)
    raise EngineTimeoutError(
        f"{what} was not ready in time",
        fix="`ray status` shows missing resources, the replica's log the rest. ready_timeout_s is "
        "how long to wait.",
    )


def _app_name(model_name: str) -> str:
    return f"variant-{model_name}"
