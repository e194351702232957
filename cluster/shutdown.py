"""Waiting to be stopped, and stopping one thing after another."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


def terminate_like_interrupt() -> None:
    """Have SIGTERM raise KeyboardInterrupt, as SIGINT does.

    Ray's own answer to SIGTERM, which this replaces, aborts the process with nothing stopped.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def wait_for_interrupt(alive: Callable[[], bool] = lambda: True, *, every_s: float = 2.0) -> bool:
    """Wait for a KeyboardInterrupt in the main thread.

    Args:
        alive: Whether what is waited on is there still; looked at now and then.
        every_s: Seconds between looks.

    Returns:
        True once it was interrupted, False once it is not alive.
    """
    with contextlib.suppress(KeyboardInterrupt):
        while alive():
            threading.Event().wait(every_s)
        return False
    return True


def best_effort(call: Callable[..., object], *arguments: object) -> None:
    """Call it, and log what it raises: one undo step must not keep later ones from running."""
    try:
        call(*arguments)
    except Exception as error:
        logger.warning("while stopping: %s: %s", type(error).__name__, error)
