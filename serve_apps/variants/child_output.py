"""What processes that are started here write on standard error, kept for the reason of a failure.

vLLM starts its engine in a process of its own. When that one fails, the error that arrives here
says only that the root cause stands "above": in the log. What the child writes goes to the log as
before, and its end is kept as well.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_STDERR = 2
_KEPT_BYTES = 256 * 1024
_READ_BYTES = 64 * 1024
_WAIT_S = 2.0
_ERROR = re.compile(r"\b((?:\w+\.)*\w*(?:Error|Exception)): (\S.*)$", re.MULTILINE)
#: What only points to the cause.
_POINTS_ELSEWHERE = ("root cause", "Engine core initialization failed", "Failed core proc")


class ChildOutput:
    """The end of what was written while it was watched, and by the children since then."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._lock = threading.Lock()
        self._new = threading.Event()

    def add(self, data: bytes) -> None:
        """Keep more, and of all of it the end."""
        with self._lock:
            self._kept += data
            del self._kept[:-_KEPT_BYTES]
        self._new.set()

    def root_cause(self) -> str | None:
        """The last error in it that is not itself a pointer to another one; None without one.

        Waits a moment for one: the child's last words may come after its end was noticed.
        """
        deadline = time.monotonic() + _WAIT_S
        while (cause := self._last_cause()) is None and time.monotonic() < deadline:
            self._new.wait(deadline - time.monotonic())
            self._new.clear()
        return cause

    def _last_cause(self) -> str | None:
        with self._lock:
            text = self._kept.decode("utf-8", errors="replace")
        errors = [f"{kind.rpartition('.')[2]}: {what}" for kind, what in _ERROR.findall(text)]
        causes = [e for e in errors if not any(words in e for words in _POINTS_ELSEWHERE)]
        return " ".join(causes[-1].split())[:400] if causes else None


@contextmanager
def watched_stderr() -> Iterator[ChildOutput]:
    """Let standard error pass through here while in the context.

    Children that are started in it keep writing through here afterwards, as long as they live.
    """
    output = ChildOutput()
    saved = os.dup(_STDERR)
    reading, writing = os.pipe()
    # the copy goes to the log by a number of its own, which is closed when the last child has ended
    threading.Thread(target=_pass_on, args=(reading, os.dup(saved), output), daemon=True).start()
    os.dup2(writing, _STDERR)
    os.close(writing)
    try:
        yield output
    finally:
        os.dup2(saved, _STDERR)
        os.close(saved)


def _pass_on(reading: int, log: int, output: ChildOutput) -> None:
    try:
        while data := os.read(reading, _READ_BYTES):
            output.add(data)
            view = memoryview(data)
            while view:
                view = view[os.write(log, view) :]
    finally:
        os.close(reading)
        os.close(log)
