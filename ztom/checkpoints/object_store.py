"""A folder of an object store, read through fsspec, each object pinned to one version.

gcsfs and s3fs take credentials and endpoints from the operator's environment; nothing of a
reference reaches their options. Google objects are read by generation, so an overwritten object
fails instead of mixing; where reads cannot name a version (S3 without versioning, memory), the
version is compared after each read, which catches the same.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ztom.checkpoints.reference import is_plain_name
from ztom.checkpoints.source import read_bytes, short_read, stream_sha256, too_many_files
from ztom.errors import ContentChangedError, StorageError
from ztom.io.store_client import open_store, require_store, with_retries
from ztom.settings import Settings

T = TypeVar("T")

_CHUNK = 16 * 2**20
_CONCURRENT_CHUNKS = 4


class ObjectSource:
    """A folder of an object store.

    Args:
        reference: Reference as it was written.
        scheme: Scheme of the store: ``gs``, ``s3`` or ``memory``.
        path: Place in the store, ``bucket/folder``.
        settings: Settings with the number of retries and of files.
    """

    def __init__(self, reference: str, scheme: str, path: str, *, settings: Settings) -> None:
        self.reference = reference
        self._scheme = scheme
        self._path = path
        self._retries = settings.storage_retries
        self._limit = settings.max_archive_members
        require_store(reference)
        self._fs: Any = open_store(scheme, path)
        self._pins: dict[str, tuple[int, str]] = {}
        self._digests: dict[str, str] = {}

    def names(self) -> list[str]:
        """See `ztom.checkpoints.storage.Source.names`."""
        root = self._key("")
        entries = self._retried(lambda: self._fs.ls(root, detail=True), self.reference)
        prefix = f"{self._path}/"
        names = [
            str(entry["name"]).lstrip("/").removeprefix(prefix)
            for entry in entries
            if entry.get("type") == "file"
        ]
        return sorted(name for name in names if is_plain_name(name))

    def paths(self) -> list[str]:
        """See `ztom.checkpoints.storage.Source.paths`."""
        root, prefix = self._key(""), f"{self._path}/"
        keys = self._retried(lambda: self._fs.find(root), self.reference)
        if len(keys) > self._limit:
            raise too_many_files(self.reference, self._limit)
        paths = (str(name).lstrip("/").removeprefix(prefix) for name in keys)
        return sorted(path for path in paths if not path.endswith("/"))

    def size(self, name: str) -> int:
        """See `ztom.checkpoints.storage.Source.size`."""
        return self._pin(name)[0]

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `ztom.checkpoints.storage.Source.read`."""
        return read_bytes(self, name, offset, length)

    def read_into(self, name: str, offset: int, buffer: memoryview) -> None:
        """See `ztom.checkpoints.storage.Source.read_into`."""
        view = buffer.cast("B")
        size, version = self._pin(name)
        if offset + len(view) > size:
            raise short_read(self.reference, name, offset, len(view), max(size - offset, 0))
        window = _CHUNK * _CONCURRENT_CHUNKS
        for start in range(0, len(view), window):
            self._read_window(name, version, offset + start, view[start : start + window])
        if self._scheme != "gs":
            self._check_pin(name)

    def generation(self, name: str) -> str | None:
        """See `ztom.checkpoints.storage.Source.generation`; compared with the first sight."""
        self._check_pin(name)
        return self._pins[name][1] or None

    def sha256(self, name: str) -> str:
        """See `ztom.checkpoints.storage.Source.sha256`."""
        self._check_pin(name)
        if name not in self._digests:
            self._digests[name] = stream_sha256(self, name)
        return self._digests[name]

    def local_folder(self) -> Path | None:
        """None: engines that need a folder get a copy (`fetch_folder`)."""
        return None

    def _key(self, name: str) -> str:
        path = f"{self._path}/{name}".strip("/")
        return f"/{path}" if self._scheme == "memory" else path

    def _retried(self, call: Callable[[], T], what: str) -> T:
        return with_retries(call, what=what, retries=self._retries)

    def _look(self, name: str) -> tuple[int, str]:
        """Size and version as the store reports them now."""
        info = self._retried(lambda: self._fs.info(self._key(name)), f"{self.reference}: {name}")
        if info.get("type") != "file":
            raise StorageError(f"{self.reference}: {name} is not an object")
        version = next(
            (str(info[key]) for key in ("generation", "ETag", "etag", "created") if info.get(key)),
            "",
        )
        return int(info["size"]), version

    def _pin(self, name: str) -> tuple[int, str]:
        if name not in self._pins:
            self._pins.setdefault(name, self._look(name))
        return self._pins[name]

    def _check_pin(self, name: str) -> None:
        pinned = self._pin(name)
        entry = self._look(name)
        if entry != pinned:
            raise self._changed(name, f"{entry[0]} bytes, version {entry[1]}")

    def _read_window(self, name: str, version: str, offset: int, view: memoryview) -> None:
        starts = list(range(offset, offset + len(view), _CHUNK))
        ends = [min(start + _CHUNK, offset + len(view)) for start in starts]
        options = {"generation": version} if self._scheme == "gs" and version else {}

        def call() -> None:
            parts = self._fs.cat_ranges(
                [self._key(name)] * len(starts), starts, ends, on_error="return", **options
            )
            for start, end, part in zip(starts, ends, parts, strict=True):
                if isinstance(part, Exception):
                    raise part
                if len(part) != end - start:
                    raise EOFError(f"{len(part)} of {end - start} bytes")
                view[start - offset : end - offset] = part

        try:
            self._retried(call, f"{self.reference}: {name}")
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise self._changed(name, "the pinned version is gone") from error
            raise

    def _changed(self, name: str, got: str) -> ContentChangedError:
        size, version = self._pins[name]
        return ContentChangedError(
            f"{self.reference}: {name} changed in the store",
            got=got,
            expected=f"{size} bytes, version {version}",
            fix="Open the checkpoint again; if a digest was pinned, restore that content.",
        )
