"""What the operating system refuses, as an error with what to do; and a look before it has to.

A full disk, a folder that cannot be written, a limit on files: who meets them gets one sentence.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ztom.errors import StorageError, ZtomError
from ztom.io.places import StoragePlace

_FULL = "Free some space, or write to another disk; nothing that is half written is used."
_RIGHTS = "Give this user the rights to it, or name another place."
#: What can be done about a refusal.
_FIXES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "Raise the limit on the size of files (`ulimit -f`), or write smaller shards.",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: "Name a place that can be written.",
    errno.ENOENT: "Is the path right?",
    errno.ENOTDIR: "Is the path right? What it goes through is a file.",
    errno.EMFILE: "Raise the limit on open files (`ulimit -n`).",
    errno.ENAMETOOLONG: "Name a shorter path.",
}


def system_error(error: OSError) -> StorageError:
    """What the operating system refused, with the path that it names."""
    place = error.filename if error.filename is not None else "the system"
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    return StorageError(f"{place}: {reason}", fix=_FIXES.get(error.errno or 0))


def is_safetensors_error(error: BaseException) -> bool:
    """Whether safetensors says that it could not read or write; its error is no OSError."""
    return type(error).__name__ == "SafetensorError"


def weights_error(error: BaseException, place: object) -> StorageError:
    """What safetensors says of a file, or of a folder that it writes to."""
    return StorageError(f"{place}: weights could not be read or written", reason=error, fix=_FULL)


@contextmanager
def disk_errors(folder: Path | str) -> Iterator[None]:
    """Raise what a disk refuses while something is written into a folder as `StorageError`.

    Raises:
        StorageError: The disk refused.
    """
    try:
        yield
    except ZtomError:
        raise
    except OSError as error:
        raise system_error(error) from error
    except Exception as error:
        if not is_safetensors_error(error):
            raise
        raise weights_error(error, folder) from error


def require_writable(folder: Path, *, what: str) -> None:
    """Look whether a folder, which may not be there yet, can be written into.

    Args:
        folder: The folder; it is made.
        what: Name of the option or the thing in the error.

    Raises:
        StorageError: It cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        refusal = system_error(error)
        raise StorageError(
            f"{what} cannot be written",
            got=f"{folder} ({(error.strerror or str(error)).lower()})",
            fix=refusal.fix,
        ) from error


def require_output_place(place: StoragePlace, *, what: str) -> None:
    """Look whether a folder of this machine, or of a store, can be written into.

    Args:
        place: The folder.
        what: Name of the option or the thing in the error.

    Raises:
        ConfigError: The package of its store is not installed.
        StorageError: It cannot.
    """
    if isinstance(place, Path):
        require_writable(place, what=what)
        return
    from ztom.io.store_files import require_writable_store  # it imports fsspec

    require_writable_store(place, what=what)


def require_place(folder: Path, *, what: str) -> None:
    """Look whether a folder could be made and written, without making it.

    Args:
        folder: Folder that may not be there yet.
        what: Name of the option or the thing in the error.

    Raises:
        StorageError: The nearest folder above it that is there is none, or cannot be written.
    """
    there = _nearest(folder)
    reason = "not a directory" if not there.is_dir() else "permission denied"
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise StorageError(f"{what} cannot be written", reason=f"{there}: {reason}", fix=_RIGHTS)


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    return there


def require_room(folder: Path, nbytes: int, *, what: str) -> None:
    """Look whether there is space for something before it is made.

    Args:
        folder: Folder that it goes into; it may not be there yet.
        nbytes: Bytes that it needs, as estimated.
        what: Name of what needs them in the error.

    Raises:
        StorageError: The disk has fewer bytes free.
    """
    free = shutil.disk_usage(_nearest(folder)).free
    if nbytes > free:
        raise StorageError(
            f"there is not enough space for {what} in {folder}",
            got=f"{free / 2**30:.2f} GiB free",
            expected=f"at least {nbytes / 2**30:.2f} GiB",
            fix="Free some, or write to another disk.",
        )
