"""Where to listen, and where what listens is reached."""

from __future__ import annotations

import contextlib
import secrets
import socket

from ztom.errors import ConfigError

_LOWEST_PORT, _PORTS = 12_000, 16_000


def free_port(host: str, port: int) -> int:
    """The port, if it can be listened on; a free one for 0.

    A free one is looked for below the range out of which the system gives ports to whoever asks:
    Ray's processes do, and start before the port is used.

    Raises:
        ConfigError: It is taken.
    """
    for _ in range(100 if port == 0 else 0):
        with contextlib.suppress(ConfigError):
            return free_port(host, _LOWEST_PORT + secrets.randbelow(_PORTS))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                "the address cannot be listened on",
                got=f"{host}:{port} ({error.strerror})",
                fix="Take another port, or 0 for any free one.",
            ) from error
        return int(probe.getsockname()[1])


def reachable(host: str) -> str:
    """An address at which this machine reaches what listens on ``host``."""
    if host in ("0.0.0.0", ""):
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host
