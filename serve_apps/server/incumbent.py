"""A server whose launcher was killed, on a cluster that outlived it: the next launcher goes on.

What a launcher starts on a cluster of its operator's stays when the launcher dies: Serve, and the
applications on it. They go on answering; what is gone is whoever would stop them. A new launcher
on the same data folder takes them over. A Serve that is somebody else's is refused, by name.
"""

from __future__ import annotations

from cluster.serve import ServeState
from ztom.errors import ConfigError


def taken_over(
    state: ServeState, *, app: str, is_ours: bool, host: str, port: int
) -> tuple[str, int]:
    """Where the Serve that runs already listens, if this server may go on with it.

    Args:
        state: The Serve.
        app: Name of the application that a server is.
        is_ours: Whether a killed server on the same data folder ran in this Ray.
        host: Address that is wanted.
        port: Port that is wanted; 0 for any.

    Returns:
        Host and port.

    Raises:
        ConfigError: It is somebody else's, or listens elsewhere than is wanted.
    """
    names = ", ".join(sorted(state.applications)) or "no application"
    if not (is_ours and app in state.applications):
        raise ConfigError(
            "Serve runs in this Ray already",
            got=f"{names}, on {state.host}:{state.port}",
            fix="Give the server a Ray of its own, or stop that one with `serve shutdown`.",
        )
    if port not in (0, state.port):
        raise ConfigError(
            "the server that was killed goes on, on another port",
            got=f"--port {port}",
            expected=f"--port {state.port}, or 0",
            fix="Take that one, or stop what runs with `serve shutdown`.",
        )
    return state.host, state.port
