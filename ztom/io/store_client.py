"""Clients of object stores: whether one is installed and answers, and calls that are repeated.

gcsfs and s3fs take credentials and endpoints from the operator's environment; nothing of a
reference reaches their options.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ztom.errors import NothingThereError, StorageError, ZtomError
from ztom.extras import require_extra
from ztom.io.store_access import require_answer

logger = logging.getLogger(__name__)

T = TypeVar("T")

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
#: gcsfs asks each bucket over gRPC whether it is of a kind with folders, and where gRPC is closed
#: waits 60 s for that; the buckets that are meant here are plain ones.
_BUCKET_PROBE = "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"


def with_retries(call: Callable[[], T], *, what: str, retries: int, done: str = "read") -> T:
    """Call a store, again after failures that may pass, with doubling waits.

    Args:
        call: The call, safe to repeat.
        what: Names the object in errors.
        retries: Times it is called again after the first.
        done: What cannot be done to it, in errors: read, written, removed.

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
                    f"{what} cannot be {done}",
                    reason=f"{type(error).__name__}: {error}",
                    fix=f"Gave up after {attempt + 1} attempt(s).",
                ) from error
            wait_s = min(_FIRST_WAIT_S * 2**attempt, _LONGEST_WAIT_S) * random.uniform(0.5, 1.0)
            logger.warning("%s: %s; trying again in %.2f s", what, type(error).__name__, wait_s)
            time.sleep(wait_s)
    raise StorageError(f"{what} cannot be {done}", expected="retries >= 0")


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
    open_store(scheme, path)


def open_store(scheme: str, path: str) -> Any:
    """The client of a store that answers; making one is a part of what may take for ever.

    It is without the listings cache: a pin that is compared with a cached listing compares nothing.

    Raises:
        StorageError: The store does not answer in time, or refuses.
    """
    filesystem = _filesystem_maker()
    opened: list[Any] = []

    def look() -> None:
        opened.append(filesystem(scheme))
        opened[0].ls(path, detail=False)

    require_answer(scheme, path, look, is_transient=is_transient)
    return opened[0] if opened else filesystem(scheme)


def _filesystem_maker() -> Callable[[str], Any]:
    """What makes a client, without the bucket probe unless the operator wants it."""
    os.environ.setdefault(_BUCKET_PROBE, "false")  # gcsfs reads it when it is imported
    import fsspec

    return lambda scheme: fsspec.filesystem(scheme, use_listings_cache=False)
