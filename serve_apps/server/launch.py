"""Bringing a server up on one machine: Ray, Serve behind HAProxy, and the control plane."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from cluster.ports import free_port, reachable
from cluster.shutdown import best_effort, terminate_like_interrupt, wait_for_interrupt
from serve_apps.control_plane.config import ServerConfig
from serve_apps.control_plane.tokens import load_keys
from serve_apps.server.haproxy import write_haproxy
from serve_apps.server.lock import server_lock
from ztom.errors import ConfigError, EngineTimeoutError
from ztom.io.private import private_file, private_folder
from ztom.ledger.ledger import Ledger

APP_NAME = "ztom"
_READY_S = 120.0
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers.

    Attributes:
        url: Base address of the server, as in ``http://127.0.0.1:8000``.
        dashboard: Address of Ray's dashboard.
    """

    url: str
    dashboard: str


@contextlib.contextmanager
def server(config: ServerConfig, *, host: str, port: int) -> Iterator[Running]:
    """A running server; it is taken down at the end, with the Ray that was started for it.

    Args:
        config: Configuration of the server.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.

    Raises:
        ConfigError: Another server runs on the data folder, the port is taken, the configuration
            cannot be used, or Ray was imported before.
        LedgerError: The ledger cannot be opened.
        EngineTimeoutError: It did not answer in time.
        EngineError: Ray has ended, so that an init system has to start the server again.
    """
    _require_fresh_process()
    with contextlib.ExitStack() as undo:
        # all that is written from here on, by Ray's processes too, is the owner's alone
        undo.callback(os.umask, os.umask(0o077))
        say_address = undo.enter_context(server_lock(private_folder(config.data)))
        _check(config)
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="ztom-")))
        port = free_port(host, port)
        url = f"http://{reachable(host)}:{port}"
        say_address(url)
        _prepare_environment(folder, config)
        from cluster.local import ended_with_ray, ray_connection
        from cluster.serve import serve_is_running, start_serve, stop_serve

        ray = undo.enter_context(ray_connection(dashboard=True))
        if serve_is_running():
            raise ConfigError(
                "Serve runs in this Ray already",
                fix="Give the server a Ray of its own, or stop that one with `serve shutdown`.",
            )
        undo.enter_context(ended_with_ray())
        # on a cluster each node has a door: one dies, the others stay open
        start_serve(host=host, port=port, every_node=not ray.is_ours)
        undo.callback(best_effort, stop_serve)
        _run_control_plane(config, ray.dashboard)
        _wait_until_up(url)
        yield Running(url, ray.dashboard)


def run_server(
    config: ServerConfig,
    *,
    host: str,
    port: int,
    on_ready: Callable[[Running], None],
    say: Callable[[str], None],
) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        config: Configuration of the server.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        on_ready: Callback that gets the server once it answers.
        say: Function that prints a line on how searches go.

    Raises:
        EngineError: Ray has ended, so that an init system has to start the server again.
    """
    from serve_apps.server.console import search_lines

    with server(config, host=host, port=port) as running:
        terminate_like_interrupt()
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


def _run_control_plane(config: ServerConfig, dashboard: str) -> None:
    from ray import serve

    from serve_apps.server.app import build

    serve.run(build(config, dashboard=dashboard), name=APP_NAME, route_prefix="/")


def _check(config: ServerConfig) -> None:
    """What would fail in a replica fails here, where somebody reads it."""
    load_keys(config.keys / "jwt.keys")
    Ledger.open(config.ledger_address).close()


def _prepare_environment(folder: Path, config: ServerConfig) -> None:
    """What Ray, Serve and HAProxy read when they start; workers of a local Ray inherit it."""
    from serve_apps.control_plane.flow import IMPORT_PATH

    close_token()
    metrics, stats = free_port("127.0.0.1", 0), free_port("127.0.0.1", 0)
    settings = {
        # whoever calls Ray, or a replica's own port, has to know the token in ~/.ray/auth_token
        "RAY_AUTH_MODE": "token",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        # one event loop and gRPC between gateway and replicas: a fifth of the time of a call
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # which would keep a thousand lines of the log back
        "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": IMPORT_PATH,
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        # a front door that died is missed after three of these, and opened again
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        # Serve kills a front door that starts slower than this, and a busy machine takes its time
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(
            write_haproxy(folder, private_ports=(metrics, stats), trusted=config.trusted_proxies)
        ),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "10",
        # engines and error functions take turns, so each may have all cores
        "OMP_NUM_THREADS": str(os.cpu_count() or 1),
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    # uvicorn would take whatever stands first in X-Forwarded-For; see addresses.py
    os.environ["FORWARDED_ALLOW_IPS"] = ""


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
