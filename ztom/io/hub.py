"""Files of the Hugging Face Hub on this machine: fetched into its own cache, pinned by commit.

huggingface_hub does the work, with its settings: ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HUB_CACHE``,
``HF_HUB_OFFLINE``. Here stand what it leaves open: which commit an address means, how long a call
may take, and what to tell somebody whose address leads nowhere. Who may point to the Hub at all is
decided before (`ztom.checkpoints.reference`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ztom.errors import StorageError, ZtomError
from ztom.io.address_guard import AddressGuard
from ztom.io.files import write_whole
from ztom.io.hub_address import HubAddress, read_hub_address
from ztom.io.hub_errors import OFFLINE_HINT, hub_error, is_unreachable, no_entry

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: How long the Hub may take to say something, in seconds; ``HF_HUB_ETAG_TIMEOUT`` goes for files.
TIMEOUT_S = 10.0
_WORKERS = 4
#: Files up to so many bytes come first: what was cut off then lacks weights, which is noticed.
_SMALL = 8 * 2**20


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of the Hub that lies on this machine.

    Attributes:
        path: Absolute path in the Hub's cache.
        address: Address, pinned by commit.
    """

    path: Path
    address: HubAddress


@dataclass(frozen=True, slots=True)
class HubFolder:
    """A folder of the Hub that lies on this machine.

    Attributes:
        path: Absolute path in the Hub's cache.
        address: Address, pinned by commit.
        passed_over: Paths of files that were not wanted and not fetched, from the folder on.
    """

    path: Path
    address: HubAddress
    passed_over: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Listing:
    """What a repository holds at a commit.

    Attributes:
        commit: The commit.
        sizes: Size of each file by its path, bytes.
    """

    commit: str
    sizes: Mapping[str, int]


def fetch_hub_file(address: str | HubAddress) -> HubFile:
    """Bring one file of a model or a data set here; again only when it changed.

    Args:
        address: Address, as in ``hf://datasets/org/name@revision/train.jsonl``.

    Raises:
        StorageError: There is no such file, it is not ours to read, or the Hub cannot be reached
            and the file is not in its cache.
    """
    place = _read(address)
    if not place.path:
        raise StorageError(f"{place} names no file", expected=f"{place}/path/of/the/file")
    with hub_errors(place):
        listing = _list_files(place)
        if listing is None:
            path = _cached_file(place)
            return HubFile(path, place.at(_commit_of(path, place.path)))
        if place.path not in listing.sizes:
            raise no_entry(place, "file", listing.sizes)
        path = _fetch(place, listing.commit, place.path)
        _remember(place, path, listing.commit)
        return HubFile(path, place.at(listing.commit))


def fetch_hub_folder(
    address: str | HubAddress,
    *,
    wanted: Callable[[str, tuple[str, ...]], bool],
    max_bytes: int | None = None,
) -> HubFolder:
    """Bring a repository or a folder of it here; what is in the cache is not fetched again.

    Args:
        address: Address, as in ``hf://org/name@revision/folder``.
        wanted: Function that says whether to fetch a file, from its path in the folder and all
            paths there.
        max_bytes: Most bytes that all wanted files may have.

    Raises:
        StorageError: There is no such folder, it is not ours to read, it is too large, or the Hub
            cannot be reached and the folder is not in its cache.
    """
    place = _read(address)
    with hub_errors(place):
        listing = _list_files(place)
        if listing is None:
            return _cached_folder(place)
        prefix = f"{place.path}/" if place.path else ""
        paths = tuple(p.removeprefix(prefix) for p in listing.sizes if p.startswith(prefix))
        if not paths:
            raise no_entry(place, "folder", listing.sizes)
        chosen = [path for path in paths if wanted(path, paths)]
        sizes = {prefix + path: listing.sizes[prefix + path] for path in chosen}
        _check_room(place, sizes, max_bytes)
        root = _fetch_all(place, listing.commit, sizes)
        passed_over = tuple(path for path in paths if path not in set(chosen))
        return HubFolder(root / place.path, place.at(listing.commit), passed_over)


def _read(address: str | HubAddress) -> HubAddress:
    if isinstance(address, HubAddress):
        return address
    place = read_hub_address(address)
    if place is None:
        raise StorageError(
            f"{address} is no address of the Hub",
            expected="hf://org/name, hf://org/name@revision/folder or hf://datasets/org/name/file",
        )
    return place


def hub_client() -> HfApi:
    """The Hub's client, which says who calls and follows no redirect to where nobody may go."""
    from huggingface_hub import HfApi, constants, get_session

    AddressGuard(urlsplit(constants.ENDPOINT).hostname or "").add_to(get_session())
    return HfApi(library_name="ztom")


@contextmanager
def hub_errors(place: HubAddress) -> Iterator[None]:
    """Whatever the Hub's client raises becomes an error that says what to do.

    Raises:
        StorageError: It raised something.
    """
    try:
        yield
    except ZtomError:
        raise
    except Exception as error:  # the Hub's own errors, and those of whatever carries it
        raise hub_error(place, error) from error


def _list_files(place: HubAddress) -> _Listing | None:
    """What the Hub says; None where it cannot be reached."""
    try:
        info: Any = hub_client().repo_info(
            place.repo,
            repo_type=place.kind,
            revision=place.revision,
            timeout=TIMEOUT_S,
            files_metadata=True,
        )
    except Exception as error:
        if is_unreachable(error):
            return None
        raise
    return _Listing(info.sha, {s.rfilename: int(s.size or 0) for s in info.siblings or ()})


def _fetch_all(place: HubAddress, commit: str, sizes: Mapping[str, int]) -> Path:
    """Fetch files, the small ones first; returns the folder of the commit."""
    small = [path for path, size in sizes.items() if size <= _SMALL]
    large = [path for path, size in sizes.items() if size > _SMALL]
    root: Path | None = None
    for group in (small, large):
        with ThreadPoolExecutor(_WORKERS) as pool:
            for path, local in zip(
                group, pool.map(lambda path: _fetch(place, commit, path), group), strict=True
            ):
                root = local.parents[path.count("/")]
    if root is None:
        raise StorageError(f"{place} holds nothing that is read", got="no files of a model")
    _remember(place, root / "any", commit)
    return root


def _fetch(place: HubAddress, commit: str, path: str) -> Path:
    from huggingface_hub import hf_hub_download

    local = hf_hub_download(
        place.repo,
        path,
        repo_type=place.kind,
        revision=commit,
        etag_timeout=TIMEOUT_S,
        library_name="ztom",
    )
    return Path(local)


def _remember(place: HubAddress, local: Path, commit: str) -> None:
    """Write down which commit a branch is at, as the Hub's cache does, for times without it."""
    if place.is_pinned:
        return
    snapshots = next(folder for folder in local.parents if folder.name == "snapshots")
    ref = snapshots.parent / "refs" / (place.revision or "main")
    if not ref.is_file() or ref.read_text(encoding="utf-8") != commit:
        write_whole(ref, commit)


def _cached_file(place: HubAddress) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        local = hf_hub_download(
            place.repo,
            place.path,
            repo_type=place.kind,
            revision=place.revision,
            local_files_only=True,
        )
    except EntryNotFoundError as error:
        raise _not_cached(place) from error
    return Path(local)


def _cached_folder(place: HubAddress) -> HubFolder:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        local = snapshot_download(
            place.repo, repo_type=place.kind, revision=place.revision, local_files_only=True
        )
    except EntryNotFoundError as error:
        raise _not_cached(place) from error
    root = Path(local)
    if not (root / place.path).is_dir():
        raise _not_cached(place)
    return HubFolder(root / place.path, place.at(root.name), ())


def _commit_of(local: Path, path: str) -> str:
    return local.parents[path.count("/")].name


def _not_cached(place: HubAddress) -> StorageError:
    from huggingface_hub import constants

    state = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"no answer of {_endpoint()}"
    return StorageError(
        f"{place} is not in the Hub's cache, and the Hub cannot be reached",
        got=state,
        fix=OFFLINE_HINT,
    )


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _check_room(place: HubAddress, sizes: Mapping[str, int], max_bytes: int | None) -> None:
    """Refuse what is too large before the first byte of it.

    Raises:
        StorageError: It is, or the disk has no room for it.
    """
    from huggingface_hub import constants

    nbytes = sum(sizes.values())
    if max_bytes is not None and nbytes > max_bytes:
        raise StorageError(
            f"{place} is too large",
            got=f"{nbytes} bytes",
            expected=f"at most {max_bytes} (ZTOM_MAX_ARCHIVE_BYTES)",
        )
    cache = Path(constants.HF_HUB_CACHE)
    home = next((folder for folder in (cache, *cache.parents) if folder.is_dir()), Path("/"))
    free = shutil.disk_usage(home).free
    if nbytes > free and not _is_here(place):
        raise StorageError(
            f"there is no room for {place} in {cache}",
            got=f"{free} bytes free",
            expected=f"{nbytes} bytes",
            fix="Free some space, or name another disk with HF_HUB_CACHE.",
        )


def _is_here(place: HubAddress) -> bool:
    """Whether some of the repository is in the cache, so that less than all of it has to come."""
    from huggingface_hub import constants

    name = f"{place.kind}s--{place.repo.replace('/', '--')}"
    return (Path(constants.HF_HUB_CACHE) / name).is_dir()
