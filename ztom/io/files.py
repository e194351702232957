"""Writing files so that one which exists is whole: on this machine, or as objects of a store."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TypeVar

from ztom.errors import StorageError
from ztom.io.places import StoragePlace, StoreAddress

#: A path, or an address of a store.
AnyPlace = TypeVar("AnyPlace", Path, StoreAddress, StoragePlace)


def write_whole(path: StoragePlace, text: str, *, private: bool = False) -> None:
    """Write aside, flush to disk, rename: a reader sees the old content or the new one.

    An object of a store appears whole by itself.

    Args:
        path: Path of the file, whose folder is made; or address of the object.
        text: Content of the file, written as UTF-8.
        private: Whether only its owner may read it, from the first byte on, and open the folder;
            who may read a store, its operator decides.

    Raises:
        StorageError: The store refused.
        OSError: The disk refused.
    """
    if isinstance(path, StoreAddress):
        from ztom.io.store_files import write_object  # fsspec, which most commands do without

        write_object(path, text.encode())
        return
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


def read_place(place: StoragePlace, *, at_most: int | None = None) -> bytes:
    """The whole of a file or an object.

    Args:
        place: Path or address.
        at_most: Number of bytes from its beginning; all of them when None.

    Raises:
        FileNotFoundError: There is none.
        OSError: It cannot be read.
    """
    if isinstance(place, Path):
        with place.open("rb") as file:
            return file.read(-1 if at_most is None else at_most)
    from ztom.io.store_files import read_object

    return read_object(place, at_most=at_most)


def written_s(place: StoragePlace) -> float:
    """When a file or an object was written, as Unix time in seconds.

    Raises:
        FileNotFoundError: There is none.
        OSError: It cannot be looked at.
    """
    if isinstance(place, Path):
        return place.stat().st_mtime
    from ztom.io.store_files import StoreFiles

    return StoreFiles(place.parent).modified_s(place.name)


def remove_place(place: StoragePlace) -> None:
    """Remove a file or an object; one that is not there is no work.

    Raises:
        OSError: It cannot be removed.
    """
    if isinstance(place, Path):
        place.unlink(missing_ok=True)
        return
    from ztom.io.store_files import StoreFiles

    StoreFiles(place.parent).remove(place.name)


def write_document(path: AnyPlace, text: str) -> AnyPlace:
    """Write a file that is whole or not there, in place of what was there; returns it.

    Raises:
        StorageError: The disk refused.
    """
    try:
        write_whole(path, text)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{path} cannot be written", reason=error.strerror) from error
    return path
