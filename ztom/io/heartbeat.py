"""Lines that say what is being done, where no terminal draws it: no pipe is silent for long.

A `Heartbeat` decides when a line is due, by a clock that is passed in; `beating` has a thread ask
it. Whoever reads a log sees at least one line every `INTERVAL_S` seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Seconds without a line after which one is due; with a busy machine's delay it stays below 15.
INTERVAL_S = 10.0


class Heartbeat:
    """Prints what is being done whenever nothing was printed for a while.

    Args:
        say: Callback that prints a line.
        clock: Seconds that never go back.
        interval_s: Seconds without a line after which one is due.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._say = say
        self._clock = clock
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._describe: Callable[[], str] = lambda: "working"
        self._began = self._printed = clock()

    def doing(self, what: str | Callable[[], str], *, goes_on: bool = False) -> None:
        """Note what is being done.

        Args:
            what: Words for it, or a callback that gives them.
            goes_on: Whether it is what was being done, in other words: its clock runs on.
        """
        with self._lock:
            self._describe = (lambda: what) if isinstance(what, str) else what
            if not goes_on:
                self._began = self._clock()

    def line(self, text: str) -> None:
        """Print a line now."""
        with self._lock:
            self._print(text)

    def beat(self) -> float:
        """Print a line if one is due; returns the seconds until the next one can be."""
        with self._lock:
            now = self._clock()
            left = self._printed + self._interval_s - now
            if left > 0:
                return left
            self._print(f"... {self._describe()} ({now - self._began:.0f} s so far)")
            return self._interval_s

    def _print(self, text: str) -> None:
        self._printed = self._clock()
        self._say(text)


@contextmanager
def beating(heartbeat: Heartbeat) -> Iterator[Heartbeat]:
    """Have a thread look whether a line is due, for the time of the context."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(heartbeat.beat()):
            pass

    thread = threading.Thread(target=watch, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield heartbeat
    finally:
        ended.set()
        thread.join()
