"""The files of one reference, wherever they lie: what every store offers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

from ztom.errors import (
    CheckpointError,
    StorageError,
)

_HASH_CHUNK = 8 * 2**20


class Source(Protocol):
    """The files of one reference. Safe to use from several threads."""

    @property
    def reference(self) -> str:
        """The reference as it was written."""

    def names(self) -> list[str]:
        """Names of the top-level regular files, sorted; hidden and oddly named ones left out."""

    def paths(self) -> list[str]:
        """Paths of all regular files from the folder on, those in subfolders too, sorted.

        They are named, not opened, and may be called anything. A folder that is not looked into
        (it is hidden, or a link) stands for what it holds, with a slash at its end.

        Raises:
            CheckpointError: There are more than `Settings.max_archive_members`.
        """

    def size(self, name: str) -> int:
        """Size in bytes; here and below the name may be one of `paths`."""

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes from ``offset``: exactly ``length`` of them, or all that follow."""

    def read_into(self, name: str, offset: int, buffer: memoryview) -> None:
        """Fill the buffer from ``offset``.

        Raises:
            ContentChangedError: The file is not what it was at first sight.
            StorageError: The store failed, or the file is shorter than asked.
        """

    def generation(self, name: str) -> str | None:
        """The store's own version of the file (generation, ETag), where it has one."""

    def sha256(self, name: str) -> str:
        """Lower-case hex digest of the file; streamed, remembered while the file is unchanged."""

    def local_folder(self) -> Path | None:
        """The folder, where the reference is a plain local one."""


def read_bytes(source: Source, name: str, offset: int, length: int | None) -> bytes:
    """`Source.read`, of what fills a buffer.

    Raises:
        StorageError: The file is shorter than asked, or the store failed.
    """
    available = max(source.size(name) - offset, 0)
    if length is not None and length > available:
        raise short_read(source.reference, name, offset, length, available)
    buffer = bytearray(available if length is None else length)
    source.read_into(name, offset, memoryview(buffer))
    return bytes(buffer)


def stream_sha256(source: Source, name: str) -> str:
    """Hash a file in chunks through one buffer."""
    digest = hashlib.sha256()
    size = source.size(name)
    buffer = memoryview(bytearray(min(_HASH_CHUNK, size)))
    for offset in range(0, size, _HASH_CHUNK):
        window = buffer[: min(_HASH_CHUNK, size - offset)]
        source.read_into(name, offset, window)
        digest.update(window)
    return digest.hexdigest()


def short_read(reference: str, name: str, offset: int, wanted: int, available: int) -> StorageError:
    """The error for a file that ends before the bytes that were asked for."""
    return StorageError(
        f"{reference}: {name} ends too early",
        got=f"{available} bytes from offset {offset}",
        expected=f"{wanted} bytes",
    )


def too_many_files(reference: str, limit: int) -> CheckpointError:
    """The error for a folder that holds more than is looked through."""
    return CheckpointError(
        f"{reference} holds too many files",
        expected=f"at most {limit} (ZTOM_MAX_ARCHIVE_MEMBERS)",
        fix="Move what does not belong to the model out of its folder.",
    )
