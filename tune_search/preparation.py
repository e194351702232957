"""Turns a configuration into inputs: open the chain, read and split the data, say how to make
engines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.capacity import NodeNeeds
from tune_search.factories import EngineFactory, ErrorFactory
from tune_search.payload import SEARCH, DataSet, EnginePlace, GradientInputs, StudyInputs
from ztom.blending.chain import Chain, load_chain, pinned
from ztom.blending.chain_file import ChainConfig
from ztom.blending.group_assignment import group_chain
from ztom.blending.groups import factor_labels
from ztom.blending.steps import equal_members, step_warnings
from ztom.engines.config import EngineConfig
from ztom.errors import LeakageError
from ztom.evaluation.metrics.build import build_metric
from ztom.evaluation.suites.discover import FoundSuite, read_suites
from ztom.evaluation.suites.lock import load_locked
from ztom.evaluation.suites.suite import Item
from ztom.evaluation.suites.templates import PromptTemplate
from ztom.io.disk import require_room
from ztom.io.store_client import require_reachable_store
from ztom.scoring.build import check_own_functions
from ztom.scoring.differentiable import loss_terms
from ztom.search.baselines import compared_models
from ztom.search.config import SearchConfig, StimuliConfig
from ztom.search.data import read_search_data, read_split
from ztom.search.gradients import differentiating_engine
from ztom.search.inputs import chain_config
from ztom.search.space import SearchSpace
from ztom.settings import Settings
from ztom.stimuli.files import StimuliFile
from ztom.stimuli.prompts import prompt_digest
from ztom.stimuli.records import Message, Prompt, Stimulus
from ztom.stimuli.splits import data_digest
from ztom.variants.manifest import VARIANT
from ztom.variants.write import WriteOptions, needed_bytes, workspace


@dataclass(frozen=True)
class RunInputs:
    """What a search and its proof need, opened and read.

    Attributes:
        study: Inputs of the search itself.
        chain: The chain, opened.
        chain_config: The chain with absolute references, for other processes.
        holdout: Stimuli that the proof is made on; disjoint from the search set.
        guardrail_holdouts: Holdout of each guardrail, by its name.
        suites: Suites of the gate; the search sees none of their items, guardrails' sets included.
        data_files: The files of data as they were read, and what was left out of them.
        step_warnings: Steps of the chain that change nothing or are the same as another.
        notes: What the result says of how it was made, a sentence each.
    """

    study: StudyInputs
    chain: Chain
    chain_config: ChainConfig
    holdout: tuple[Stimulus, ...]
    guardrail_holdouts: Mapping[str, tuple[Stimulus, ...]]
    suites: tuple[FoundSuite, ...] = ()
    data_files: tuple[StimuliFile, ...] = ()
    step_warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def prepare(config: SearchConfig, *, settings: Settings | None = None) -> RunInputs:
    """Open and read everything that the configuration names.

    Args:
        config: Configuration of the search.
        settings: Settings of the installation; read from the environment when None.

    Raises:
        ZtomError: A chain, a file of data or an error function cannot be used.
    """
    settings = settings or Settings()
    if config.variant.copy_to is not None:
        require_reachable_store(config.variant.copy_to)
    for data in (config, *config.guardrails):
        check_own_functions(data.error)
    members = chain_config(config)
    chain = group_chain(load_chain(members, settings=settings), config.factors.groups)
    members = pinned(members, chain)
    written = needed_bytes(chain, write_options(config))
    shelf = workspace(config.output / VARIANT)
    require_room(shelf, written, what="the variant that the search writes")
    search, holdout, files = read_search_data(config)
    guarded = {g.name: read_split(g, seed=config.seed) for g in config.guardrails}
    slopes = config.sampler.takes_gradients
    sets = [_data_set(SEARCH, search, config, gradients=slopes)]
    for guardrail in config.guardrails:
        seen = guarded[guardrail.name].search
        sets.append(_data_set(guardrail.name, seen, guardrail, gradients=slopes))
    same = equal_members(chain)
    study = StudyInputs(
        space=make_space(config, chain.names, chain.group_names),
        data=tuple(sets),
        engine=EngineFactory(_searching(config), members, settings, config.factors.groups),
        generation=config.inference_config,
        batch_size=config.batch_size,
        place=_place(config.engine),
        chain_digest=chain.digest,
        data_digests={entry.name: data_digest(entry.stimuli) for entry in sets},
        models=compared_models(chain, same),
        gradients=_gradients(config, members, settings),
        name=config.name,
    )
    holdouts = {name: data.holdout for name, data in guarded.items()}
    suites = read_suites(config.suites, read=load_locked)
    for entry in suites:
        _check_suite(entry, sets)
    read = (*files, *(file for data in guarded.values() for file in data.files))
    warnings = step_warnings(chain, same)
    return RunInputs(study, chain, members, holdout, holdouts, suites, read, warnings)


def _searching(config: SearchConfig) -> EngineConfig:
    """The engine's options; beside one that takes derivatives it leaves room on a GPU."""
    engine = config.engine
    if not config.sampler.takes_gradients:
        return engine
    share = {"gpu_memory_utilization": engine.gpu_memory_utilization}
    return engine.model_copy(update=share)  # as one that was given: no share is planned


def _place(engine: EngineConfig) -> EnginePlace:
    needs = NodeNeeds(
        gpus=engine.tensor_parallel_size,
        accelerator_type=engine.accelerator_type,
        label_selector=engine.label_selector,
        resources=engine.resources,
    )
    return EnginePlace(engine.device, needs)


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


def write_options(config: SearchConfig) -> WriteOptions:
    """How the search's variant is written."""
    return WriteOptions(
        dtype=config.engine.dtype,
        form=config.variant.form,
        max_shard_bytes=int(config.variant.max_shard_gib * 2**30),
    )


def make_space(
    config: SearchConfig, steps: Sequence[str], groups: Sequence[str] = ()
) -> SearchSpace:
    """The bounds for a chain with these transitions and groups of tensors.

    Args:
        config: Configuration of the search; bounds are one per factor, or one per transition that
            all of its groups have.
        steps: Names of the transitions.
        groups: Names of the groups; none where a transition has one factor.

    Raises:
        FactorError: Not so many bounds.
    """
    names, limit = factor_labels(steps, groups), config.scaling_factor_limit
    if config.lower_bound is None or config.upper_bound is None:
        bounds = (-limit,) * len(names), (limit,) * len(names)
    else:
        bounds = config.lower_bound, config.upper_bound
        if groups and len(config.lower_bound) == len(steps):
            bounds = _for_groups(bounds[0], groups), _for_groups(bounds[1], groups)
    return SearchSpace(names, *bounds, tuple(groups))


def _for_groups(bounds: Sequence[float], groups: Sequence[str]) -> tuple[float, ...]:
    return tuple(bound for bound in bounds for _ in groups)


def _data_set(
    name: str, stimuli: Sequence[Stimulus], data: StimuliConfig, *, gradients: bool
) -> DataSet:
    make = ErrorFactory(data.error, data.labels)
    losses = loss_terms(data.error, data.labels) if gradients else ()
    return DataSet(name, tuple(stimuli), make, data.labels, losses)


def _gradients(
    config: SearchConfig, members: ChainConfig, settings: Settings
) -> GradientInputs | None:
    """How derivatives are taken; by a torch engine in float32 where the engine takes none."""
    if not config.sampler.takes_gradients:
        return None
    engine = differentiating_engine(config.engine)
    make = EngineFactory(engine, members, settings, config.factors.groups)
    return GradientInputs(config.sampler.mode or "forward", make)
