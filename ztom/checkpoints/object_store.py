"""A folder of an object store, read through fsspec, each object pinned to one version.

gcsfs and s3fs take credentials and endpoints from the operator's environment; nothing of a
reference reaches their options. Google objects are read by generation, so an overwritten object
fails instead of mixing; where reads cannot name a version (S3 without versioning, memory), the
version is compared after each read, which catches the same.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from ztom.checkpoints.reference import is_plain_name
from ztom.checkpoints.source import read_bytes, short_read, stream_sha256, too_many_files
from ztom.checkpoints.store_access import require_answer
from ztom.errors import ContentChangedError, NothingThereError, StorageError, ZtomError
from ztom.extras import require_extra
from ztom.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")

_CHUNK = 16 * 2**20
_CONCURRENT_CHUNKS = 4
_FIRST_WAIT_S = 0.25
_LONGEST_WAIT_S = 8.0
_TRANSIENT_CODES = frozenset({408, 429, 500, 502, 503, 504})
_STORE_PACKAGES = frozenset(
    {"aiohttp", "aiobotocore", "botocore", "gcsfs", "google", "requests", "urllib3"}
)
_FINAL = (
    FileNotFoundError,
    PermissionError,
    NotADirectoryError,
    IsADirectoryError,
    FileExistsError,
)


def with_retries(call: Callable[[], T], *, what: str, retries: int) -> T:
    """Call a store, again after failures that may pass, with doubling waits.

    Args:
        call: The call, safe to repeat.
        what: Names the object in errors.
        retries: Times it is called again after the first.

    Raises:
        StorageError: It failed for good, or too often.
    """
    for attempt in range(retries + 1):
        try:
            return call()
        except ZtomError:
            raise
        except Exception as error:
            if not is_transient(error) or attempt == retries:
                is_missing = isinstance(error, FileNotFoundError)
                raise (NothingThereError if is_missing else StorageError)(
                    f"{what} cannot be read",
                    reason=f"{type(error).__name__}: {error}",
                    fix=f"Gave up after {attempt + 1} attempt(s).",
                ) from error
            wait_s = min(_FIRST_WAIT_S * 2**attempt, _LONGEST_WAIT_S) * random.uniform(0.5, 1.0)
            logger.warning("%s: %s; trying again in %.2f s", what, type(error).__name__, wait_s)
            time.sleep(wait_s)
    raise StorageError(f"{what} cannot be read", expected="retries >= 0")


def is_transient(error: Exception) -> bool:
    """Whether the same call may succeed a moment later."""
    for attribute in ("code", "status", "status_code"):
        code = getattr(error, attribute, None)
        if isinstance(code, int | str) and str(code).isdigit():
            return int(code) in _TRANSIENT_CODES
    if isinstance(error, _FINAL) or str(error).startswith("Forbidden"):
        return False
    if "Credential" in type(error).__name__:  # google.auth and botocore: none were found
        return False
    if isinstance(error, OSError | TimeoutError | EOFError):
        return True
    return type(error).__module__.partition(".")[0] in _STORE_PACKAGES


def require_store(address: str) -> None:
    """Look whether the package of an address's store is installed; those of ``gs`` always are.

    Raises:
        ConfigError: It is not.
    """
    if address.startswith("s3://"):
        require_extra("s3fs", extra="s3", purpose=f"the address {address}")


def require_reachable_store(address: str) -> None:
    """Look whether an address's store is installed and answers, before there is work to lose.

    Raises:
        ConfigError: Its package is not installed.
        StorageError: It does not answer in time, or refuses.
    """
    require_store(address)
    scheme, _, path = address.partition("://")
    _open_store(scheme, path)


def _open_store(scheme: str, path: str) -> Any:
    """The client of a store that answers; making one is a part of what may take for ever.

    It is without the listings cache: a pin that is compared with a cached listing compares nothing.

    Raises:
        StorageError: The store does not answer in time, or refuses.
    """
    opened: list[Any] = []

    def look() -> None:
        opened.append(fsspec.filesystem(scheme, use_listings_cache=False))
        opened[0].ls(path, detail=False)

    require_answer(scheme, path, look, is_transient=is_transient)
    return opened[0] if opened else fsspec.filesystem(scheme, use_listings_cache=False)


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
        self._fs: Any = _open_store(scheme, path)
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
