"""Proving a search's factors on the holdout: write the variant, load what was written, compare.

What is verified is what would be shipped: the blend is written at the deployed dtype, where every
node of the cluster can read it (`ztom.settings.Settings.storage`), a fresh engine loads the files,
and its answers on data the search never saw are compared with the trained model's, which the
study's engine gives where it is still loaded. Where the configuration names suites, the gate
decides as well (`tune_search.gate`). Only what is improved, and passed where there is a gate, is
published, unless the user insists, which is recorded. What is not published can be kept all the
same, aside (``variant.keep_unproven``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from tune_search.evidence import build_evidence
from tune_search.existing import ExistingProof, asked_models, compare_existing
from tune_search.factories import EngineFactory, VariantEngineFactory
from tune_search.holdout import holdout_inputs, score_model
from tune_search.phases import PhaseTimer
from tune_search.preparation import RunInputs, write_options
from tune_search.proof import build_proof
from ztom.io.places import StoragePlace, StoreAddress, is_below
from ztom.ledger import Ledger
from ztom.search.config import SearchConfig
from ztom.search.events import Event
from ztom.search.outcome import SearchOutcome
from ztom.search.result import Proof
from ztom.settings import Settings
from ztom.variants.copies import copy_variant, published_place, remove_variant, staged_copy
from ztom.variants.manifest import UNPROVEN, VARIANT, Manifest
from ztom.variants.record import for_the_record
from ztom.variants.write import StagedVariant, stage_variant

if TYPE_CHECKING:
    from tune_search.gate import SuiteGate
    from tune_search.spare_engine import SpareEngine


def prove(
    config: SearchConfig,
    inputs: RunInputs,
    outcome: SearchOutcome,
    ledger: Ledger,
    *,
    on_event: Callable[[Event], None],
    spare: SpareEngine | None = None,
) -> tuple[Proof, ExistingProof]:
    """Write, load, compare and decide; publishes the variant if that is allowed.

    The engine that gives the trained model's answers gives those of the chain's checkpoints alone
    and of their average as well, which the blend is compared with.

    Args:
        config: Configuration of the search.
        inputs: Inputs of the run, opened and read.
        outcome: Factors, trials and errors that the search came to.
        ledger: Ledger that holds the study.
        on_event: Callback that takes every event.
        spare: Place of the engine that the study ended with.

    Raises:
        ZtomError: The variant could not be written, loaded or scored.
    """
    started, timer = time.perf_counter(), PhaseTimer(on_event)
    holdout = holdout_inputs(inputs)
    factors = outcome.optimized_scaling_factors
    settings = holdout.engine.settings if isinstance(holdout.engine, EngineFactory) else Settings()
    gate = _suite_gate(config, inputs, timer, settings) if inputs.suites else None
    no_step = (0.0,) * len(factors)
    answer_suites = gate.champion_answers(no_step) if gate is not None and any(factors) else None
    others = asked_models(outcome)
    with timer.phase("answer", "the trained model, and what exists besides, answer the holdout"):
        before = score_model(
            holdout, holdout.engine, no_step, config, timer, answer_suites, spare, others
        )
    if not any(factors):
        existing = compare_existing(config, inputs, outcome, before, before)
        proof = build_proof(config, inputs, before, before, None, timer.seconds(started))
        if config.variant.keep_unproven:
            with stage_variant(
                inputs.chain, factors, _unproven(config), options=write_options(config)
            ) as staged:
                _keep(config, inputs, outcome, ledger, proof, existing, staged)
        return proof, existing
    timer.begin("write", "the variant is written")
    storage = _storage(config, settings)
    with (
        stage_variant(
            inputs.chain, factors, _destination(config), options=write_options(config)
        ) as written,
        _for_engines(written, storage) as staged,
    ):
        timer.end("write")
        place = staged.folder if staged.staged is None else staged.staged.place
        make_engine = VariantEngineFactory(config.engine, place, inputs.chain_config, settings)
        # an adapter is loaded as a chain of one step over its base
        no_step = (0.0,) if config.variant.form == "adapter" else ()
        answer_suites = None if gate is None else gate.candidate_answers(staged.folder, no_step)
        with timer.phase("answer", "the variant, as written, answers the holdout"):
            after = score_model(holdout, make_engine, no_step, config, timer, answer_suites)
        existing = compare_existing(config, inputs, outcome, before, after)
        proof = build_proof(config, inputs, before, after, staged, timer.seconds(started))
        if gate is not None:
            proof = proof.model_copy(update={"gate": gate.decide(before.runs, after.runs)})
        if not proof.holds and not config.insist:
            if config.variant.keep_unproven:
                _keep(config, inputs, outcome, ledger, proof, existing, staged)
            return proof, existing
        evidence = build_evidence(config, inputs, outcome, ledger, proof, existing)
        manifest = staged.seal(evidence)
        new = for_the_record(staged, manifest, action="variant.release", study_id=outcome.study_id)
        ledger.variants.record(new, partial(staged.place, manifest))
        published = _published(config, proof, manifest, staged, storage)
    if gate is not None:
        gate.record(ledger, before.runs, after.runs, manifest.digest)
    return published, existing


@contextmanager
def _for_engines(written: StagedVariant, storage: StoragePlace | None) -> Iterator[StagedVariant]:
    """The blended weights where the nodes of all engines can read them."""
    if storage is None:
        yield written
        return
    with staged_copy(written.folder, storage) as staged:
        yield replace(written, staged=staged)


def _storage(config: SearchConfig, settings: Settings) -> StoragePlace | None:
    """Where every node reads: the operator's storage, or the store that the search writes to."""
    if settings.storage_place is not None:
        return settings.storage_place
    return config.output if isinstance(config.output, StoreAddress) else None


def _suite_gate(
    config: SearchConfig, inputs: RunInputs, timer: PhaseTimer, settings: Settings
) -> SuiteGate:
    # What suites need is imported only where there are any.
    from tune_search.gate import SuiteGate

    name = _destination(config).name
    return SuiteGate(config, inputs, settings, variant=name, timer=timer)


def _keep(
    config: SearchConfig,
    inputs: RunInputs,
    outcome: SearchOutcome,
    ledger: Ledger,
    proof: Proof,
    existing: ExistingProof,
    staged: StagedVariant,
) -> None:
    """Keep what is not published beside where it would be; its papers say what the proof said."""
    target = _unproven(config)
    remove_variant(target)  # of a proof that was interrupted
    staged = replace(staged, destination=target)
    manifest = staged.seal(build_evidence(config, inputs, outcome, ledger, proof, existing))
    new = for_the_record(staged, manifest, action="variant.unproven")
    ledger.variants.record(new, partial(staged.place, manifest))


def _published(
    config: SearchConfig,
    proof: Proof,
    manifest: Manifest,
    staged: StagedVariant,
    storage: StoragePlace | None,
) -> Proof:
    """What the result says of the variant: the place from which every node can serve it."""
    place: str | StoragePlace = staged.destination
    if config.variant.copy_to is not None:
        place = config.variant.copy_to
        copy_variant(staged.folder_now, place, staged=staged.staged)
    elif storage is not None and not is_below(staged.destination, storage):
        place = published_place(storage, manifest)
        copy_variant(staged.folder_now, place, staged=staged.staged)
    return proof.model_copy(
        update={
            "insisted": not proof.holds,
            "variant": str(place),
            "variant_digest": manifest.digest,
        }
    )


def _destination(config: SearchConfig) -> StoragePlace:
    return config.output.absolute() / VARIANT


def _unproven(config: SearchConfig) -> StoragePlace:
    return config.output.absolute() / UNPROVEN
