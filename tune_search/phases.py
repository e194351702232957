"""The phases of a proof: an event and the seconds of each."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ztom.search.events import Event, Proving

logger = logging.getLogger(__name__)


class PhaseTimer:
    """Reports what is going on and counts the seconds of each phase.

    Args:
        on_event: Callback that takes every event.
    """

    def __init__(self, on_event: Callable[[Event], None]) -> None:
        self._notify = on_event
        self._seconds: dict[str, float] = {}
        self._began = 0.0

    def begin(self, phase: str, what: str) -> None:
        """Say what a phase does, and start its clock."""
        logger.debug("%s: %s", phase, what)
        self.report(what)
        self._began = time.perf_counter()

    def report(self, what: str) -> None:
        """Say what is going on."""
        self._notify(Proving(what))

    def end(self, phase: str) -> None:
        """Stop the clock of the phase that began last."""
        self.add(phase, time.perf_counter() - self._began)

    def add(self, phase: str, seconds: float) -> None:
        """Count seconds to a phase."""
        self._seconds[phase] = self._seconds.get(phase, 0.0) + seconds

    @contextmanager
    def phase(self, name: str, what: str) -> Iterator[None]:
        """Time what is done in the context."""
        self.begin(name, what)
        yield
        self.end(name)

    def seconds(self, started: float) -> dict[str, float]:
        """Seconds of each phase, and of everything since ``started`` (`time.perf_counter`)."""
        return {**self._seconds, "total": time.perf_counter() - started}
