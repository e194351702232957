"""Small files of stores on this machine while this process runs: data sets, suites, results.

What is large is not read so: checkpoints are read where they lie (`ztom.checkpoints.object_store`),
and variants have a cache of their own (`ztom.variants.node_cache`).
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from ztom.errors import NothingThereError, StorageError
from ztom.io.places import is_store_address, parse_store_address
from ztom.io.store_files import StoreFiles

#: Bytes of one file or folder; what is larger is no data set and no suite.
MAX_BYTES = 2**30
MAX_FILES = 10_000


def here(place: Path | str) -> Path:
    """A path of this machine as it is; a file or a folder of a store after it was fetched.

    Args:
        place: Path, or address of a store; of one that was made a path, a slash is gone.

    Raises:
        ConfigError: It is no plain address, or the package of its store is not installed.
        NothingThereError: There is nothing.
        StorageError: The store failed, or it is too large.
    """
    return _fetched(str(parse_store_address(place))) if is_store_address(place) else Path(place)


def require_object(place: Path | str) -> None:
    """Look whether there is such an object.

    Raises:
        NothingThereError: There is none.
        StorageError: The store does not answer in time, or refuses.
    """
    address = parse_store_address(place)
    if not StoreFiles(address.parent).exists(address.name):
        raise NothingThereError(f"{address} does not exist", expected="a file in a store")


@cache
def _fetched(text: str) -> Path:
    address = parse_store_address(text)
    folder = Path(tempfile.mkdtemp(dir=_folder().name))
    parent = StoreFiles(address.parent)
    if parent.exists(address.name):
        _fetch(parent, [address.name], folder)
        return folder / address.name
    files = StoreFiles(address)
    names = files.names()
    if not names:
        raise NothingThereError(f"there is nothing at {address}")
    _fetch(files, names, folder)
    return folder


def _fetch(files: StoreFiles, names: list[str], folder: Path) -> None:
    if len(names) > MAX_FILES or sum(files.size(name) for name in names) > MAX_BYTES:
        raise StorageError(
            f"{files.address} holds too much",
            got=f"{len(names)} files",
            expected=f"at most {MAX_FILES}, of {MAX_BYTES // 2**20} MiB together",
        )
    for name in names:
        parse_store_address(f"{files.address}/{name}")  # no name leads out of the folder
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(files.read(name))


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="ztom-fetched-")
