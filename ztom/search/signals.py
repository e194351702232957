"""Stopping a study by a signal, without losing what it has."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ztom.search.conductor import Conductor


@contextmanager
def interruptible(conductor: Conductor) -> Iterator[None]:
    """The first SIGINT or SIGTERM stops asking for trials; the second one abandons those
    running.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, _frame: object) -> None:
        if conductor.stop_reason == "interrupted":
            raise KeyboardInterrupt
        conductor.interrupt()

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, on_signal) for number in signals}
    # Tune takes SIGUSR1 and does not give it back.
    before[signal.SIGUSR1] = signal.getsignal(signal.SIGUSR1)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
