"""Variants of stores on this machine: each file once, by its content, and no more than allowed.

``blobs`` holds the files by their sha256, ``folders`` the variants by their digests, as hard links
into it: two variants that share a file, or one that is proved first and then published, cost it
once. All processes of a machine share the cache. Who uses a folder holds its lock, which ends with
the process however that ends; what nobody holds makes way, the longest unused first.

What stands in the cache was hashed while it came, against the manifest, and is not hashed again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ztom.checkpoints.cache import publish_folder, staging_folder, write_new_file
from ztom.checkpoints.source import Source
from ztom.checkpoints.storage import open_source
from ztom.errors import StorageError, VariantError
from ztom.io.disk import disk_errors
from ztom.io.places import StoreAddress
from ztom.io.store_files import StoreFiles
from ztom.settings import Settings
from ztom.variants.manifest import MANIFEST, STAGED, Manifest, read_manifest
from ztom.variants.signature import SIGNATURE
from ztom.variants.verified import note_verified

_CHUNK = 64 * 2**20
#: Times that a file is fetched again because another process took it away before it was linked.
_ATTEMPTS = 3
#: Locks of the folders that this process uses; they are given back when it ends.
_held: dict[Path, IO[bytes]] = {}


class NodeCache:
    """The cache of one machine.

    Args:
        settings: Settings with its folder, its bound and the stores that may be read.
    """

    def __init__(self, settings: Settings) -> None:
        root = settings.cache / "node"
        self._settings = settings
        self._limit = settings.node_cache_bytes
        self._blobs, self._folders = root / "blobs", root / "folders"
        self._locks = root / "locks"
        with disk_errors(root):
            for folder in (self._blobs, self._folders, self._locks):
                folder.mkdir(parents=True, exist_ok=True)

    def folder(self, place: StoreAddress, manifest: Manifest, *, staged: bool = False) -> Path:
        """The folder of a variant's files on this machine, fetched unless it is there.

        It stays there for as long as this process runs.

        Args:
            place: Address of the variant, or of weights that are staged.
            manifest: sha256 and size of each file.
            staged: Whether they are weights that are no variant yet, without its papers.

        Raises:
            StorageError: The store failed, or there is no room.
            VariantError: A file is not what the manifest says.
        """
        target = self._folders / f"{manifest.digest}{'-staged' if staged else ''}"
        with disk_errors(self._folders):
            lock = (self._locks / target.name).open("ab")
            while True:
                fcntl.flock(lock, fcntl.LOCK_SH)  # waits while another process fetches it
                if target.is_dir():
                    os.utime(lock.name)
                    _held.setdefault(target, lock)
                    return target
                fcntl.flock(lock, fcntl.LOCK_EX)  # in between it was nobody's: look again
                if not target.is_dir():
                    self._fetch(place, manifest, target)
                    note_verified(target, manifest, settings=self._settings)

    @property
    def nbytes(self) -> int:
        """Bytes that the files take."""
        return sum(path.stat().st_size for path in _files(self._blobs))

    def _fetch(self, place: StoreAddress, manifest: Manifest, target: Path) -> None:
        source = open_source(str(place), settings=self._settings.also_allowing(place))
        self._make_room(manifest, keep=target.name)
        with staging_folder(self._folders) as outer:
            fresh = outer / target.name
            fresh.mkdir(mode=0o755)
            for name, entry in manifest.files.items():
                self._link(source, name, entry.sha256, fresh / name)
            _copy_papers(place, manifest, fresh)
            publish_folder(fresh, target)

    def _link(self, source: Source, name: str, sha256: str, file: Path) -> None:
        """Have a file in a folder; a copy where the file system has no hard links."""
        file.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(_ATTEMPTS):
            blob = self._blob(source, name, sha256)
            try:
                os.link(blob, file)
            except FileNotFoundError:  # another process has just made room
                continue
            except OSError:
                shutil.copyfile(blob, file)
            return
        raise StorageError(f"{blob} is removed while it is needed", fix="Try it again.")

    def _blob(self, source: Source, name: str, sha256: str) -> Path:
        """The file of this content; fetched and hashed unless it is there."""
        blob = self._blobs / sha256
        if blob.is_file():
            return blob
        with staging_folder(self._blobs) as outer:
            fresh, digest = outer / sha256, hashlib.sha256()
            write_new_file(fresh, _chunks(source, name, digest))
            if digest.hexdigest() != sha256:
                raise VariantError(
                    f"{source.reference}: {name} is not what the manifest says",
                    got=f"sha256 {digest.hexdigest()[:12]}",
                    expected=f"sha256 {sha256[:12]}",
                    fix="Do not serve it: write the variant again, or restore the file.",
                )
            fresh.rename(blob)
        return blob

    def _make_room(self, manifest: Manifest, *, keep: str) -> None:
        """Have the longest unused folders go until there is room for another.

        Raises:
            StorageError: There is none even without them.
        """
        missing = {entry.sha256: entry.nbytes for entry in manifest.files.values()}
        for sha256 in list(missing):
            if (self._blobs / sha256).is_file():
                del missing[sha256]
        needed = sum(missing.values())
        with self._alone():
            while not self._has_room(needed):
                if not self._evict_one(keep=keep):
                    raise self._full(needed)

    def _has_room(self, needed: int) -> bool:
        within = self.nbytes + needed <= self._limit
        return within and shutil.disk_usage(self._blobs).free >= needed

    def _evict_one(self, *, keep: str) -> bool:
        """Remove the longest unused folder that nobody holds; says whether there was one."""
        folders = [path for path in self._folders.iterdir() if not path.name.startswith(".")]
        for folder in sorted(folders, key=self._used_ns):
            if folder.name == keep:
                continue
            with (self._locks / folder.name).open("ab") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                shutil.rmtree(folder)
            self._drop_unlinked()
            return True
        return self._drop_unlinked()

    def _drop_unlinked(self) -> bool:
        """Remove files that no folder has; says whether there was one."""
        dropped = False
        for blob in _files(self._blobs):
            with suppress(FileNotFoundError):
                if blob.stat().st_nlink == 1:
                    blob.unlink()
                    dropped = True
        return dropped

    def _used_ns(self, folder: Path) -> int:
        try:
            return (self._locks / folder.name).stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with (self._locks / "eviction").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _full(self, needed: int) -> StorageError:
        return StorageError(
            "the node's cache has no room for the variant",
            got=f"{needed / 2**30:.2f} GiB to fetch",
            expected=f"at most {self._limit / 2**30:.2f} GiB beside what engines use now, and as "
            "much free disk",
            fix="Raise ZTOM_NODE_CACHE_BYTES, or name a larger disk with ZTOM_CACHE_DIR.",
        )


def local_copy(place: Path | StoreAddress, *, settings: Settings, name: str = MANIFEST) -> Path:
    """The folder of a variant, or of staged weights, on this machine.

    Args:
        place: Folder, which is what is returned, or an address, from which it is fetched.
        settings: Settings with the cache and the stores that may be read.
        name: Name of the manifest's file, where it is an address.

    Raises:
        StorageError: The store failed, or there is no room.
        VariantError: There is none, or a file is not what the manifest says.
    """
    if isinstance(place, Path):
        return place
    return NodeCache(settings).folder(place, read_manifest(place, name), staged=name == STAGED)


def _chunks(source: Source, name: str, digest: hashlib._Hash) -> Iterator[memoryview]:
    size = source.size(name)
    buffer = memoryview(bytearray(min(_CHUNK, size)))
    for offset in range(0, size, _CHUNK):
        window = buffer[: min(_CHUNK, size - offset)]
        source.read_into(name, offset, window)
        digest.update(window)
        yield window


def _copy_papers(place: StoreAddress, manifest: Manifest, folder: Path) -> None:
    """The manifest, with the time at which it was written, and the signature: it lists neither."""
    files = StoreFiles(place)
    if not files.exists(MANIFEST):  # what is only staged has none
        return
    write_new_file(folder / MANIFEST, [manifest.to_bytes()])
    written_s = files.modified_s(MANIFEST)
    os.utime(folder / MANIFEST, (written_s, written_s))
    if files.exists(SIGNATURE):
        write_new_file(folder / SIGNATURE, [files.read(SIGNATURE)])


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]
