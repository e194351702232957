"""Tar archives of a checkpoint folder, read without ever extracting them as such.

An uncompressed tar is read in place: its headers are walked once, and each file of it is a range
of the archive. A gzip-compressed one is unpacked into the cache by another process, file by file,
under names and modes of our own choosing, and appears there whole or not at all.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath

from ztom.checkpoints.cache import publish_folder, staging_folder, write_new_file
from ztom.checkpoints.local import LocalSource
from ztom.checkpoints.reference import is_plain_name, is_plain_path
from ztom.checkpoints.source import Source, short_read, stream_sha256
from ztom.checkpoints.tar_headers import TarMember, walk_tar
from ztom.errors import ArchiveError, StorageError
from ztom.io.bounded import BoundedPool, OverLimitError
from ztom.settings import Settings

_FETCH_CHUNK = 16 * 2**20
_LONGEST_SHOWN = 200
#: What any compressed archive may unpack to, bytes; a longer one has a share by its own length.
_FREE_BYTES = 64 * 2**20
#: Seconds that unpacking may take: so many, and so many bytes a second.
_LEAST_S = 60.0
_SLOWEST_BYTES_S = 10 * 2**20
_MEMORY_BYTES = 2**30
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
        members = list(
            walk_tar(
                reference, _RangeStream(parent, name), max_members=settings.max_archive_members
            )
        )
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


def _unpacked(reference: str, parent: Source, name: str, *, settings: Settings) -> Path:
    """The cache folder with the archive's files, unpacked now unless it is there."""
    version = parent.generation(name)
    content = version and f"{reference}\n{parent.size(name)}\n{version}"
    key = hashlib.sha256(content.encode()).hexdigest() if content else parent.sha256(name)
    shelf = settings.cache / "archives"
    target = shelf / key
    if (target / _PASSED).is_file():  # without it, it was unpacked when subfolders were not
        return target
    with staging_folder(shelf) as staging:
        written = _written(reference, parent, name, staging, settings=settings)
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


def _written(
    reference: str, parent: Source, name: str, staging: Path, *, settings: Settings
) -> dict[TarMember, Path]:
    """The archive's files and where they were written; another process unpacks them."""
    size, folder = parent.size(name), parent.local_folder()
    archive = staging / "archive" if folder is None else folder / name
    if folder is None:
        write_new_file(archive, _pieces(parent, name, size))
    quota = min(
        settings.max_archive_bytes, max(_FREE_BYTES, int(size * settings.max_archive_ratio))
    )
    arguments = (str(archive), str(staging), quota, settings.max_archive_members)
    seconds = _LEAST_S + quota / _SLOWEST_BYTES_S
    try:
        members, refused = _unpackers().call(
            "ztom.checkpoints.unpack:unpack", reference, *arguments, cpu_s=seconds, wall_s=seconds
        )
    except OverLimitError as error:
        raise ArchiveError(f"{reference} cannot be unpacked", reason=error) from None
    if refused is not None:
        raise OSError(*refused)
    parent.size(name)  # a file that was changed meanwhile is refused here
    return {TarMember(*member): staging / str(i) for i, member in enumerate(members)}


@functools.cache
def _unpackers() -> BoundedPool:
    return BoundedPool(processes=2, memory_bytes=_MEMORY_BYTES)


def _pieces(parent: Source, name: str, size: int) -> Iterator[bytes]:
    for offset in range(0, size, _FETCH_CHUNK):
        yield parent.read(name, offset, min(_FETCH_CHUNK, size - offset))
