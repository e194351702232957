"""From a configuration to inputs: open the chain, read and split the data, say how to make
engines.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tune_search.factories import EngineFactory, ErrorFactory
from tune_search.payload import SEARCH, DataSet, StudyInputs
from ztom.blending.chain import Chain, load_chain
from ztom.blending.chain_file import ChainConfig, read_chain_file
from ztom.checkpoints.object_store import require_store
from ztom.errors import ConfigError, LeakageError
from ztom.evaluation.metrics.build import build_metric
from ztom.evaluation.suites.discover import FoundSuite, read_suites
from ztom.evaluation.suites.lock import load_locked
from ztom.evaluation.suites.suite import Item
from ztom.evaluation.suites.templates import PromptTemplate
from ztom.scoring.build import ErrorTerm
from ztom.search.config import Guardrail, SearchConfig
from ztom.search.space import SearchSpace
from ztom.settings import Settings
from ztom.stimuli.files import read_stimuli
from ztom.stimuli.prompts import prompt_digest
from ztom.stimuli.records import Message, Prompt, Stimulus
from ztom.stimuli.splits import check_disjoint, data_digest, split, without_leaks

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunInputs:
    """What a search and its proof need, opened and read.

    Attributes:
        study: Inputs of the search itself.
        chain: The chain, opened.
        chain_config: The chain with absolute references, for other processes.
        holdout: Stimuli that the proof is made on; disjoint from the search set.
        guardrail_holdouts: The same for each guardrail, by its name.
        suites: Suites of the gate; the search sees none of their items, guardrails' sets included.
    """

    study: StudyInputs
    chain: Chain
    chain_config: ChainConfig
    holdout: tuple[Stimulus, ...]
    guardrail_holdouts: Mapping[str, tuple[Stimulus, ...]]
    suites: tuple[FoundSuite, ...] = ()


def prepare(config: SearchConfig, *, settings: Settings | None = None) -> RunInputs:
    """Open and read everything that the configuration names.

    Args:
        config: What to search.
        settings: What the installation allows; read from the environment when None.

    Raises:
        ZtomError: A chain, a file of data or an error function cannot be used.
    """
    settings = settings or Settings()
    if config.variant.copy_to is not None:
        require_store(config.variant.copy_to)
    chain_config = read_chain_file(config.chain) if isinstance(config.chain, Path) else config.chain
    chain = load_chain(chain_config, settings=settings)
    search, holdout = _search_and_holdout(config)
    guarded = {g.name: _guardrail_data(g, seed=config.seed) for g in config.guardrails}
    sets = [_data_set(SEARCH, search, config.error, config.labels)]
    for guardrail in config.guardrails:
        seen = guarded[guardrail.name][0]
        sets.append(_data_set(guardrail.name, seen, guardrail.error, guardrail.labels))
    study = StudyInputs(
        space=make_space(config, chain.names),
        data=tuple(sets),
        engine=EngineFactory(config.engine, chain_config, settings),
        generation=config.inference_config,
        batch_size=config.batch_size,
        gpus=config.engine.tensor_parallel_size,
        chain_digest=chain.digest,
        data_digests={entry.name: data_digest(entry.stimuli) for entry in sets},
    )
    holdouts = {name: held for name, (_, held) in guarded.items()}
    suites = read_suites(config.suites, read=load_locked)
    for entry in suites:
        _check_suite(entry, sets)
    return RunInputs(study, chain, chain_config, holdout, holdouts, suites)


def _check_suite(entry: FoundSuite, sets: Sequence[DataSet]) -> None:
    """What is wrong with a metric shows now; and what the search sees proves nothing."""
    build_metric(entry.suite, import_paths=entry.import_paths).close()
    template = PromptTemplate(entry.suite.config.template)
    prompts = {
        item.id: {prompt_digest(template.render(item)), prompt_digest(_as_given(item))}
        for item in entry.suite.items
    }
    for data in sets:
        searched = {prompt_digest(stimulus.prompt) for stimulus in data.stimuli}
        shared = [name for name, digests in prompts.items() if digests & searched]
        if shared:
            raise _leak(entry, data, shared)


def _leak(entry: FoundSuite, data: DataSet, shared: Sequence[str]) -> LeakageError:
    in_search = data.name == SEARCH
    where = "the search set" if in_search else f"what guardrail {data.name} searches with"
    return LeakageError(
        f"suite {entry.suite.config.name}: {len(shared)} of {len(entry.suite.items)} items are "
        f"in {where}",
        got=", ".join(shared[:5]),
        expected="none: what the search has seen proves nothing",
        fix=f"Take them out of the stimuli of the {'search' if in_search else 'guardrail'}.",
    )


def _as_given(item: Item) -> Prompt:
    if isinstance(item.input, str):
        return item.input
    return tuple(Message(turn.role, turn.content) for turn in item.input)


def make_space(config: SearchConfig, names: Sequence[str]) -> SearchSpace:
    """The bounds for a chain with these transitions.

    Raises:
        FactorError: Not one bound per transition.
    """
    if config.lower_bound is not None and config.upper_bound is not None:
        return SearchSpace(tuple(names), config.lower_bound, config.upper_bound)
    limit = config.scaling_factor_limit
    return SearchSpace(tuple(names), (-limit,) * len(names), (limit,) * len(names))


def _data_set(
    name: str, stimuli: Sequence[Stimulus], error: Sequence[ErrorTerm], labels: Sequence[str]
) -> DataSet:
    make = ErrorFactory(tuple(error), tuple(labels))
    return DataSet(name, tuple(stimuli), make, tuple(labels))


def _search_and_holdout(
    config: SearchConfig,
) -> tuple[list[Stimulus], tuple[Stimulus, ...]]:
    search, holdout = _two_sides(
        config.stimuli,
        config.expected_outputs,
        config.holdout,
        config.holdout_expected_outputs,
        labels=config.labels,
        fraction=config.holdout_fraction,
        seed=config.seed,
    )
    most = config.max_search_stimuli
    if most is not None and most < len(search):
        search = _sample(search, most, seed=config.seed)
    return search, holdout


def _guardrail_data(
    guardrail: Guardrail, *, seed: int
) -> tuple[list[Stimulus], tuple[Stimulus, ...]]:
    return _two_sides(
        guardrail.stimuli,
        guardrail.expected_outputs,
        guardrail.holdout,
        guardrail.holdout_expected_outputs,
        labels=guardrail.labels,
        fraction=guardrail.holdout_fraction,
        seed=seed,
    )


def _two_sides(
    stimuli: Path,
    expected: Path | None,
    holdout: Path | None,
    holdout_expected: Path | None,
    *,
    labels: Sequence[str],
    fraction: float,
    seed: int,
) -> tuple[list[Stimulus], tuple[Stimulus, ...]]:
    """A holdout file has to be disjoint; what one file is split into is made so."""
    if holdout is None and holdout_expected is not None:
        raise ConfigError("holdout_expected_outputs is given without holdout", got=holdout_expected)
    everything = read_stimuli(stimuli, expected_outputs=expected, labels=labels)
    if holdout is not None:
        held = read_stimuli(holdout, expected_outputs=holdout_expected, labels=labels)
        check_disjoint(everything, held)
        return everything, tuple(held)
    search, held = split(everything, holdout_fraction=fraction, seed=seed)
    kept = without_leaks(search, held)
    if len(kept) < len(search):
        logger.info(
            "%d of %d stimuli of %s are like some in the holdout and were left out of the search",
            len(search) - len(kept),
            len(search),
            stimuli,
        )
    if not kept:
        raise ConfigError(
            f"every stimulus of {stimuli} has a near-duplicate in the holdout",
            fix="Give a holdout file, or stimuli that differ more.",
        )
    return kept, tuple(held)


def _sample(stimuli: Sequence[Stimulus], count: int, *, seed: int) -> list[Stimulus]:
    """Those with the smallest hashes, in their order: adding stimuli replaces few of them."""

    def place(stimulus: Stimulus) -> bytes:
        return hashlib.blake2b(f"{seed}\0{stimulus.id}".encode()).digest()

    chosen = {s.id for s in sorted(stimuli, key=place)[:count]}
    return [stimulus for stimulus in stimuli if stimulus.id in chosen]
