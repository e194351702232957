"""Starting, watching and removing the applications of variants on Ray Serve.

`Apps` is what the controller sees; `ServeApps` is the real one, there is no other in the package.
Every call waits for Ray and belongs into a thread.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from cluster.serve import last_error, missing_place, reason_of, start_application
from serve_apps.endpoints.specs import PREFIXES, AppSpec
from serve_apps.variants.args import VariantArgs
from serve_apps.variants.calls import Answer, Call, ReplicaState
from serve_apps.variants.proof import plain_request
from ztom.engines.embedding_models import gives_embeddings
from ztom.errors import EngineError, EngineTimeoutError, ZtomError
from ztom.io.places import parse_place

logger = logging.getLogger(__name__)

_CALL_S = 120.0
_LOOK_S = 5.0
#: Seconds: Serve puts its whole status together anew, configurations and all, each time.
_SEEN_S = 1.0


class AppState(StrEnum):
    """How an application is."""

    STARTING = "starting"
    RUNNING = "running"
    FAILED = "failed"
    LEAVING = "leaving"


@dataclass(frozen=True, slots=True)
class AppStatus:
    """How an application is.

    Attributes:
        state: How it is as a whole.
        message: Why.
        replicas: Number of replicas that run.
        missing: What one of them waits for a place for; empty where none waits.
        coming: Number of replicas that are being started or found again.
    """

    state: AppState
    message: str = ""
    replicas: int = 0
    missing: str = ""
    coming: int = 0


class Apps(Protocol):
    """Runs applications of variants."""

    def status(self) -> dict[str, AppStatus]:
        """Every application of a variant, by name."""

    def start(self, spec: AppSpec) -> None:
        """Have an application started; it is not waited for.

        Raises:
            ZtomError: The variant does not verify, or the cluster cannot run it.
        """

    def delete(self, name: str) -> None:
        """Have an application removed, once it has answered what it is answering."""

    def prove(
        self, spec: AppSpec, digest: str, folder: str, name: str, *, exact: bool = True
    ) -> None:
        """Ask for one token through the way that traffic will take; it wakes who sleeps.

        Args:
            spec: Application that is asked.
            digest: Digest of the variant.
            folder: Folder of the variant.
            name: Name of the variant.
            exact: Whether it has to be this variant that answers.

        Raises:
            EngineError: It is refused, or does not come.
        """

    def load(self, spec: AppSpec, digest: str, folder: str, name: str) -> None:
        """Have every replica of a shared base load and prove an adapter.

        Raises:
            ZtomError: One of them cannot.
        """

    def forget(self, app: str, deployment: str, digest: str) -> None:
        """Have every replica of a shared base remove an adapter once it answers nobody.

        Nothing is waited for: an adapter that stays all the same leaves when its place is needed.
        """

    def swap(self, app: str, deployment: str, folder: str, name: str, wait_s: float) -> None:
        """Have every replica take on another variant of its chain.

        Raises:
            ZtomError: One of them cannot; it goes on with the variant that it had.
        """

    def replicas(self, app: str, deployment: str) -> list[ReplicaState]:
        """How the replicas of an application are; those that do not say are left out."""


class ServeApps:
    """Applications of the Ray Serve that this process is in."""

    def __init__(self) -> None:
        self._seen: dict[str, AppStatus] = {}
        self._seen_until = -math.inf
        self._changes = 0

    def status(self) -> dict[str, AppStatus]:
        """See `Apps.status`; what was seen holds for a moment, for looking takes long."""
        if time.monotonic() >= self._seen_until:
            before = self._changes
            self._seen = self._look()
            if before == self._changes:  # else it may not show what was started meanwhile
                self._seen_until = time.monotonic() + _SEEN_S
        return dict(self._seen)

    def _changed(self) -> None:
        self._changes += 1
        self._seen_until = -math.inf

    def _look(self) -> dict[str, AppStatus]:
        from ray import serve
        from ray.serve.schema import ApplicationStatus
        from ray.serve.schema import ReplicaState as State

        states = {
            ApplicationStatus.RUNNING: AppState.RUNNING,
            ApplicationStatus.DEPLOY_FAILED: AppState.FAILED,
            ApplicationStatus.UNHEALTHY: AppState.FAILED,
            ApplicationStatus.DELETING: AppState.LEAVING,
        }
        statuses = {}
        for name, app in serve.status().applications.items():
            if not name.startswith(PREFIXES):
                continue
            counts = sum((Counter(d.replica_states) for d in app.deployments.values()), Counter())
            coming = sum(counts[one] for one in (State.STARTING, State.UPDATING, State.RECOVERING))
            state = states.get(app.status, AppState.STARTING)
            statuses[name] = AppStatus(
                state, reason_of(app), counts[State.RUNNING], missing_place(app), coming
            )
        return statuses

    def start(self, spec: AppSpec) -> None:
        """See `Apps.start`."""
        from serve_apps.variants.app import build_called, build_shared

        args = spec.args
        app = build_called(args) if isinstance(args, VariantArgs) else build_shared(args)
        start_application(app, name=spec.name, route_prefix=None)
        self._changed()

    def delete(self, name: str) -> None:
        """See `Apps.delete`."""
        from ray import serve

        serve.delete(name, _blocking=False)
        self._changed()

    def prove(
        self, spec: AppSpec, digest: str, folder: str, name: str, *, exact: bool = True
    ) -> None:
        """See `Apps.prove`."""
        plain = plain_request(embeds=gives_embeddings(parse_place(folder)))
        request_id = f"prove-{secrets.token_hex(8)}"
        body = dict(plain.body)
        call = Call(plain.kind, body, digest, request_id, folder=folder, name=name, exact=exact)
        try:
            handle = self._handle(spec.name, spec.deployment)
            answer: Answer = handle.ask.remote(call).result(timeout_s=_CALL_S)
        except TimeoutError as error:
            raise EngineTimeoutError(f"{spec.name} does not answer") from error
        except Exception as error:  # Ray raises whatever came between
            raise _ours(error, f"{spec.name} does not answer") from error
        if answer.status != 200:
            raise EngineError(f"{spec.name} does not answer", got=answer.body[:300].decode())

    def load(self, spec: AppSpec, digest: str, folder: str, name: str) -> None:
        """See `Apps.load`."""
        self._everywhere(spec.name, spec.deployment, "load", digest, folder, name)

    def forget(self, app: str, deployment: str, digest: str) -> None:
        """See `Apps.forget`."""
        try:
            self._handle(app, deployment).broadcast("forget", digest)
        except Exception as error:
            logger.warning("%s keeps %s: %s", app, digest[:12], type(error).__name__)

    def swap(self, app: str, deployment: str, folder: str, name: str, wait_s: float) -> None:
        """See `Apps.swap`."""
        self._everywhere(app, deployment, "swap", folder, name, wait_s)

    def replicas(self, app: str, deployment: str) -> list[ReplicaState]:
        """See `Apps.replicas`."""
        try:
            response = self._handle(app, deployment).broadcast("state")
            replies = response.results(timeout_s=_LOOK_S, return_exceptions=True)
        except Exception as error:
            logger.warning("%s does not say how it is: %s", app, type(error).__name__)
            return []
        return [state for state in replies if isinstance(state, ReplicaState)]

    def _everywhere(self, app: str, deployment: str, method: str, *arguments: object) -> None:
        try:
            handle = self._handle(app, deployment)
            handle.broadcast(method, *arguments).results(timeout_s=_CALL_S)
        except Exception as error:
            raise _ours(error, f"{app} could not {method}") from error

    @staticmethod
    def _handle(app: str, deployment: str) -> Any:
        from ray import serve

        return serve.get_deployment_handle(deployment, app)


def _ours(error: Exception, what: str) -> ZtomError:
    """The error of ours that is behind one of Ray's."""
    cause = getattr(error, "cause", error)
    if isinstance(cause, ZtomError):
        return cause
    return EngineError(what, got=f"{type(cause).__name__}: {last_error(str(cause))}")
