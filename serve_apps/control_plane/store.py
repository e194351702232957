"""The server's own files: uploads, kept by the hash of their bytes, and requests' folders.

An upload is written aside and renamed into place when the ledger takes it on record; what a killed
process left aside is swept at the next start. While an upload is written its file is locked, so a
sweep leaves the uploads of a second replica alone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from ztom.errors import StorageError
from ztom.io.files import sync_path
from ztom.io.private import private_folder
from ztom.settings import Settings
from ztom.variants.copies import VARIANTS

#: Folders of the machine that are nobody's business, and what is said instead.
_INSTALLATION = {str(Path(__file__).resolve().parents[2]): "(installation)"} | (
    {sys.prefix: "(installation)"} if sys.prefix != sys.base_prefix else {}
)
_GZIP = b"\x1f\x8b"
#: A file that was placed this long ago and is not on record was never committed.
_ORPHAN_S = 600.0


@dataclass(frozen=True, slots=True)
class Staged:
    """An upload that is whole and on the disk, aside.

    Attributes:
        path: Path of the staged file.
        sha256: Lower-case hex sha256 of its bytes.
        nbytes: Size of the file, bytes.
    """

    path: Path
    sha256: str
    nbytes: int


class Upload:
    """A file that is being received. Every method may block on the disk.

    Raises (every method):
        StorageError: The disk refused.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest = hashlib.sha256()
        self._size = 0
        self._head = b""
        with disk():
            self._file: IO[bytes] = path.open("xb", buffering=0)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, data: bytes | bytearray) -> None:
        """Append."""
        if len(self._head) < 2:
            self._head = (self._head + bytes(data[:2]))[:2]
        self._digest.update(data)
        self._size += len(data)
        view = memoryview(data)
        with disk():
            while view:
                view = view[self._file.write(view) :]

    def finish(self) -> Staged:
        """Bring it to the disk, under a name that says what kind of archive it is."""
        with disk():
            os.fsync(self._file.fileno())
            suffix = ".tar.gz" if self._head == _GZIP else ".tar"
            path = self._path.with_suffix(suffix)
            self._path.rename(path)
        self._path = path
        return Staged(path, self._digest.hexdigest(), self._size)

    def discard(self) -> None:
        """Give the lock back, and remove it unless it was placed."""
        self._file.close()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Store:
    """Folders of the server's data.

    Attributes:
        root: The data folder.
        replica: Name of the process that opened it.
    """

    root: Path
    replica: str
    _presence: IO[bytes]

    @classmethod
    def open(cls, root: Path) -> Self:
        """Make the folders, for the owner only.

        Raises:
            StorageError: They cannot be made.
        """
        replica = f"replica-{uuid.uuid4().hex}"
        with disk():
            private_folder(root)
            for name in ("cache", "checkpoints", "data", "staging", "requests", "replicas"):
                private_folder(root / name)
            # held until the process ends, however it ends
            presence = (root / "replicas" / replica).open("xb")
            fcntl.flock(presence, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return cls(root, replica, presence)

    def close(self) -> None:
        """Say that the process is done."""
        self._presence.close()
        (self.root / "replicas" / self.replica).unlink(missing_ok=True)

    def is_alive(self, replica: str) -> bool:
        """Whether the process of this name still runs."""
        path = self.root / "replicas" / replica
        return path.is_file() and not _nobody_writes(path)

    @property
    def checkpoints(self) -> Path:
        """Uploads, by hash."""
        return self.root / "checkpoints"

    @property
    def staging(self) -> Path:
        """Uploads on their way."""
        return self.root / "staging"

    @property
    def cache(self) -> Path:
        """Compressed uploads, unpacked."""
        return self.root / "cache"

    def without_folders(self, message: str) -> str:
        """An error's message for users: where the server keeps its files is not told."""
        storage = Settings().storage_place
        variants = () if storage is None else (str(storage / VARIANTS),)
        for place in (str(self.root), *variants):
            message = message.replace(f"{place}/", "").replace(place, "the server's data")
        for folder, name in _INSTALLATION.items():
            message = message.replace(folder, name)
        return message

    @property
    def requests(self) -> Path:
        """A folder for each request."""
        return self.root / "requests"

    def request_folder(self, request_id: str) -> Path:
        """The folder of a request, made if need be."""
        folder = self.requests / request_id
        with disk():
            private_folder(folder)
        return folder

    def begin(self) -> Upload:
        """Start to receive a file."""
        return Upload(self.staging / f"{uuid.uuid4().hex}.part")

    def begin_folder(self) -> Path:
        """A private folder that is swept like an upload."""
        folder = self.staging / uuid.uuid4().hex
        with disk():
            folder.mkdir(mode=0o700)
        return folder

    def address(self, staged: Staged) -> Path:
        """Where it will stand."""
        suffix = ".tar.gz" if staged.path.name.endswith(".tar.gz") else ".tar"
        return self.checkpoints / f"{staged.sha256}{suffix}"

    def data_folder(self, project_id: str) -> Path:
        """Where a project's uploaded data sets are."""
        return self.root / "data" / project_id

    def place_data(self, staged: Staged, project_id: str, suffix: str) -> str:
        """Keep a data set; returns the name under which a search finds it."""
        folder = self.data_folder(project_id)
        with disk():
            private_folder(folder)
        name = f"{staged.sha256}{suffix}"
        self._place(staged, folder / name)
        return name

    def place(self, staged: Staged) -> None:
        """Make it appear at its address; the same bytes may stand there already."""
        self._place(staged, self.address(staged))

    def _place(self, staged: Staged, target: Path) -> None:
        with disk():
            if not target.exists():
                staged.path.rename(target)
                sync_path(target.parent)

    def remove(self, address: str) -> None:
        """Remove one of the server's files, or folders; others are left alone."""
        path = Path(address)
        if not path.is_relative_to(self.root) or path == self.root or not path.exists():
            return
        with disk():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
                self.forget(path.name.partition(".")[0])

    def unpacked(self, upload: Path) -> Path:
        """The folder that a compressed upload was unpacked to, if it was."""
        return self.cache / "archives" / upload.name.partition(".")[0]

    def forget(self, sha256: str) -> None:
        """Remove what a compressed upload was unpacked to."""
        shutil.rmtree(self.cache / "archives" / sha256, ignore_errors=True)

    def sweep(
        self,
        on_record: Collection[str],
        purge: Callable[[Sequence[str], Callable[[str], None]], None],
    ) -> list[str]:
        """Remove what killed processes left: uploads aside, and files that are on no record.

        Args:
            on_record: Addresses that the ledger knows.
            purge: `ztom.ledger.project_files.ProjectFiles.purge`, which asks the ledger once more.

        Returns:
            Names of what was left.
        """
        left = []
        for path in sorted(self.staging.iterdir()):
            if path.is_dir() and _is_old(path):
                shutil.rmtree(path, ignore_errors=True)
                left.append(path.name)
            elif path.is_file() and _nobody_writes(path):
                path.unlink(missing_ok=True)
                left.append(path.name)
        for path in sorted(self.requests.glob("*/.staging-*")):
            if _is_old(path):
                shutil.rmtree(path, ignore_errors=True)
                left.append(path.name)
        for path in sorted((self.root / "replicas").iterdir()):
            if _nobody_writes(path):
                path.unlink(missing_ok=True)
        orphans = [
            str(path)
            for path in sorted(self.checkpoints.iterdir())
            if _is_old(path) and str(path) not in on_record
        ]
        purge(orphans, self.remove)
        return left + orphans


def _is_old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > _ORPHAN_S


def _nobody_writes(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:
        return False


@contextlib.contextmanager
def disk() -> Iterator[None]:
    """Turn what the disk says into an error of ours.

    Raises:
        StorageError: The disk refused.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise disk_refusal(error) from error


#: What a disk says that is full, failing or read-only; other errors are nobody's disk.
DISK_ERRORS = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS))


def disk_refusal(error: OSError) -> StorageError:
    """What the disk said, without the path that it was about."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return StorageError(
        "the server's disk is full" if full else "the server's disk refused",
        reason=error.strerror,
        fix="Nothing was kept. Make room, then send it again.",
    )
