"""A repository of the Hugging Face Hub as a source: fetched into the Hub's cache, read there.

The reference that reports and recipes name is pinned by commit, whatever was written. What a blend
never reads (pickles, other formats, code) is not fetched, and named like any file that is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from ztom.checkpoints.hub_cache import cache_of
from ztom.checkpoints.kept_paths import PICKLES, why_left_out
from ztom.checkpoints.local import LocalSource
from ztom.checkpoints.source import Source
from ztom.errors import CheckpointError
from ztom.io.hub import HubFolder, fetch_hub_file, fetch_hub_folder
from ztom.io.hub_address import HubAddress, read_hub_address
from ztom.settings import Settings

Wanted = Callable[[str, tuple[str, ...]], bool]

_MODEL_WEIGHTS = ("model*.safetensors", "adapter_model.safetensors")
_BESIDE_WEIGHTS = ("model*.index.json", "adapter_config.json")


class HubSource(LocalSource):
    """A folder in the Hub's cache, and what of the repository was not fetched into it.

    Args:
        fetched: Folder that was fetched.
        settings: Settings with the limits; the cache itself may be read.
    """

    def __init__(self, fetched: HubFolder, *, settings: Settings) -> None:
        folder = fetched.path.resolve()
        home = cache_of(folder) or folder
        super().__init__(str(fetched.address), folder, settings=settings.also_allowing(home))
        self._passed_over = fetched.passed_over

    def paths(self) -> list[str]:
        """See `ztom.checkpoints.source.Source.paths`."""
        return sorted({*super().paths(), *self._passed_over})


def open_hub(text: str, *, settings: Settings, wanted: Wanted | None = None) -> Source:
    """Fetch a model, or a folder of it, and open it.

    Args:
        text: Address that was checked, ``hf://org/name[@revision][/folder]``.
        settings: Limits on what is fetched.
        wanted: Function that says which files are fetched; `is_wanted` when None.

    Raises:
        CheckpointError: It is a data set's address.
        StorageError: It is not there, may not be read, is too large, or cannot be reached.
    """
    address = _address(text)
    if address.kind != "model":
        raise CheckpointError(f"{text} is a data set", expected="a model, hf://org/name")
    fetched = fetch_hub_folder(
        address, wanted=wanted or is_wanted, max_bytes=settings.max_archive_bytes
    )
    return HubSource(fetched, settings=settings)


def open_hub_file(text: str, *, settings: Settings) -> tuple[Source, str]:
    """Fetch one file of a model or a data set; see `ztom.checkpoints.storage.open_file`."""
    file = fetch_hub_file(_address(text))
    folder = file.path.parent
    home = cache_of(folder.resolve()) or folder
    source = LocalSource(str(file.address), folder, settings=settings.also_allowing(home))
    return source, file.path.name


def is_wanted(path: str, paths: Sequence[str]) -> bool:
    """Whether a file of a model's repository is fetched.

    Args:
        path: Path of the file, from the model's folder on.
        paths: Paths of all files there.
    """
    if "/" not in path and path.endswith(".safetensors"):
        usual = [p for p in paths if _is_any(p, _MODEL_WEIGHTS)]
        return path in usual or not usual  # else a second set of the same weights
    return _is_any(path, _BESIDE_WEIGHTS) or why_left_out(path)[1] is None


def wants_pickles(path: str, paths: Sequence[str]) -> bool:
    """Whether a file is fetched that pickled weights are converted with; see `is_wanted`."""
    return is_wanted(path, paths) or ("/" not in path and _is_any(path, (*PICKLES, "*.index.json")))


def _address(text: str) -> HubAddress:
    address = read_hub_address(text)
    if address is None:
        raise CheckpointError(f"{text} is no address of the Hub", expected="hf://org/name")
    return address


def _is_any(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)
