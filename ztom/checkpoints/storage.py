"""Read the files of a reference where they lie: a pointer, not a copy.

`open_source` gives one small interface over a local folder, an object-store folder and a tar of
either. Reads are plain positional reads, never memory maps: a file that is truncated while mapped
kills the process, a positional read reports it. What a file was at first sight (inode and times,
or the store's generation or ETag) is pinned and checked again with every read. Nothing is written
here, except that a compressed tar has to be unpacked into the cache (`ztom.checkpoints.archive`).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from ztom.checkpoints.reference import (
    Reference,
    is_plain_name,
    parse_reference,
    within_roots,
)
from ztom.errors import (
    CheckpointError,
    ContentChangedError,
    ReferenceRefusedError,
    StorageError,
)
from ztom.settings import Settings

_HASH_CHUNK = 8 * 2**20
_READ_LIMIT = 2**30  # one system call reads at most 2^31 - 4096 bytes on Linux


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


def open_source(reference: str, *, settings: Settings) -> Source:
    """Open a reference for reading.

    Args:
        reference: A local folder, a ``.tar``, ``.tar.gz`` or ``.tgz`` of one, or a ``gs://``, ``s3://``
            or ``memory://`` address of either.
        settings: Allowed schemes and roots, limits, cache.

    Raises:
        ReferenceRefusedError: The reference is not allowed, or a link leads out of its folder.
        ArchiveError: The archive holds something that is never read.
        StorageError: There is nothing, or the store failed.
    """
    parsed = parse_reference(reference, settings=settings)
    if parsed.scheme == "file" and Path(parsed.path).is_dir():
        return LocalSource(reference, Path(parsed.path), settings=settings)
    if parsed.archive != "none":
        return _open_archive(parsed, settings=settings)
    if parsed.scheme == "file":
        raise StorageError(
            f"there is no checkpoint folder at {reference}",
            got="a file" if Path(parsed.path).exists() else "nothing",
            expected="a folder, or a .tar, .tar.gz or .tgz of one",
        )
    from ztom.checkpoints.object_store import ObjectSource

    return ObjectSource(reference, parsed.scheme, parsed.path, settings=settings)


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


class LocalSource:
    """A local folder.

    Links are followed only within the folder, or into the ``blobs`` folder beside it when the
    folder is a snapshot in a Hugging Face cache; the target must lie under an allowed root.

    Args:
        reference: As it was written.
        folder: The folder, links resolved.
        settings: For the allowed roots.
    """

    def __init__(self, reference: str, folder: Path, *, settings: Settings) -> None:
        self.reference = reference
        self._folder = folder
        self._settings = settings
        self._pins: dict[str, tuple[int, ...]] = {}
        self._digests: dict[str, str] = {}

    def names(self) -> list[str]:
        """See `Source.names`."""
        try:
            found = [name for name in os.listdir(self._folder) if is_plain_name(name)]
            return sorted(name for name in found if self._is_file(name))
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise _failed(self.reference, error) from error

    def paths(self) -> list[str]:
        """See `Source.paths`."""
        try:
            return sorted(self._walk())
        except OSError as error:
            raise _failed(self.reference, error) from error

    def size(self, name: str) -> int:
        """See `Source.size`."""
        with self._open(name) as descriptor:
            return os.fstat(descriptor).st_size

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Source.read`."""
        available = max(self.size(name) - offset, 0)
        if length is not None and length > available:
            raise short_read(self.reference, name, offset, length, available)
        buffer = bytearray(available if length is None else length)
        self.read_into(name, offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, name: str, offset: int, buffer: memoryview) -> None:
        """See `Source.read_into`."""
        view = buffer.cast("B")
        with self._open(name) as descriptor:
            done = 0
            while done < len(view):
                window = view[done : done + _READ_LIMIT]
                count = os.preadv(descriptor, [window], offset + done)
                if count == 0:
                    raise short_read(self.reference, name, offset, len(view), done)
                done += count

    def generation(self, name: str) -> str | None:
        """None: a local folder keeps no versions."""
        return None

    def sha256(self, name: str) -> str:
        """See `Source.sha256`."""
        with self._open(name):  # an unchanged pin is what makes the remembered digest valid
            if name not in self._digests:
                self._digests[name] = stream_sha256(self, name)
        return self._digests[name]

    def local_folder(self) -> Path | None:
        """The folder itself."""
        return self._folder

    def _walk(self) -> Iterator[str]:
        """Every file once, the folders below one after the other."""
        limit, count, left = self._settings.max_archive_members, 0, [""]
        while left:
            prefix = left.pop()
            with os.scandir(self._folder / prefix) as entries:
                for entry in entries:
                    path = f"{prefix}{entry.name}"
                    count += 1
                    if count > limit:
                        raise too_many_files(self.reference, limit)
                    if not entry.is_dir():
                        if entry.is_file():  # no pipe, no link to nothing
                            yield path
                    elif entry.is_symlink() or entry.name.startswith("."):
                        yield f"{path}/"
                    else:
                        left.append(f"{path}/")

    def _is_file(self, name: str) -> bool:
        try:
            return stat.S_ISREG(os.stat(self._path(name)).st_mode)
        except FileNotFoundError:
            return False

    def _path(self, name: str) -> Path:
        """The path of a file, its link resolved and checked; a folder on the way is no link."""
        parts = name.split("/")
        path = self._folder.joinpath(*parts)
        folders = list(path.parents)[: len(parts) - 1]
        if (
            "\0" in name
            or any(part in ("", ".", "..") for part in parts)
            or any(folder.is_symlink() or not folder.is_dir() for folder in folders)
        ):
            raise ReferenceRefusedError(
                f"{self.reference}: {ascii(name)} is not the name of a file in it"
            )
        if not path.is_symlink():
            return path
        target = path.resolve()
        homes = [self._folder]
        if self._folder.parent.name == "snapshots":
            homes.append(self._folder.parent.parent / "blobs")
        if not any(target.is_relative_to(home) for home in homes) or not within_roots(
            "file", str(target), settings=self._settings
        ):
            raise ReferenceRefusedError(
                f"{self.reference}: {name} is a link that leads out of the folder",
                got=target,
                fix="Put the file itself into the folder.",
            )
        return target

    @contextmanager
    def _open(self, name: str) -> Iterator[int]:
        """A descriptor of the file, compared with its pin before and after use."""
        path = self._path(name)
        try:
            # Non-blocking, so that a FIFO cannot hang us before the check of its kind.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise _failed(f"{self.reference}/{name}", error) from error
        try:
            self._check_pin(name, os.fstat(descriptor))
            yield descriptor
            self._check_pin(name, os.fstat(descriptor))
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise _failed(f"{self.reference}/{name}", error) from error
        finally:
            os.close(descriptor)

    def _check_pin(self, name: str, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise CheckpointError(f"{self.reference}: {name} is not a regular file")
        now = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        if self._pins.setdefault(name, now) != now:
            raise ContentChangedError(
                f"{self.reference}: {name} changed while it was in use",
                got=f"{found.st_size} bytes, modified {found.st_mtime_ns}",
                expected=f"{self._pins[name][2]} bytes, modified {self._pins[name][3]}",
                fix="Open the checkpoint again once nothing writes to it.",
            )


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


def _failed(what: str, error: OSError) -> StorageError:
    return StorageError(f"{what} cannot be read", got=error.strerror or error)


def open_file(reference: str, *, settings: Settings) -> tuple[Source, str]:
    """Open the folder of one file for reading, whatever kind of file it is.

    Returns:
        The folder, and the file's name in it.

    Raises:
        ReferenceRefusedError: The reference is not allowed.
        StorageError: There is nothing, or the store failed.
    """
    parsed = parse_reference(reference, settings=settings)
    source, name = _folder_of(parsed, settings=settings)
    source.size(name)
    return source, name


def _folder_of(parsed: Reference, *, settings: Settings) -> tuple[Source, str]:
    folder, _, name = parsed.path.rpartition("/")
    if parsed.scheme == "file":
        return LocalSource(parsed.text, Path(folder or "/"), settings=settings), name
    from ztom.checkpoints.object_store import ObjectSource

    return ObjectSource(parsed.text, parsed.scheme, folder, settings=settings), name


def _open_archive(parsed: Reference, *, settings: Settings) -> Source:
    from ztom.checkpoints.archive import open_tar

    if parsed.scheme == "file" and not Path(parsed.path).exists():
        raise StorageError(f"there is no archive at {parsed.text}")
    parent, name = _folder_of(parsed, settings=settings)
    return open_tar(
        parsed.text, parent, name, compressed=parsed.archive == "tar.gz", settings=settings
    )
