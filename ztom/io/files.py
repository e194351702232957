"""Writing files so that one which exists is whole."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ztom.errors import StorageError


def write_whole(path: Path, text: str, *, private: bool = False) -> None:
    """Write aside, flush to disk, rename: a reader sees the old content or the new one.

    Args:
        path: Path of the file; its folder is made.
        text: Content of the file, written as UTF-8.
        private: Whether only its owner may read it, from the first byte on, and open the folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if private else 0o777)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    mode = 0o600 if private else 0o666
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        sync_path(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def sync_path(path: Path) -> None:
    """Bring a file, or the list of names of a folder (else a rename can be lost), to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_document(path: Path, text: str) -> Path:
    """Write a file that is whole or not there, in place of what was there; returns it.

    Raises:
        StorageError: The disk refused.
    """
    try:
        write_whole(path, text)
    except OSError as error:
        raise StorageError(f"{path} cannot be written", reason=error.strerror) from error
    return path
