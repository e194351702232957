"""What a search came to, computed from the ledger's trials alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from ztom.errors import SearchError
from ztom.ledger import TrialKind, TrialRecord, TrialStatus
from ztom.search.baselines import is_part_of_search
from ztom.search.existing import ExistingModel, existing_models
from ztom.search.protocol import (
    Plan,
    StopReason,
    choose,
    is_feasible,
    noise_floor,
    trained_error,
)
from ztom.search.space import Factors
from ztom.search.step_gains import StepGain, step_gains
from ztom.search.surrogate import FactorSensitivity, Surrogate

logger = logging.getLogger(__name__)

PHASES = ("blend", "generate", "score")


@dataclass(frozen=True)
class SearchOutcome:
    """The search's answer, before it is proved on data that the search never saw.

    Attributes:
        study_id: Id of the study in the ledger.
        trained_model_error: Mean over the evaluations of the trained model.
        optimized_model_error: Error of the evaluation that confirmed the best factors; the trained
            model's when nothing was better.
        improvement: The first minus the second, never negative.
        estimated_error: The surrogate's posterior mean at the best factors, None without a
            surrogate.
        optimized_scaling_factors: The best factors; zeros when nothing was better.
        factor_names: What each factor scales.
        number_of_inferences: Number of model evaluations that were started, failed ones and those
            whose process died included, but for ``baseline_inferences`` and
            ``gradient_evaluations``.
        gradient_evaluations: Number of errors with derivatives that were started.
        partial_evaluations: Number of these that were stopped early, being clearly worse than the
            best.
        baseline_inferences: Number of evaluations of checkpoints alone and of their average.
        existing: The models that are there already, with their errors.
        step_gains: How much of the gain each step of the chain is; empty without a surrogate.
        generated_tokens: Number of generated tokens, over all evaluations.
        noise_floor: Difference between two evaluations of the trained model, None without both.
        trials: Every trial, by number.
        feasible: Numbers of the finished trials that keep every guardrail.
        sensitivity: How the error depends on each factor; empty without a surrogate.
        seconds: Seconds by phase: ``blend``, ``generate`` and ``score`` over all trials; of this
            run ``sampler``, ``start``, ``overhead`` (trials' wall time that is none of these)
            and ``total``.
        stop_reason: Reason why the search ended.
        converged: The sampler ended before its budget did.
    """

    study_id: int
    trained_model_error: float
    optimized_model_error: float
    improvement: float
    estimated_error: float | None
    optimized_scaling_factors: Factors
    factor_names: tuple[str, ...]
    number_of_inferences: int
    gradient_evaluations: int
    partial_evaluations: int
    baseline_inferences: int
    existing: tuple[ExistingModel, ...]
    step_gains: tuple[StepGain, ...]
    generated_tokens: int
    noise_floor: float | None
    trials: tuple[TrialRecord, ...]
    feasible: tuple[int, ...]
    sensitivity: tuple[FactorSensitivity, ...]
    seconds: dict[str, float]
    stop_reason: StopReason
    converged: bool


def build_outcome(
    plan: Plan,
    study_id: int,
    trials: Sequence[TrialRecord],
    *,
    stop_reason: StopReason,
    seconds: dict[str, float],
) -> SearchOutcome:
    """Put the outcome together.

    Args:
        plan: The protocol's parameters.
        study_id: Id of the study in the ledger.
        trials: Every trial of the study.
        stop_reason: Reason why the search ended.
        seconds: Seconds that this run measured besides the trials' phases, by name.

    Raises:
        SearchError: The trained model was never scored, or every blend failed.
    """
    choice, trained = choose(plan, trials), trained_error(trials)
    if choice is None or trained is None:
        raise SearchError(
            "the trained model could not be evaluated",
            reason=_reasons(trials) or "no finished trial",
            fix="Mend the cause and start a new study.",
        )
    _check_not_all_failed(trials)
    surrogate = _fit(plan, trials)
    finished = [t for t in trials if t.status is TrialStatus.FINISHED]
    compared = [t for t in trials if t.kind is TrialKind.COMPARISON]
    gradients = [t for t in trials if plan.gradients and t.kind is TrialKind.SEARCH]
    apart = {t.number for t in (*compared, *gradients)}
    return SearchOutcome(
        study_id=study_id,
        trained_model_error=trained,
        optimized_model_error=choice.error,
        improvement=trained - choice.error,
        estimated_error=None
        if surrogate is None
        else float(surrogate.posterior([choice.factors])[0][0]),
        optimized_scaling_factors=choice.factors,
        factor_names=plan.space.names,
        number_of_inferences=sum(t.outcome.attempts for t in trials if t.number not in apart),
        gradient_evaluations=sum(t.outcome.attempts for t in gradients),
        partial_evaluations=sum(t.outcome.answered is not None for t in trials),
        baseline_inferences=sum(t.outcome.attempts for t in compared),
        existing=existing_models(plan, trials),
        step_gains=()
        if surrogate is None
        else step_gains(surrogate, choice.factors, plan.space.step_names),
        generated_tokens=sum(t.outcome.generated_tokens for t in trials),
        noise_floor=noise_floor(trials),
        trials=tuple(trials),
        feasible=tuple(t.number for t in finished if is_feasible(plan, trials, t)),
        sensitivity=() if surrogate is None else surrogate.sensitivity(choice.factors),
        seconds=_phases(trials) | seconds,
        stop_reason=stop_reason,
        converged=stop_reason == "converged",
    )


def _check_not_all_failed(trials: Sequence[TrialRecord]) -> None:
    tried = [t for t in trials if t.kind not in (TrialKind.BASELINE, TrialKind.COMPARISON)]
    if tried and all(t.status is TrialStatus.FAILED for t in tried):
        raise SearchError(
            f"all {len(tried)} blends failed",
            reason=_reasons(tried),
            fix="The trained model works and no blend does: try a smaller scaling_factor_limit.",
        )


def _reasons(trials: Sequence[TrialRecord]) -> str:
    """The different reasons, each once, in order."""
    return "; ".join(dict.fromkeys(t.outcome.reason for t in trials if t.outcome.reason))


def _fit(plan: Plan, trials: Sequence[TrialRecord]) -> Surrogate | None:
    """None when there are too few trials to say anything about a surface."""
    points = [
        (t.factors, t.outcome.error)
        for t in trials
        if t.outcome.error is not None and is_part_of_search(plan.space, t)
    ]
    if len({factors for factors, _ in points}) < 3:
        return None
    return Surrogate(
        plan.space,
        [factors for factors, _ in points],
        [error for _, error in points],
        seed=plan.seed,
    )


def _phases(trials: Sequence[TrialRecord]) -> dict[str, float]:
    return {phase: sum(t.outcome.seconds.get(phase, 0.0) for t in trials) for phase in PHASES}
