"""Bringing a server up on one machine: Ray, Serve behind HAProxy, and the control plane."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from cluster.node_settings import SERVE_SETTINGS, TOKEN_SETTINGS
from cluster.ports import free_port, reachable
from cluster.shutdown import best_effort, terminate_like_interrupt, wait_for_interrupt
from serve_apps.control_plane.config import ServerConfig
from serve_apps.control_plane.identity import ServerIdentity
from serve_apps.server.haproxy import door_settings
from serve_apps.server.lock import server_lock
from ztom.errors import ConfigError, EngineTimeoutError
from ztom.io.private import private_file, private_folder
from ztom.ledger.database import parse_address
from ztom.ledger.lock import is_sqlite_file

APP_NAME = "ztom"
_READY_S = 120.0
_POLL_S = 0.2
#: Seconds for which HAProxy keeps the connections of a configuration that was replaced, at least.
_HARD_STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers.

    Attributes:
        url: Base address of the server, as in ``http://127.0.0.1:8000``.
        dashboard: Address of Ray's dashboard.
        notes: What whoever started the server should know.
    """

    url: str
    dashboard: str
    notes: tuple[str, ...] = ()


@contextlib.contextmanager
def server(
    config: ServerConfig, *, host: str, port: int, without_deadlines: bool = False
) -> Iterator[Running]:
    """A running server; what was started for it is taken down at the end, and nothing else.

    On a cluster, at ``RAY_ADDRESS``, it outlives a launcher that is killed; the next launcher takes
    it over.

    Args:
        config: Configuration of the server.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        without_deadlines: Whether to go on where the doors of a cluster keep no deadlines.

    Raises:
        ConfigError: Another server runs on the data folder, the port is taken, the configuration
            cannot be used, the nodes of the cluster do not share the data folder, or Ray was
            imported before.
        LedgerError: The ledger cannot be opened.
        EngineTimeoutError: It did not answer in time.
        EngineError: Ray has ended, so that an init system has to start the server again.
    """
    _require_fresh_process()
    with contextlib.ExitStack() as undo:
        # all that is written from here on, by Ray's processes too, is the owner's alone
        undo.callback(os.umask, os.umask(0o077))
        lock = undo.enter_context(server_lock(private_folder(config.data)))
        identity = ServerIdentity.of(config)  # what would fail in a replica fails here
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="ztom-")))
        if not os.environ.get("RAY_ADDRESS"):
            port = free_port(host, port)  # before Ray starts, which takes ports, and seconds
        _let_requests_end(config)
        _prepare_environment(folder, config)
        from cluster.local import ended_with_ray, node_address, ray_connection
        from cluster.serve import session_name, start_serve

        ray = undo.enter_context(ray_connection(dashboard=True))
        undo.enter_context(ended_with_ray())
        notes: tuple[str, ...] = ()
        node: str | None = None
        if ray.is_ours:
            start_serve(host=host, port=port)
            undo.callback(_stop_serving)
        else:
            from serve_apps.server.joined import join, leave

            joined = join(
                str(config.data),
                app=APP_NAME,
                ledger=config.ledger,
                dashboard=ray.dashboard,
                node=node_address(),
                without_deadlines=without_deadlines,
            )
            notes, node = joined.notes, joined.node
            if APP_NAME in joined.served and lock.session_before != session_name():
                raise _another_server(config)
            if node is None and is_sqlite_file(parse_address(config.ledger_address, make=False)):
                node = node_address()  # a file is written on one machine
            if joined.listens is None:
                port = free_port(host, port)
                # each node has a door: one dies, the others stay open
                start_serve(host=host, port=port, every_node=True)
            else:
                host, port = joined.listens
            undo.callback(
                best_effort, partial(leave, APP_NAME, started_serve=joined.listens is None)
            )
        url = f"http://{reachable(host)}:{port}"
        lock.write(url, session_name())
        _run_control_plane(config, identity, node=node)
        _wait_until_up(url)
        yield Running(url, ray.dashboard, notes)


def run_server(
    config: ServerConfig,
    *,
    host: str,
    port: int,
    on_ready: Callable[[Running], None],
    say: Callable[[str], None],
    without_deadlines: bool = False,
) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        config: Configuration of the server.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        on_ready: Callback that gets the server once it answers.
        say: Function that prints a line on how searches go.
        without_deadlines: Whether to go on where the doors of a cluster keep no deadlines.

    Raises:
        EngineError: Ray has ended, so that an init system has to start the server again.
    """
    from serve_apps.server.console import search_lines

    with server(config, host=host, port=port, without_deadlines=without_deadlines) as running:
        terminate_like_interrupt()
        # a stop that comes before it is waited for is one as well
        with contextlib.suppress(KeyboardInterrupt):
            on_ready(running)
            with search_lines(config.ledger_address, say):
                wait_for_interrupt()


def _require_fresh_process() -> None:
    """Ray and Serve read most of `_prepare_environment` when they are imported."""
    if "ray" in sys.modules:
        raise ConfigError(
            "the server cannot set up a Ray that this process has imported already",
            fix="Start the server in a process of its own: `ztom up`.",
        )


def _run_control_plane(config: ServerConfig, identity: ServerIdentity, *, node: str | None) -> None:
    from ray import serve

    from serve_apps.server.app import bind

    application = bind(config, node=node, identity=identity)
    serve.run(application, name=APP_NAME, route_prefix="/")


def _stop_serving() -> None:
    """Take down what answers people first, once it has answered; then variants, and Serve.

    Variants serve until nobody asks any more.
    """
    from cluster.serve import delete_application, stop_serve

    best_effort(delete_application, APP_NAME)
    best_effort(stop_serve)


def _let_requests_end(config: ServerConfig) -> None:
    """Have HAProxy keep its connections for as long as a leaving server answers on them."""
    limit_s = max(_HARD_STOP_S, config.drain_s + 5)
    os.environ.setdefault("RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S", f"{limit_s:.0f}")


def _another_server(config: ServerConfig) -> ConfigError:
    """What is wrong where a server runs that no launcher on this data folder has started."""
    return ConfigError(
        "another server of Z-TOM runs in this Ray",
        got=f"{APP_NAME}, which no `ztom up` on {config.data} has started",
        fix="Give this one a Ray of its own, or end that one (`serve shutdown`).",
    )


def _prepare_environment(folder: Path, config: ServerConfig) -> None:
    """What Ray, Serve and HAProxy read when they start; workers of a local Ray inherit it."""
    close_token()
    settings = {
        **TOKEN_SETTINGS,
        **SERVE_SETTINGS,
        **door_settings(folder, trusted=config.trusted_proxies),
        # engines and error functions take turns, so each may have all cores
        "OMP_NUM_THREADS": str(os.cpu_count() or 1),
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    # whatever is there: it would let callers say where they call from; see addresses.py
    os.environ["FORWARDED_ALLOW_IPS"] = SERVE_SETTINGS["FORWARDED_ALLOW_IPS"]


def close_token() -> None:
    """Let nobody else read the token that opens Ray, which Ray writes as the umask says."""
    folder = private_folder(Path("~/.ray").expanduser())
    if (folder / "auth_token").exists():
        private_file(folder / "auth_token")


def _wait_until_up(url: str) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health", timeout=10).status_code == 200:
                return
        time.sleep(_POLL_S)
    raise EngineTimeoutError(
        "the server did not answer in time", fix="Ray's logs say why: /tmp/ray/session_latest/logs."
    )
