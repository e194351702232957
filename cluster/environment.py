"""What a local Ray reads from the environment. Nothing here imports Ray, which reads some of it
when it is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ztom.errors import ConfigError

#: Bytes that the path of a socket may have, and what Ray puts behind the temporary folder.
_LONGEST_SOCKET = 107
_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"
_NEVER_A_CLUSTER = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


def keep_on_loopback() -> None:
    """Have a local Ray listen on the loopback interface only; it reads this at its import.

    It opens its ports on every interface unless it is told that it will never be a cluster. The
    variable's name is about other systems; its effect is the same on Linux. Who has set it, or
    names a cluster to join, wants something else.
    """
    if not os.environ.get("RAY_ADDRESS"):
        os.environ.setdefault(_NEVER_A_CLUSTER, "0")


def loopback_variable() -> str:
    """Name of the variable of `keep_on_loopback`, which no node of a cluster may have."""
    return _NEVER_A_CLUSTER


def require_short_folder() -> None:
    """Refuse a temporary folder in which Ray could not make its sockets.

    Raises:
        ConfigError: Its path is too long; Linux allows sockets 107 bytes.
    """
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    longest = _LONGEST_SOCKET - len(_SOCKET)
    if len(os.fsencode(folder)) > longest:
        raise ConfigError(
            "the path of the temporary folder is too long for Ray",
            got=folder,
            expected=f"at most {longest} bytes",
            fix="Set RAY_TMPDIR to a shorter one, such as /tmp.",
        )


def worker_environment() -> dict[str, str]:
    """What the processes of a local Ray inherit, so that they import what the driver can."""
    return {
        "RAY_USAGE_STATS_ENABLED": os.environ.get("RAY_USAGE_STATS_ENABLED", "0"),
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    }


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, and put back what was there."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
