"""Log handlers survive the import of vLLM, which configures logging and closes all that there are.

Ray Serve logs through a handler that keeps lines for a while and then hands them to its target. One
that was closed has no target: nothing more of a replica is logged, and when Serve's controller
starts again it cannot ask the replica for its log file, takes it for broken and stops it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler


@contextmanager
def log_targets_kept() -> Iterator[None]:
    """Whatever configures logging inside, handlers that keep lines keep their targets."""
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    targets = [
        (handler, handler.target)
        for logger in loggers
        if isinstance(logger, logging.Logger)
        for handler in logger.handlers
        if isinstance(handler, MemoryHandler)
    ]
    try:
        yield
    finally:
        for handler, target in targets:
            handler.setTarget(target)
