"""Engines that died while others live: they are made again in the background.

A dead engine's process, or its whole node, may take minutes to be replaced, or for ever. Its trial
goes to another engine at once, and it gets trials again when it answers.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from ztom.errors import EngineTimeoutError, ZtomError

logger = logging.getLogger(__name__)


class Restart(Protocol):
    """What makes an engine again."""

    def __call__(self) -> object:
        """Wait until it answers; raises ZtomError where it does not."""


class Replacements:
    """Which engines of a search can be given trials.

    Args:
        restarts: What makes each engine again.
        start: Starts what runs beside; a thread where None.
    """

    def __init__(
        self,
        restarts: Sequence[Restart],
        *,
        start: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self._restarts = tuple(restarts)
        self._start = start or _in_thread
        self._lock = threading.Lock()
        self._down: set[int] = set()
        self._errors: dict[int, ZtomError] = {}
        self._ended = False

    @property
    def live(self) -> tuple[int, ...]:
        """Places of the engines that answer, as far as is known."""
        with self._lock:
            return tuple(n for n in range(len(self._restarts)) if n not in self._down)

    @property
    def failure(self) -> ZtomError | None:
        """Why none is left and none will come; None while there is hope."""
        with self._lock:
            if len(self._errors) < len(self._restarts):
                return None
            return self._errors[max(self._errors)]

    def lose(self, place: int) -> None:
        """Give an engine no more trials until it is made again, which begins now."""
        with self._lock:
            if place in self._down:
                return
            self._down.add(place)
            left = len(self._restarts) - len(self._down)
        logger.warning(
            "engine %d of %d is gone: its trial goes to another, the search goes on with %d, and "
            "a new one is waited for",
            place + 1,
            len(self._restarts),
            left,
        )
        self._start(lambda: self._restart(place))

    def end(self) -> None:
        """Wait for nothing any more."""
        self._ended = True

    def _restart(self, place: int) -> None:
        while not self._ended:
            try:
                self._restarts[place]()
            except EngineTimeoutError:  # no node has come yet, and one still may
                continue
            except ZtomError as error:
                if not self._ended:
                    logger.warning("engine %d cannot be made again: %s", place + 1, error)
                with self._lock:
                    self._errors[place] = error
                return
            with self._lock:
                self._down.discard(place)
            logger.warning("engine %d answers again", place + 1)
            return


def _in_thread(run: Callable[[], None]) -> None:
    threading.Thread(target=run, name="replace-engine", daemon=True).start()
