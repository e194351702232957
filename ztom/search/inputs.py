"""Whether there is what a search's configuration names, before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path

from ztom.blending.chain_file import ChainConfig, read_chain_file, require_members
from ztom.io.disk import require_output_place
from ztom.io.places import is_store_address
from ztom.search.config import SearchConfig
from ztom.settings import Settings
from ztom.stimuli.text_files import require_file


def chain_config(config: SearchConfig) -> ChainConfig:
    """The chain of a search, from its own file where it has one.

    Raises:
        ChainError: The file cannot be read, or is no chain.
    """
    return read_chain_file(config.chain) if isinstance(config.chain, Path) else config.chain


def require_output(config: SearchConfig) -> None:
    """Look whether a search can write where it is told to, before there is work to lose.

    Raises:
        ConfigError: The package of the output's store is not installed.
        StorageError: Its output folder, or the operator's storage, cannot be written.
    """
    for place, what in (
        (config.output, "the search's output"),
        (Settings().storage_place, "the operator's storage (ZTOM_STORAGE)"),
    ):
        if place is not None:
            require_output_place(place, what=what)


def require_inputs(config: SearchConfig, *, settings: Settings) -> None:
    """Look whether the checkpoints and the files of data are there; they are not read.

    Raises:
        ChainError: The chain's file cannot be read, or is no chain.
        ReferenceRefusedError: A checkpoint's reference is not allowed.
        StorageError: There is no such checkpoint on this machine, or no such file in a store.
        StimuliError: There is no such file of data.
    """
    require_members(chain_config(config), settings=settings)
    for data in (config, *config.guardrails):
        places = (data.stimuli, data.expected_outputs, data.holdout, data.holdout_expected_outputs)
        for place in places:
            if isinstance(place, Path):  # what lies on the Hub is fetched when it is read
                require_file(place)
            elif place is not None and is_store_address(place):
                from ztom.io.store_fetch import require_object  # it imports fsspec

                require_object(place)
