"""Folders of the cache that are whole or absent.

Everything is written into a staging folder beside its place, synced, and renamed. A process that is
killed leaves only a staging folder, which a later one sweeps away.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ztom.errors import StorageError
from ztom.io.files import sync_path

logger = logging.getLogger(__name__)

_STAGING = ".staging-"
_STALE_S = 24 * 3600


@contextmanager
def staging_folder(shelf: Path) -> Iterator[Path]:
    """A private folder to write in; removed at the end, whatever happened.

    Args:
        shelf: Place at which the finished folder will stand.

    Raises:
        StorageError: The disk refused (full, read-only).
    """
    try:
        shelf.mkdir(parents=True, exist_ok=True)
        _sweep(shelf)
        staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=shelf))
    except OSError as error:
        raise _disk_error(shelf, error) from error
    try:
        yield staging
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise _disk_error(shelf, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """An empty folder to fill; at the end it stands at its place, where a damaged one gives way.

    Args:
        target: Place of the folder.

    Raises:
        StorageError: The disk refused (full, read-only).
    """
    with staging_folder(target.parent) as staging:
        if target.is_dir():
            target.rename(staging / "damaged")
        fresh = staging / "fresh"
        fresh.mkdir(mode=0o755)
        yield fresh
        publish_folder(fresh, target)


def write_new_file(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write a new file with mode 0644 and sync it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                view = view[file.write(view) :]
        os.fsync(file.fileno())


def publish_folder(folder: Path, target: Path) -> None:
    """Rename a finished folder to its place; one that is there already, from a rival, is kept."""
    sync_path(folder)
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return
    sync_path(target.parent)


def _sweep(shelf: Path) -> None:
    """Remove the staging folders of processes that died a day ago or earlier."""
    for leftover in shelf.glob(f"{_STAGING}*"):
        try:
            stale = time.time() - leftover.stat().st_mtime > _STALE_S
        except FileNotFoundError:
            continue
        if stale:
            logger.warning("removing what an interrupted copy left: %s", leftover)
            shutil.rmtree(leftover, ignore_errors=True)


def _disk_error(shelf: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{shelf} cannot be written",
        reason=error.strerror or error,
        fix="Free some space there, or use another disk (ZTOM_CACHE_DIR moves the cache).",
    )
