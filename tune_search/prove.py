"""Proving a search's factors on the holdout: write the variant, load what was written, compare.

What is verified is what would be shipped: the blend is written at the deployed dtype, a fresh
engine loads the files, and its answers on data the search never saw are compared with the trained
model's. Where the configuration names suites, the gate decides as well (`tune_search.gate`). Only
what is improved, and passed where there is a gate, is published, unless the user insists, which is
recorded.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tune_search.engine_pool import make_clients, stop_engines
from tune_search.factories import EngineMaker, VariantMaker
from tune_search.payload import SEARCH, Answers, DataSet, Work
from tune_search.phases import Watch
from tune_search.preparation import Prepared
from ztom.engines.protocol import Capability, Engine
from ztom.errors import VariantError
from ztom.evaluation.runs.results import SuiteRun
from ztom.ledger import Ledger, TrialRecord
from ztom.scoring.proof import ProofDecision, decide_proof, measure_guardrail
from ztom.scoring.protocol import Need
from ztom.search.config import SearchConfig
from ztom.search.events import Event
from ztom.search.outcome import SearchOutcome
from ztom.search.result import GroupStep, Proof, StimulusChange
from ztom.settings import Settings
from ztom.statistics.bootstrap import paired_bootstrap
from ztom.statistics.scores import Scores
from ztom.stimuli.prompts import prompt_text
from ztom.stimuli.records import Stimulus
from ztom.stimuli.splits import data_digest
from ztom.variants.manifest import Manifest
from ztom.variants.recipe import Evidence
from ztom.variants.record import for_the_record
from ztom.variants.write import StagedVariant, WriteOptions, copy_variant, stage_variant

if TYPE_CHECKING:
    from tune_search.gate import AskSuites, SuiteGate

logger = logging.getLogger(__name__)

#: How many of the most changed stimuli a result shows, from each end.
_SHOWN_CHANGES = 12


@dataclass(frozen=True)
class _Judged:
    """One model on the holdouts, and on the suites."""

    answers: Answers
    scores: Mapping[str, Scores]
    runs: tuple[SuiteRun, ...] = ()


def prove(
    config: SearchConfig,
    prepared: Prepared,
    outcome: SearchOutcome,
    ledger: Ledger,
    *,
    on_event: Callable[[Event], None],
) -> Proof:
    """Write, load, compare and decide; publishes the variant if it may be published.

    Args:
        config: Of the search.
        prepared: Of the search.
        outcome: The search's answer.
        ledger: Holds the study.
        on_event: Told what happens.

    Raises:
        ZtomError: The variant could not be written, loaded or scored.
    """
    started, watch = time.perf_counter(), Watch(on_event)
    work = _holdout_work(prepared)
    factors = outcome.optimized_scaling_factors
    settings = work.engine.settings if isinstance(work.engine, EngineMaker) else Settings()
    gated = _suite_gate(config, prepared, watch, settings) if prepared.suites else None
    at_rest = (0.0,) * len(factors)
    ask = gated.ask_champion(at_rest) if gated is not None and any(factors) else None
    with watch.phase("answer", "the trained model answers the holdout"):
        before = _judge(work, work.engine, at_rest, config, watch, ask)
    if not any(factors):
        return _proof(config, prepared, before, before, None, watch.seconds(started))
    options = WriteOptions(
        dtype=config.engine.dtype,
        form=config.variant.form,
        max_shard_bytes=int(config.variant.max_shard_gib * 2**30),
    )
    watch.begin("write", "the variant is written")
    with stage_variant(prepared.chain, factors, _destination(config), options=options) as staged:
        watch.end("write")
        maker = VariantMaker(config.engine, staged.folder, prepared.chain_config, settings)
        with watch.phase("answer", "the variant, as written, answers the holdout"):
            # an adapter is loaded as a chain of one step over its base
            at_rest = (0.0,) if options.form == "adapter" else ()
            ask = gated.ask_candidate(staged.folder, at_rest) if gated is not None else None
            after = _judge(work, maker, at_rest, config, watch, ask)
        proof = _proof(config, prepared, before, after, staged, watch.seconds(started))
        if gated is not None:
            proof = proof.model_copy(update={"gate": gated.decide(before.runs, after.runs)})
        if not proof.holds and not config.insist:
            return proof
        evidence = _evidence(config, prepared, outcome, ledger, proof)
        manifest = staged.seal(evidence)
        new = for_the_record(staged, manifest, action="variant.release", study_id=outcome.study_id)
        ledger.record_variant(new, partial(staged.place, manifest))
    if gated is not None:
        gated.record(ledger, before.runs, after.runs, manifest.digest)
    return _published(config, proof, manifest)


def _suite_gate(
    config: SearchConfig, prepared: Prepared, watch: Watch, settings: Settings
) -> SuiteGate:
    # What suites need is imported only where there are any.
    from tune_search.gate import SuiteGate

    name = _destination(config).name
    return SuiteGate(config, prepared, settings, variant=name, watch=watch)


def _holdout_work(prepared: Prepared) -> Work:
    """The search's work with the holdouts in place of the data it saw."""
    holdouts = {SEARCH: prepared.holdout, **prepared.guardrail_holdouts}
    data = tuple(replace(each, stimuli=holdouts[each.name]) for each in prepared.work.data)
    return replace(prepared.work, data=data)


def _judge(
    work: Work,
    make_engine: Callable[[], Engine],
    factors: tuple[float, ...],
    config: SearchConfig,
    watch: Watch,
    ask_suites: AskSuites | None,
) -> _Judged:
    """Ask one model everything and score it."""
    errors = {data.name: data.error() for data in work.data}
    clients = make_clients(
        replace(work, engine=make_engine),
        replicas=1,
        deadline_s=config.generation_deadline_s,
        start_deadline_s=config.engine_start_deadline_s,
    )
    try:
        info = clients[0].start()
        # Texts are asked for even where the error does not need them: the engine has to be able
        # to generate from these weights, and the report shows what changed.
        texts = {Need.TEXT} if Capability.GENERATE in info.capabilities else set()
        needs = {name: frozenset(error.needs | texts) for name, error in errors.items()}
        answers = clients[0].answer(factors, needs)
        runs = ask_suites(clients[0], info) if ask_suites is not None else ()
    finally:
        stop_engines(clients)
    _check_alive(work.data, answers)
    began = time.perf_counter()
    scores = {
        data.name: errors[data.name].score(data.stimuli, answers.outputs[data.name])
        for data in work.data
    }
    watch.add("score", time.perf_counter() - began)
    return _Judged(answers, scores, runs)


def _check_alive(data: Sequence[DataSet], answers: Answers) -> None:
    """A model that answers nothing at all is broken, whatever it scores."""
    texts = [output.text for each in data for output in answers.outputs[each.name]]
    if texts and all(text == "" for text in texts):
        raise VariantError(
            "the model answers every stimulus of the holdout with nothing",
            expected="at least one answer with text",
            fix="Check the chat template and the end-of-sequence tokens of the checkpoints.",
        )


def _proof(
    config: SearchConfig,
    prepared: Prepared,
    before: _Judged,
    after: _Judged,
    staged: StagedVariant | None,
    seconds: dict[str, float],
) -> Proof:
    """All that is said of a variant before it is published."""
    decision = _decision(config, prepared, before, after, changed=staged is not None)
    old, new = before.scores[SEARCH], after.scores[SEARCH]
    precision = None if staged is None else staged.precision
    return Proof(
        decision=decision,
        trained_model_error=float(old.aggregate()[0]),
        optimized_model_error=float(new.aggregate()[0]),
        errors_before=tuple(old.per_stimulus.tolist()),
        errors_after=tuple(new.per_stimulus.tolist()),
        changes=tuple(_changes(prepared.holdout, before, after)),
        dtype=config.engine.dtype,
        realised=None if precision is None else precision.overall.realised,
        steps=()
        if precision is None
        else tuple(
            GroupStep(group=g.group, realised=g.realised, changed=g.changed)
            for g in precision.groups
        ),
        warnings=() if precision is None else precision.warnings,
        seconds=seconds,
    )


def _decision(
    config: SearchConfig, prepared: Prepared, before: _Judged, after: _Judged, *, changed: bool
) -> ProofDecision:
    improvement = paired_bootstrap(
        before.scores[SEARCH],
        after.scores[SEARCH],
        groups=[stimulus.group for stimulus in prepared.holdout],
        seed=config.seed,
    )
    guardrails = [
        measure_guardrail(
            guardrail.name,
            before.scores[guardrail.name],
            after.scores[guardrail.name],
            groups=[s.group for s in prepared.guardrail_holdouts[guardrail.name]],
            allowed_increase=guardrail.max_increase,
            seed=config.seed,
        )
        for guardrail in config.guardrails
    ]
    return decide_proof(improvement, guardrails, factors_are_zero=not changed)


def _changes(
    holdout: Sequence[Stimulus], before: _Judged, after: _Judged
) -> Iterator[StimulusChange]:
    old, new = before.scores[SEARCH].per_stimulus, after.scores[SEARCH].per_stimulus
    order = np.argsort(new - old, kind="stable").tolist()
    shown = (
        order
        if len(order) <= 2 * _SHOWN_CHANGES
        else order[:_SHOWN_CHANGES] + order[-_SHOWN_CHANGES:]
    )
    for i in shown:
        yield StimulusChange(
            id=holdout[i].id,
            prompt=prompt_text(holdout[i].prompt),
            expected=holdout[i].expected,
            before=before.answers.outputs[SEARCH][i].text,
            after=after.answers.outputs[SEARCH][i].text,
            error_before=float(old[i]),
            error_after=float(new[i]),
        )


def _evidence(
    config: SearchConfig, prepared: Prepared, outcome: SearchOutcome, ledger: Ledger, proof: Proof
) -> Evidence:
    digests = dict(prepared.work.data_digests)
    digests["holdout"] = data_digest(prepared.holdout)
    for name, stimuli in prepared.guardrail_holdouts.items():
        digests[f"holdout of {name}"] = data_digest(stimuli)
    return Evidence(
        study=config.name,
        config_digest=config.digest,
        data_digests=digests,
        error=[term.model_dump(mode="json") for term in config.error],
        seed=config.seed,
        sampler=config.sampler.name,
        trials_digest=trials_digest(outcome.trials),
        number_of_inferences=outcome.number_of_inferences,
        search_errors=(outcome.trained_model_error, outcome.optimized_model_error),
        holdout_errors=(proof.trained_model_error, proof.optimized_model_error),
        verdict=proof.decision.model_dump(mode="json"),
        gate=None if proof.gate is None else proof.gate.model_dump(mode="json"),
        insisted=not proof.holds,
        versions=dict(ledger.study(outcome.study_id).versions),
    )


def trials_digest(trials: Sequence[TrialRecord]) -> str:
    """sha256 over what every trial tried and came to; its times do not count."""
    content = [
        [t.number, str(t.kind), list(t.factors), str(t.status), t.outcome.error] for t in trials
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _published(config: SearchConfig, proof: Proof, manifest: Manifest) -> Proof:
    folder = _destination(config)
    address = config.variant.copy_to
    if address is not None:
        copy_variant(folder, address)
    return proof.model_copy(
        update={
            "insisted": not proof.holds,
            "variant": address or str(folder),
            "variant_digest": manifest.digest,
        }
    )


def _destination(config: SearchConfig) -> Path:
    return config.output.absolute() / "variant"
