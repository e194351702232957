"""What a variant's recipe says of the search that found its factors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from tune_search.existing import ExistingProof
from tune_search.preparation import RunInputs
from ztom.ledger import Ledger, TrialRecord
from ztom.search.config import SearchConfig
from ztom.search.outcome import SearchOutcome
from ztom.search.result import Proof
from ztom.stimuli.splits import data_digest
from ztom.variants.recipe import SearchEvidence


def build_evidence(
    config: SearchConfig,
    inputs: RunInputs,
    outcome: SearchOutcome,
    ledger: Ledger,
    proof: Proof,
    existing: ExistingProof,
) -> SearchEvidence:
    """The configuration, data, trials and errors behind a variant.

    Args:
        config: Configuration of the search.
        inputs: Inputs of the run, with the holdouts.
        outcome: Trials and errors that the search came to.
        ledger: Ledger that holds the study, with the versions of the libraries it ran on.
        proof: Errors and verdict on the holdout.
        existing: The best checkpoint beside them.
    """
    best = existing.best
    digests = dict(inputs.study.data_digests)
    digests["holdout"] = data_digest(inputs.holdout)
    for name, stimuli in inputs.guardrail_holdouts.items():
        digests[f"holdout of {name}"] = data_digest(stimuli)
    return SearchEvidence(
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
        insisted=config.insist and not proof.holds,
        versions=dict(ledger.studies.get(outcome.study_id).versions),
        best_existing=None
        if best is None
        else {**best.model_dump(mode="json"), "advice": best.advice},
    )


def trials_digest(trials: Sequence[TrialRecord]) -> str:
    """sha256 over what every trial tried and came to; its times do not count."""
    content = [
        [t.number, str(t.kind), list(t.factors), str(t.status), t.outcome.error] for t in trials
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
