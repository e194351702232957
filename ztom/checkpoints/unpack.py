"""A gzip-compressed tar, unpacked file by file into a folder, under numbers for names.

It runs in a process of its own (`ztom.io.bounded`): what it imports is little. The quota counts
what comes out of the gzip, whatever the headers say, and headers that announce more end it before
anything of that file is written.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from ztom.checkpoints.cache import write_new_file
from ztom.checkpoints.tar_headers import TarMember, walk_tar
from ztom.errors import ArchiveError

_COPY_CHUNK = 2**20
#: A member's path, offset and size, bytes.
Unpacked = tuple[str, int, int]


def unpack(
    reference: str, archive: str, folder: str, quota: int, max_members: int
) -> tuple[list[Unpacked], tuple[int, str] | None]:
    """Write the regular files of an archive into a folder, each under its ordinal.

    Args:
        reference: Names the archive in errors.
        archive: Path of the compressed file.
        folder: Path of an empty folder.
        quota: Most bytes that may come out of the archive.
        max_members: Largest number of members.

    Returns:
        The files in order, and what the disk said if it refused: number and text of its error.

    Raises:
        ArchiveError: The archive is damaged, holds too much, or something that is never unpacked.
    """
    members: list[Unpacked] = []
    with Path(archive).open("rb") as file:
        stream = _GzipStream(reference, gzip.GzipFile(fileobj=file, mode="rb"), quota=quota)
        for ordinal, member in enumerate(walk_tar(reference, stream, max_members=max_members)):
            if member.offset + member.size > quota:
                raise ArchiveError(
                    f"{reference}: {member.path} is too large",
                    got=f"{member.size} bytes",
                    expected=f"at most {quota} bytes in all",
                )
            try:
                # Under a number, so that no name of the archive reaches the disk unexamined.
                write_new_file(Path(folder) / str(ordinal), _data(reference, stream, member))
            except OSError as error:
                return [], (error.errno or 0, error.strerror or str(error))
            members.append((member.path, member.offset, member.size))
    return members, None


class _GzipStream:
    """Front-to-back reads of what a gzip file holds, up to a quota."""

    def __init__(self, reference: str, file: gzip.GzipFile, *, quota: int) -> None:
        self._reference = reference
        self._file = file
        self._quota = quota
        self.position = 0

    def read(self, count: int) -> bytes:
        parts = []
        while count and (part := self._read_some(min(count, _COPY_CHUNK))):
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def skip_to(self, position: int) -> None:
        while self.position < position:
            if not self._read_some(min(position - self.position, _COPY_CHUNK)):
                raise ArchiveError(f"{self._reference} is truncated", fix="Fetch it again.")

    def _read_some(self, count: int) -> bytes:
        try:
            data = self._file.read(count)
        except (OSError, EOFError, zlib.error) as error:
            raise ArchiveError(f"{self._reference} is not intact gzip", reason=error) from error
        self.position += len(data)
        if self.position > self._quota:
            raise ArchiveError(
                f"{self._reference} unpacks to too much",
                expected=f"at most {self._quota} bytes",
                fix="Send it as a plain .tar.",
            )
        return data


def _data(reference: str, stream: _GzipStream, member: TarMember) -> Iterator[bytes]:
    left = member.size
    while left:
        data = stream.read(min(left, _COPY_CHUNK))
        if not data:
            raise ArchiveError(f"{reference} is truncated within {member.path}")
        left -= len(data)
        yield data
