"""Processes that outlive their Ray.

A worker whose raylet was killed ends by itself, unless it is in the middle of something: a replica
that is being shut down then waits for ever for an answer of the raylet, with all its memory.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

_POLL_S = 0.1


def end_leftovers(raylet: int, *, within_s: float = 5.0) -> None:
    """Wait until nothing runs that a raylet has started, and kill what still does then.

    Args:
        raylet: Process id of the raylet, which has ended.
        within_s: Seconds that its processes have to end by themselves.
    """
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not any(_started_by(raylet)):
            return
        time.sleep(_POLL_S)
    for pid in _started_by(raylet):
        logger.warning("killing process %d, which has outlived its Ray", pid)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _started_by(raylet: int) -> Iterator[int]:
    """Process ids of workers and of what they started: all inherit a variable that names it."""
    mark = f"\0RAY_RAYLET_PID={raylet}\0".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
        except OSError:  # it has ended, or is somebody else's
            continue
        if mark in b"\0" + environment and int(folder.name) != os.getpid():
            yield int(folder.name)
