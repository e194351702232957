"""What a local Ray reads from the environment. Nothing here imports Ray, which reads some of it
when it is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_NEVER_A_CLUSTER = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


def keep_on_loopback() -> None:
    """Have a local Ray listen on the loopback interface only; it reads this at its import.

    It opens its ports on every interface unless it is told that it will never be a cluster. The
    variable's name is about other systems; its effect is the same on Linux. Who has set it, or
    names a cluster to join, wants something else.
    """
    if not os.environ.get("RAY_ADDRESS"):
        os.environ.setdefault(_NEVER_A_CLUSTER, "0")


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
