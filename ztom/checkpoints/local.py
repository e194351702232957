"""A local folder as a source: positional reads, links that stay inside, pins."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ztom.checkpoints.hub_cache import cache_of
from ztom.checkpoints.reference import (
    is_plain_name,
    within_roots,
)
from ztom.checkpoints.source import read_bytes, short_read, stream_sha256, too_many_files
from ztom.errors import (
    CheckpointError,
    ContentChangedError,
    ReferenceRefusedError,
    StorageError,
)
from ztom.settings import Settings

_READ_LIMIT = 2**30  # one system call reads at most 2^31 - 4096 bytes on Linux


class LocalSource:
    """A local folder.

    Links are followed only within the folder, or into the ``blobs`` of its repository when the
    folder lies in a Hugging Face cache; the target must lie under an allowed root.

    Args:
        reference: Reference as it was written.
        folder: The folder, links resolved.
        settings: Settings with the allowed roots.
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
            plain = [name for name in os.listdir(self._folder) if is_plain_name(name)]
            return sorted(name for name in plain if self._is_file(name))
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
        return read_bytes(self, name, offset, length)

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
        cache = cache_of(self._folder)
        if cache is not None:
            homes.append(cache / "blobs")
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

    def _check_pin(self, name: str, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"{self.reference}: {name} is not a regular file")
        now = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if self._pins.setdefault(name, now) != now:
            raise ContentChangedError(
                f"{self.reference}: {name} changed while it was in use",
                got=f"{status.st_size} bytes, modified {status.st_mtime_ns}",
                expected=f"{self._pins[name][2]} bytes, modified {self._pins[name][3]}",
                fix="Open the checkpoint again once nothing writes to it.",
            )


def _failed(what: str, error: OSError) -> StorageError:
    return StorageError(f"{what} cannot be read", reason=error.strerror or error)
