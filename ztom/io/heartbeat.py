"""Lines that say what is being done, where no terminal draws it: no pipe is silent for long.

A `Heartbeat` decides when a line is due, by a clock that is passed in; `beating` has a thread ask
it. Whoever reads a log sees at least one line every `INTERVAL_S` seconds: every command of ``ztom``
runs in `command_heartbeat`, and what knows better what is being done (`ztom.io.progress`) speaks in
its place for a time. Of several that beat only the innermost speaks.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ztom.errors import ConfigError

#: Seconds without a line after which one is due; with a busy machine's delay it stays below 15.
INTERVAL_S = 10.0
INTERVAL_VARIABLE = "ZTOM_HEARTBEAT_S"


class Heartbeat:
    """Prints what is being done whenever nothing was printed for a while.

    Args:
        say: Callback that prints a line.
        clock: Seconds that never go back.
        interval_s: Seconds without a line after which one is due; what ``ZTOM_HEARTBEAT_S`` says
            when None, or `INTERVAL_S`.

    Raises:
        ConfigError: ``ZTOM_HEARTBEAT_S`` is not a number above 0.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        interval_s: float | None = None,
    ) -> None:
        self._say = say
        self._clock = clock
        self._interval_s = _interval_s() if interval_s is None else interval_s
        self._lock = threading.Lock()
        self.resting = False
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
            if self.resting:
                self._printed = now
            left = self._printed + self._interval_s - now
            if left > 0:
                return left
            self._print(f"... {self._describe()} ({now - self._began:.0f} s so far)")
            return self._interval_s

    def _print(self, text: str) -> None:
        self._printed = self._clock()
        self._say(text)


#: Those that beat, the innermost last.
_beating: list[Heartbeat] = []


def current() -> Heartbeat | None:
    """The innermost heartbeat that beats; None where nothing does."""
    return _beating[-1] if _beating else None


def rest() -> None:
    """Say nothing more: what was started serves from now on, and its own log speaks for it."""
    for heartbeat in _beating:
        heartbeat.resting = True


@contextmanager
def command_heartbeat(what: str) -> Iterator[None]:
    """Say on standard error that a command goes on; nothing on a terminal, where one sees it.

    Args:
        what: Words for the command.

    Raises:
        ConfigError: ``ZTOM_HEARTBEAT_S`` is not a number above 0.
    """

    def say(line: str) -> None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    heartbeat = Heartbeat(say)
    heartbeat.doing(what)
    if sys.stderr.isatty():
        yield
        return
    with beating(heartbeat):
        yield


@contextmanager
def beating(heartbeat: Heartbeat) -> Iterator[Heartbeat]:
    """Have a thread look whether a line is due, for the time of the context; others rest."""
    ended = threading.Event()
    awake = [other for other in _beating if not other.resting]
    for other in awake:
        other.resting = True
    _beating.append(heartbeat)

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
        _beating.remove(heartbeat)
        for other in awake:
            other.resting = False


def _interval_s() -> float:
    text = os.environ.get(INTERVAL_VARIABLE, "")
    if not text:
        return INTERVAL_S
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ConfigError(f"{INTERVAL_VARIABLE} is wrong", got=text, expected="seconds, as in 10")
    return seconds
