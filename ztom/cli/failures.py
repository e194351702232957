"""What ends a command early, as one sentence and an exit status: no traceback for what a person or
a disk did.

0 is a result, whatever it says; 3 an error, or wrong usage; 130 an interruption; 141 that nobody
reads the output any more, as of any program of a shell. Commands that answer a question with their
status (``ztom gate``, ``suite check``, ``audit verify``, ...) say in their help what 1 and 2 mean.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from typing import NoReturn

import typer

from ztom.cli.console import print_error
from ztom.cli.usage import OPTION_ERROR, is_help_request, usage_error
from ztom.errors import ConfigError, StorageError, ZtomError
from ztom.io.disk import is_safetensors_error, system_error, weights_error

FAILED, INTERRUPTED, UNREAD = 3, 130, 141
#: Name of the thread in which `ztom.checkpoints.store_access` waits for a store.
GIVEN_UP = "store-access"


def report(error: BaseException) -> int:
    """Print what ended a command; returns the exit status."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return leave_unread()
    if isinstance(error, OPTION_ERROR) and is_help_request(error):
        return FAILED
    sentence = as_sentence(error)
    if sentence is None:
        traceback.print_exception(error)
        sentence = (
            f"{type(error).__name__}: this is a fault of Z-TOM, not of what you typed. Report it "
            "with the lines above."
        )
    print_error(sentence)
    return FAILED


def as_sentence(error: BaseException) -> str | None:
    """What a person or the machine did wrong, in a sentence; None for a fault of the program."""
    known = _known(error)
    return None if known is None else f"{type(known).__name__}: {known}"


def _known(error: BaseException) -> ZtomError | None:
    if isinstance(error, ZtomError):
        return error
    if isinstance(error, OPTION_ERROR):
        return usage_error(error)
    if isinstance(error, OSError):
        return system_error(error)
    if is_safetensors_error(error):
        return weights_error(error, "a file")
    if isinstance(error, typer.Abort):
        return ConfigError("the input ended before everything was answered")
    if isinstance(error, MemoryError):
        return StorageError("there is not enough memory", fix="End something else, or use less.")
    return None


def leave(status: int) -> NoReturn:
    """End the process; at once, where a store that was given up would be waited for."""
    if any(thread.name == GIVEN_UP for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)
    sys.exit(status)


def leave_unread() -> int:
    """End quietly where nobody reads the output any more; returns the exit status.

    Python flushes standard output once more at its end, so it gets somewhere to flush it to.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
    return UNREAD
