"""The data of a search: read, split into what is searched on and what the proof is made on."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import NamedTuple

from ztom.errors import ConfigError
from ztom.search.config import SearchConfig, StimuliConfig
from ztom.stimuli.files import StimuliFile, read_stimuli_file
from ztom.stimuli.records import Stimulus
from ztom.stimuli.splits import check_disjoint, split, without_leaks

logger = logging.getLogger(__name__)


class SplitStimuli(NamedTuple):
    """A data set in its two parts, which have nothing in common.

    Attributes:
        search: Stimuli of the search, in the order of the file.
        holdout: Stimuli of the proof, in the order of the file.
        files: The files as they were read: the search's, and the holdout's if it has its own.
    """

    search: tuple[Stimulus, ...]
    holdout: tuple[Stimulus, ...]
    files: tuple[StimuliFile, ...]


def read_search_data(config: SearchConfig) -> SplitStimuli:
    """Read what a search is made on, cut to ``max_search_stimuli``, and its holdout.

    Raises:
        StimuliError: A file cannot be read, or is too small to be split.
        LeakageError: A holdout file shares stimuli with the search's.
        ConfigError: Nothing is left to search on.
    """
    search, holdout, files = read_split(config, seed=config.seed)
    most = config.max_search_stimuli
    if most is not None and most < len(search):
        search = _sample(search, most, seed=config.seed)
    return SplitStimuli(search, holdout, files)


def read_split(config: StimuliConfig, *, seed: int) -> SplitStimuli:
    """Read a data set and its holdout.

    A holdout file has to be disjoint from the search's file; what one file is split into is made
    so, by leaving out of the search what is like something in the holdout.

    Args:
        config: Names the files.
        seed: Decides which stimuli a split puts where.

    Raises:
        StimuliError: A file cannot be read, or is too small to be split.
        LeakageError: A holdout file shares stimuli with the search's.
        ConfigError: Nothing is left to search on.
    """
    file = read_stimuli_file(
        config.stimuli, expected_outputs=config.expected_outputs, labels=config.labels
    )
    stimuli = file.stimuli
    if config.holdout is not None:
        expected = config.holdout_expected_outputs
        other = read_stimuli_file(config.holdout, expected_outputs=expected, labels=config.labels)
        check_disjoint(stimuli, other.stimuli)
        return SplitStimuli(stimuli, other.stimuli, (file, other))
    search, holdout = split(stimuli, holdout_fraction=config.holdout_fraction, seed=seed)
    kept = without_leaks(search, holdout)
    if len(kept) < len(search):
        logger.info(
            "%d of %d stimuli of %s are like some in the holdout and were left out of the search",
            len(search) - len(kept),
            len(search),
            config.stimuli,
        )
    if not kept:
        raise ConfigError(
            f"every stimulus of {config.stimuli} has a near-duplicate in the holdout",
            fix="Give a holdout file, or stimuli that differ more.",
        )
    return SplitStimuli(tuple(kept), tuple(holdout), (file,))


def _sample(stimuli: Sequence[Stimulus], count: int, *, seed: int) -> tuple[Stimulus, ...]:
    """The stimuli with the smallest hashes, in their order: adding stimuli replaces few of them."""

    def place(stimulus: Stimulus) -> bytes:
        return hashlib.blake2b(f"{seed}\0{stimulus.id}".encode()).digest()

    chosen = {stimulus.id for stimulus in sorted(stimuli, key=place)[:count]}
    return tuple(stimulus for stimulus in stimuli if stimulus.id in chosen)
