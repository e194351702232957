"""Objects of a store, written so that one which exists is whole.

A store makes an object appear when its last byte has come, so that a process killed while it writes
leaves nothing, or what was there before. Of several objects that belong together the one that says
what they are (a manifest) is written last.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ztom.errors import NothingThereError, StorageError
from ztom.io.places import StoreAddress
from ztom.io.store_client import open_store, require_store, with_retries

T = TypeVar("T")

#: Times that a failed call is tried again.
RETRIES = 4


class StoreFiles:
    """The objects below one address.

    Args:
        address: The folder.
        retries: Number of times that a failed call is tried again.

    Raises:
        ConfigError: The package of the store is not installed.
        StorageError: The store does not answer in time, or refuses.
    """

    def __init__(self, address: StoreAddress, *, retries: int = RETRIES) -> None:
        require_store(str(address))
        self.address = address
        self._retries = retries
        self._fs: Any = open_store(address.scheme, address.path)

    def key(self, name: str = "") -> str:
        """What the store's client calls an object, or the folder itself."""
        path = f"{self.address.path}/{name}".rstrip("/") if name else self.address.path
        return f"/{path}" if self.address.scheme == "memory" else path

    def names(self) -> list[str]:
        """Paths of all objects below the address, sorted; none where nothing is there."""
        root = self.key()
        try:
            keys = self._call(lambda: self._fs.find(root), root)
        except NothingThereError:
            return []
        prefix = f"{root.lstrip('/')}/"
        return sorted(str(key).lstrip("/").removeprefix(prefix) for key in keys)

    def folders(self) -> list[str]:
        """Names of the folders directly below the address, sorted."""
        try:
            entries = self._call(lambda: self._fs.ls(self.key(), detail=True), self.key())
        except NothingThereError:
            return []
        folders = [entry for entry in entries if entry.get("type") == "directory"]
        return sorted(str(entry["name"]).rstrip("/").rpartition("/")[2] for entry in folders)

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        return bool(self._call(lambda: self._fs.isfile(self.key(name)), self.key(name)))

    def size(self, name: str) -> int:
        """Size of an object, bytes."""
        return int(self._call(lambda: self._fs.size(self.key(name)), self.key(name)))

    def read(self, name: str, *, at_most: int | None = None) -> bytes:
        """The whole of an object, or so many bytes from its beginning.

        Raises:
            NothingThereError: There is none.
            StorageError: The store failed.
        """
        key = self.key(name)
        part = {} if at_most is None else {"start": 0, "end": min(at_most, self.size(name))}
        if part.get("end") == 0:
            return b""
        return bytes(self._call(lambda: self._fs.cat_file(key, **part), key))

    def modified_s(self, name: str) -> float:
        """When an object was written, by the store's clock, as Unix time in seconds."""
        key = self.key(name)
        return float(self._call(lambda: self._fs.modified(key), key).timestamp())

    def write(self, name: str, content: bytes) -> None:
        """Write an object whole, in place of what was there."""
        self._call(lambda: self._fs.pipe_file(self.key(name), content), self.key(name), "written")

    def put(self, name: str, file: Path) -> None:
        """Write a file as an object.

        Raises:
            StorageError: The store failed, or has not as many bytes as the file.
        """
        key, size = self.key(name), file.stat().st_size
        self._call(partial(self._fs.put_file, str(file), key), key, "written")
        if self.size(name) != size:
            raise StorageError(f"{key} was not written whole", fix="Copy it again.")

    def copy(self, name: str, source: StoreFiles, of: str) -> None:
        """Copy an object of the same store, whose bytes do not come here."""
        key = self.key(name)
        self._call(partial(self._fs.cp_file, source.key(of), key), key, "written")

    def remove(self, name: str) -> None:
        """Remove an object; one that is not there is no work."""
        try:
            self._call(lambda: self._fs.rm_file(self.key(name)), self.key(name), "removed")
        except NothingThereError:
            return

    def clear(self, *, first: str | None = None) -> None:
        """Remove everything below the address.

        Args:
            first: Object that says what the others are. It goes before them, so that what is half
                removed is not taken for whole.
        """
        names = self.names()
        for name in sorted(names, key=lambda name: name != first):
            self.remove(name)

    def _call(self, call: Callable[[], T], what: str, done: str = "read") -> T:
        place = f"{self.address.scheme}://{what.lstrip('/')}"
        return with_retries(call, what=place, retries=self._retries, done=done)


def write_object(place: StoreAddress, content: bytes) -> None:
    """Write one object; see `StoreFiles.write`."""
    StoreFiles(place.parent).write(place.name, content)


def read_object(place: StoreAddress, *, at_most: int | None = None) -> bytes:
    """Read one object; see `StoreFiles.read`."""
    return StoreFiles(place.parent).read(place.name, at_most=at_most)


def require_writable_store(place: StoreAddress, *, what: str) -> None:
    """Write something into a folder of a store and take it away again, before there is work.

    Args:
        place: The folder.
        what: Name of the option or the thing in the error.

    Raises:
        ConfigError: The package of the store is not installed.
        StorageError: It cannot be written.
    """
    files, probe = StoreFiles(place, retries=1), f"write-probe-{secrets.token_hex(4)}"
    try:
        files.write(probe, b"")
        files.remove(probe)
    except StorageError as error:
        raise StorageError(
            f"{what} cannot be written",
            got=str(place),
            reason=error.reason,
            fix="Is there such a bucket, and may this login write there?",
        ) from error
