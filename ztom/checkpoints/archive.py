"""Tar archives of a checkpoint folder, read without ever extracting them as such.

An uncompressed tar is read in place: its headers are walked once, and each file of it is a range
of the archive. A gzip-compressed one is streamed into the cache, file by file, under names and
modes of our own choosing, and appears there whole or not at all.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ztom.checkpoints.cache import publish_folder, staging_folder, write_new_file
from ztom.checkpoints.local import LocalSource
from ztom.checkpoints.reference import is_plain_name, is_plain_path
from ztom.checkpoints.source import Source, short_read, stream_sha256
from ztom.checkpoints.tar_headers import TarMember, walk_tar
from ztom.errors import ArchiveError, StorageError, ZtomError
from ztom.settings import Settings

_COPY_CHUNK = 2**20
_FETCH_CHUNK = 16 * 2**20
_LONGEST_SHOWN = 200
#: In an unpacked archive: what of it was passed over. Hidden, so no archive can bring one.
_PASSED = ".passed-over.json"


def open_tar(
    reference: str, parent: Source, name: str, *, compressed: bool, settings: Settings
) -> Source:
    """Open a tar as the folder it holds; a single folder around the files is looked through.

    Args:
        reference: Reference as it was written.
        parent: The source that holds the archive as a file.
        name: The archive's name in it.
        compressed: Whether the archive is gzip-compressed.
        settings: Limits and cache.

    Raises:
        ArchiveError: The archive holds something that is never unpacked.
        StorageError: It could not be read, or the cache not written.
    """
    if compressed:
        folder = _unpacked(reference, parent, name, settings=settings)
        return UnpackedSource(reference, folder, settings=settings)
    return TarSource(reference, parent, name, settings=settings)


class UnpackedSource(LocalSource):
    """An archive that was unpacked into the cache."""

    def paths(self) -> list[str]:
        """See `ztom.checkpoints.storage.Source.paths`."""
        passed: list[str] = json.loads((self._folder / _PASSED).read_bytes())
        return sorted([*(path for path in super().paths() if path != _PASSED), *passed])


class TarSource:
    """The files of an uncompressed tar, each a range of the archive."""

    def __init__(self, reference: str, parent: Source, name: str, *, settings: Settings) -> None:
        self.reference = reference
        self._parent = parent
        self._archive = name
        members = list(walk_tar(reference, _RangeStream(parent, name), settings=settings))
        self._members, self._passed = _choose(reference, members)
        self._digests: dict[str, str] = {}

    def names(self) -> list[str]:
        """See `ztom.checkpoints.storage.Source.names`."""
        return sorted(name for name in self._members if is_plain_name(name))

    def paths(self) -> list[str]:
        """See `ztom.checkpoints.storage.Source.paths`."""
        return sorted([*self._members, *self._passed])

    def size(self, name: str) -> int:
        """See `ztom.checkpoints.storage.Source.size`."""
        return self._member(name).size

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `ztom.checkpoints.storage.Source.read`."""
        member = self._member(name)
        count = max(member.size - offset, 0) if length is None else length
        self._check_range(name, member, offset, count)
        return self._parent.read(self._archive, member.offset + offset, count)

    def read_into(self, name: str, offset: int, buffer: memoryview) -> None:
        """See `ztom.checkpoints.storage.Source.read_into`."""
        member = self._member(name)
        self._check_range(name, member, offset, buffer.nbytes)
        self._parent.read_into(self._archive, member.offset + offset, buffer)

    def generation(self, name: str) -> str | None:
        """The version of the whole archive."""
        self._member(name)
        return self._parent.generation(self._archive)

    def sha256(self, name: str) -> str:
        """See `ztom.checkpoints.storage.Source.sha256`."""
        # The archive's pin is compared first: it is what keeps remembered digests valid.
        self._parent.size(self._archive)
        self._parent.generation(self._archive)
        if name not in self._digests:
            self._digests[name] = stream_sha256(self, name)
        return self._digests[name]

    def local_folder(self) -> Path | None:
        """None: the files lie inside the archive."""
        return None

    def _member(self, name: str) -> TarMember:
        if name not in self._members:
            raise StorageError(f"{self.reference}: there is no file {ascii(name)}")
        return self._members[name]

    def _check_range(self, name: str, member: TarMember, offset: int, count: int) -> None:
        if offset + count > member.size:
            available = max(member.size - offset, 0)
            raise short_read(self.reference, name, offset, count, available)


def _choose(reference: str, members: Sequence[TarMember]) -> tuple[dict[str, TarMember], list[str]]:
    """The files of the checkpoint by their paths, and what is passed over.

    They stand at the top, or all within the single top folder. What is hidden or oddly named is
    passed over, whatever it is.
    """
    visible = [
        member
        for member in members
        if is_plain_name(PurePosixPath(member.path).name)
        and not any(part.startswith(".") for part in member.path.split("/"))
    ]
    top = ""
    if not any("/" not in member.path for member in visible):
        folders = {member.path.split("/")[0] for member in visible}
        if len(folders) != 1:
            raise ArchiveError(
                f"{reference} does not hold one checkpoint folder",
                got=f"{len(folders)} folders at the top and no file",
                expected="the files themselves, or one folder with them",
            )
        top = f"{folders.pop()}/"
    chosen: dict[str, TarMember] = {}
    passed: list[str] = []
    for member in members:
        path = member.path.removeprefix(top)
        if member.path.startswith(top) and is_plain_path(path):
            chosen[path] = member
        else:
            passed.append(path[:_LONGEST_SHOWN])
    _refuse_files_that_are_folders(reference, chosen)
    return chosen, passed


def _refuse_files_that_are_folders(reference: str, paths: Collection[str]) -> None:
    for path in paths:
        for parent in list(PurePosixPath(path).parents)[:-1]:
            if str(parent) in paths:
                raise ArchiveError(
                    f"{reference} holds two things of one name",
                    got=f"a file {parent} and a folder {parent}",
                )


class _RangeStream:
    """Front-to-back reads over a file of a source; skipping costs nothing."""

    def __init__(self, source: Source, name: str) -> None:
        self._source = source
        self._name = name
        self._size = source.size(name)
        self.position = 0

    def read(self, count: int) -> bytes:
        count = min(count, max(self._size - self.position, 0))
        data = self._source.read(self._name, self.position, count)
        self.position += count
        return data

    def skip_to(self, position: int) -> None:
        self.position = position


class _RawFile(io.RawIOBase):
    """A `_RangeStream` as the file object that gzip wants."""

    def __init__(self, stream: _RangeStream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self._stream.read(len(view))
        view[: len(data)] = data
        return len(data)


class _GzipStream:
    """Front-to-back reads of what a gzip file holds, up to a quota."""

    def __init__(self, reference: str, stream: _RangeStream, *, quota: int) -> None:
        self._reference = reference
        self._file = gzip.GzipFile(
            fileobj=io.BufferedReader(_RawFile(stream), _FETCH_CHUNK), mode="rb"
        )
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
        except ZtomError:
            raise
        except (OSError, EOFError, zlib.error) as error:
            raise ArchiveError(f"{self._reference} is not intact gzip", reason=error) from error
        self.position += len(data)
        if self.position > self._quota:
            raise ArchiveError(
                f"{self._reference} unpacks to too much", expected=f"at most {self._quota} bytes"
            )
        return data


def _unpacked(reference: str, parent: Source, name: str, *, settings: Settings) -> Path:
    """The cache folder with the archive's files, unpacked now unless it is there."""
    version = parent.generation(name)
    content = version and f"{reference}\n{parent.size(name)}\n{version}"
    key = hashlib.sha256(content.encode()).hexdigest() if content else parent.sha256(name)
    shelf = settings.cache / "archives"
    target = shelf / key
    if (target / _PASSED).is_file():  # without it, it was unpacked when subfolders were not
        return target
    stream = _GzipStream(reference, _RangeStream(parent, name), quota=settings.max_archive_bytes)
    with staging_folder(shelf) as staging:
        written = {}
        for ordinal, member in enumerate(walk_tar(reference, stream, settings=settings)):
            if member.offset + member.size > settings.max_archive_bytes:
                raise ArchiveError(
                    f"{reference}: {member.path} is too large",
                    got=f"{member.size} bytes",
                    expected=f"at most {settings.max_archive_bytes} bytes in all",
                )
            # Under a number, so that no name of the archive reaches the disk unexamined.
            written[member] = staging / str(ordinal)
            write_new_file(written[member], _data(reference, stream, member))
        folder = staging / "checkpoint"
        folder.mkdir(mode=0o755)
        chosen, passed = _choose(reference, list(written))
        for path, member in chosen.items():
            (folder / path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            written[member].rename(folder / path)
        write_new_file(folder / _PASSED, [json.dumps(passed).encode()])
        if target.is_dir():
            target.rename(staging / "before")
        publish_folder(folder, target)
    return target


def _data(reference: str, stream: _GzipStream, member: TarMember) -> Iterator[bytes]:
    left = member.size
    while left:
        data = stream.read(min(left, _COPY_CHUNK))
        if not data:
            raise ArchiveError(f"{reference} is truncated within {member.path}")
        left -= len(data)
        yield data
