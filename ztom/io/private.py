"""Files and folders that nobody but their owner may open, whatever the umask says.

What was there before, made by an older version or by hand, is closed as well: a mode is no choice
about one run. A folder that belongs to somebody else (a mounted volume) cannot be closed by us;
that is logged, and the files in it are private all the same.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)

#: Modes of what is private.
PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700
_OTHERS = 0o077


def private_folder(path: Path) -> Path:
    """Make a folder that only its owner may open, or close one that is there; returns it.

    Folders above it that have to be made are private too; those that are there stay as they are.

    Raises:
        OSError: It cannot be made.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True, mode=PRIVATE_FOLDER)
    _close_to_others(path, PRIVATE_FOLDER)
    return path


def private_file(path: Path) -> Path:
    """Make an empty file that only its owner may read, or close one that is there; returns it.

    Raises:
        OSError: It cannot be made.
    """
    # Never more than the owner's, not even between two calls.
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE))
    _close_to_others(path, PRIVATE_FILE)
    return path


def open_private(path: Path) -> IO[str]:
    """A private file, opened to be read and written at its end; it is made if need be.

    Raises:
        OSError: It cannot be made or opened.
    """
    return private_file(path).open("a+", encoding="utf-8")


def is_private(path: Path) -> bool:
    """Whether only the owner may do anything with a file or folder."""
    return not path.stat().st_mode & _OTHERS


def _close_to_others(path: Path, mode: int) -> None:
    there = path.stat()
    if not there.st_mode & _OTHERS:
        return
    if not there.st_mode & stat.S_ISVTX:  # as /tmp has it: everybody's on purpose, not ours
        with contextlib.suppress(PermissionError):
            path.chmod(stat.S_IMODE(there.st_mode) & mode)
            return
    logger.warning(
        "%s is open to others (mode %o, user %d): a folder of its own would not be",
        path,
        stat.S_IMODE(there.st_mode),
        there.st_uid,
    )
