"""What the controller waits for, beside its rounds: starting and proving one variant, each apart.

A variant that hangs while it is proved holds up nobody but itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Protocol

logger = logging.getLogger(__name__)

#: Variants that start or are proved at a time; they do little but wait.
_AT_ONCE = 64


class Lanes(Protocol):
    """Does work under names; no name has two works at a time."""

    def busy(self) -> frozenset[str]:
        """Names whose work is under way."""

    def run(self, name: str, work: Callable[[], None]) -> None:
        """Have work done, unless that of the same name is under way."""


class OneLane:
    """Does work at once, where it is asked for."""

    def busy(self) -> frozenset[str]:
        """See `Lanes.busy`."""
        return frozenset()

    def run(self, name: str, work: Callable[[], None]) -> None:
        """See `Lanes.run`; what the work raises is raised."""
        work()


class ThreadLanes:
    """Does work in threads; what it raises is logged, and the next look shows what it left undone.

    Args:
        at_once: Works under way at most; others wait for their turn.
    """

    def __init__(self, at_once: int = _AT_ONCE) -> None:
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="lane")
        self._lock = Lock()
        self._names = set[str]()

    def busy(self) -> frozenset[str]:
        """See `Lanes.busy`."""
        with self._lock:
            return frozenset(self._names)

    def run(self, name: str, work: Callable[[], None]) -> None:
        """See `Lanes.run`."""
        with self._lock:
            if name in self._names:
                return
            self._names.add(name)
        self._pool.submit(self._do, name, work)

    def close(self) -> None:
        """Begin no more work; what is under way is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _do(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            logger.error("%s: %s: %s", name, type(error).__name__, error)
        finally:
            with self._lock:
                self._names.discard(name)
