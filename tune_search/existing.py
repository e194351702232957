"""The chain's checkpoints alone and their average in the proof, beside the blend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tune_search.holdout import HoldoutScores
from tune_search.payload import SEARCH
from tune_search.preparation import RunInputs
from ztom.scoring.proof import GuardrailResult, measure_guardrail
from ztom.search.config import SearchConfig
from ztom.search.existing import (
    BestExisting,
    ExistingModel,
    best_checkpoint,
    best_on_search,
    compare_on_holdout,
    with_holdout_errors,
)
from ztom.search.outcome import SearchOutcome
from ztom.search.space import Factors
from ztom.statistics.scores import Scores


@dataclass(frozen=True)
class ExistingProof:
    """What the holdout says of the models that were there before.

    Attributes:
        models: The checkpoints alone and their average, with their errors.
        best: The best checkpoint, and how the blend stands to it; None without any.
        inferences: Number of evaluations that this took.
    """

    models: tuple[ExistingModel, ...] = ()
    best: BestExisting | None = None
    inferences: int = 0


def asked_models(outcome: SearchOutcome) -> tuple[Factors, ...]:
    """Factors of the models that answer the holdout; what failed in the search is left out."""
    return tuple(
        model.factors
        for model in outcome.existing
        if model.kind != "trained" and model.search_error is not None
    )


def compare_existing(
    config: SearchConfig,
    inputs: RunInputs,
    outcome: SearchOutcome,
    before: HoldoutScores,
    after: HoldoutScores,
) -> ExistingProof:
    """Compare the best checkpoint with the blend.

    Args:
        config: Configuration of the search.
        inputs: Inputs of the run, with the holdouts.
        outcome: Factors and trials that the search came to.
        before: The trained model's errors, and those of the other models.
        after: The blend's errors.
    """
    trained = (0.0,) * len(outcome.optimized_scaling_factors)
    scores = {trained: before.scores, **before.others}
    errors = {
        factors: given if isinstance(given, str) else float(given[SEARCH].aggregate()[0])
        for factors, given in scores.items()
    }
    models = with_holdout_errors(outcome.existing, errors)
    best, model = best_on_search(models), best_checkpoint(models)
    if best is None or model is None:
        return ExistingProof(models, None, len(before.others))
    theirs = scores[model.factors]
    if isinstance(theirs, str):
        failed = best.model_copy(update={"reason": f"not compared: on the holdout, {theirs}"})
        return ExistingProof(models, failed, len(before.others))
    compared = compare_on_holdout(
        best,
        theirs[SEARCH],
        after.scores[SEARCH],
        groups=[stimulus.group for stimulus in inputs.holdout],
        guardrails=_guardrails(config, inputs, before, theirs),
        is_answer=model.factors == outcome.optimized_scaling_factors,
        seed=config.seed,
    )
    return ExistingProof(models, compared, len(before.others))


def _guardrails(
    config: SearchConfig, inputs: RunInputs, before: HoldoutScores, scores: Mapping[str, Scores]
) -> list[GuardrailResult]:
    return [
        measure_guardrail(
            guardrail.name,
            before.scores[guardrail.name],
            scores[guardrail.name],
            groups=[s.group for s in inputs.guardrail_holdouts[guardrail.name]],
            allowed_increase=guardrail.max_increase,
            seed=config.seed,
        )
        for guardrail in config.guardrails
    ]
