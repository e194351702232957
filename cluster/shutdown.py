"""Waiting to be stopped, and stopping one thing after another."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator

logger = logging.getLogger(__name__)

#: Not SIGINT: a process that was started in the background of a shell ignores it.
_WAKE = signal.SIGUSR2


def terminate_like_interrupt() -> None:
    """Have SIGTERM raise KeyboardInterrupt, as SIGINT does.

    Ray's own answer to SIGTERM, which this replaces, aborts the process with nothing stopped.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def wait_for_interrupt() -> None:
    """Return once the main thread gets a KeyboardInterrupt."""
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


@contextlib.contextmanager
def interrupted_unless(
    alive: Callable[[], bool], error: Exception, *, every_s: float = 2.0, again_s: float = 10.0
) -> Iterator[None]:
    """Interrupt the main thread, which runs what is in the context, when something has died.

    Whatever it does then, waiting for what has died as well, ends by a KeyboardInterrupt; undoing
    may wait for it too, so that interrupts go on.

    Args:
        alive: Whether it lives; called in a thread.
        error: Error that the context ends with then.
        every_s: Seconds between looks.
        again_s: Seconds between interrupts.

    Raises:
        Exception: `error`.
    """
    ended, dead = threading.Event(), threading.Event()
    main = threading.main_thread().ident or 0

    def watch() -> None:
        while not ended.wait(every_s):
            if not alive():
                dead.set()
                break
        while dead.is_set():
            signal.pthread_kill(main, _WAKE)
            if ended.wait(again_s):
                break

    thread = threading.Thread(target=watch, name="watch", daemon=True)
    before = signal.signal(_WAKE, signal.default_int_handler)
    thread.start()
    try:
        yield
    except BaseException:
        if not dead.is_set():
            raise
    finally:
        ended.set()
        thread.join()
        signal.signal(_WAKE, before)
    if dead.is_set():
        raise error


def best_effort(call: Callable[..., object], *arguments: object) -> None:
    """Call it, and log what it raises: one undo step must not keep later ones from running."""
    try:
        call(*arguments)
    except Exception as error:
        logger.warning("while stopping: %s: %s", type(error).__name__, error)
