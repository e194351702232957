"""Joining a Ray that is there already: what has to be right before a server starts on it.

On a Ray of its own a server sets everything up itself. On a cluster Ray and Serve have read their
settings long ago, on every node, and other applications may be served. What a launcher starts there
stays when it is killed, and goes on answering; a new launcher on the same data folder takes it
over.
"""

from __future__ import annotations

from collections.abc import Mapping

from cluster.node_settings import HAPROXY_PROGRAM
from cluster.serve import ServeState
from ztom.errors import ConfigError

#: Settings without which doors keep no deadlines.
_DEADLINES = ("RAY_SERVE_ENABLE_HA_PROXY", HAPROXY_PROGRAM)


def joined_at(
    state: ServeState, *, app: str, is_ours: bool, host: str, port: int
) -> tuple[str, int]:
    """Where the Serve that runs already listens, if this server may join it.

    Args:
        state: The Serve.
        app: Name of the application that a server is.
        is_ours: Whether a killed server on the same data folder ran in this Ray.
        host: Address that is wanted.
        port: Port that is wanted; 0 for any.

    Returns:
        Host and port.

    Raises:
        ConfigError: Something is served at ``/`` already, or Serve listens elsewhere than wanted.
    """
    taken = [name for name, route in state.applications.items() if route == "/" or name == app]
    for name in taken:
        if name != app or not is_ours:
            raise ConfigError(
                "Serve runs in this Ray already, and serves another application at /",
                got=f"{name}, on {state.host}:{state.port}",
                expected="nothing at /, or a killed server on the same data folder",
                fix="Give the server a Ray of its own, or take that one down.",
            )
    if port not in (0, state.port):
        raise ConfigError(
            "Serve runs in this Ray already, on another port",
            got=f"--port {port}",
            expected=f"--port {state.port}, or 0",
            fix="Take that one, or stop what runs with `serve shutdown`.",
        )
    return state.host, state.port


def settings_notes(
    missing: Mapping[str, Mapping[str, str]], *, without_deadlines: bool
) -> tuple[str, ...]:
    """What nodes lack that a server goes on without.

    Args:
        missing: Settings that each node lacks, and what goes wrong without them.
        without_deadlines: Whether to go on where doors keep no deadlines.

    Raises:
        ConfigError: Doors would keep no deadlines, and nobody said that they need not.
    """
    notes = []
    for node, settings in missing.items():
        for name, harm in settings.items():
            if name in _DEADLINES and not without_deadlines:
                raise ConfigError(
                    f"node {node} lacks a setting: {harm}",
                    got=f"{name} is not set",
                    fix="Start its Ray with `ztom cluster`, or with what `ztom cluster settings` "
                    "prints; --without-deadlines goes on without.",
                )
            notes.append(f"node {node}: {name} is not set: {harm}")
    return tuple(notes)
