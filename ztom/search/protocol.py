"""The protocol of a search, as pure functions: what comes next, given what is there.

1. *baseline*: the factors zero twice. Their mean is the trained model's error, their difference the
   noise floor. Then, outside the budget, the checkpoints of the chain alone and their average
   (`ztom.search.baselines`).
2. *startup*: quasi-random points around the middle of the space, where the sampler wants them.
3. *search*: the sampler's points, until the budget of evaluations is spent, the time is nearly up
   or the sampler has converged.
4. *confirm*: the minimiser of the surrogate's posterior, evaluated, so that luck in one evaluation
   is not taken for a better blend (`ztom.search.answer`); of exact errors the lowest
   (`ztom.search.exact_answer`).

Nothing here knows Ray, samplers, clocks or the ledger's database: state comes in as arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from ztom.ledger import TrialKind, TrialOutcome, TrialRecord, TrialStatus
from ztom.search.answer import CONFIRMATIONS, Evaluation, choose_answer, next_confirmation
from ztom.search.baselines import ComparedModel, is_part_of_search, next_comparison
from ztom.search.exact_answer import choose_exact_answer, next_exact_confirmation
from ztom.search.racing import Incumbent
from ztom.search.space import Factors, SearchSpace

BASELINES = 2
_EXPLORING = (TrialKind.STARTUP, TrialKind.SEARCH)

StopReason = Literal["budget", "converged", "time", "interrupted", "baseline failed"]


@dataclass(frozen=True)
class Plan:
    """What is fixed before the first trial.

    Attributes:
        space: Bounds of the factors.
        evaluations: Number of start-up and search trials together.
        startup: Number of these that are quasi-random.
        startup_scale: Share of the bounds, around their middle, that these are within.
        seed: Seeds the start-up points and the surrogate.
        max_increases: Largest rise of each guardrail's error above the trained model's, by its
            name.
        seconds: Seconds for the whole study, None for no limit.
        models: Models that are evaluated besides, to compare the best blend with.
        gradients: Whether the sampler's trials take derivatives, in float32.
    """

    space: SearchSpace
    evaluations: int
    startup: int
    seed: int
    max_increases: tuple[tuple[str, float], ...] = ()
    seconds: float | None = None
    models: tuple[ComparedModel, ...] = ()
    startup_scale: float = 1.0
    gradients: bool = False

    @property
    def total(self) -> int:
        """The most trials that the study can have."""
        compared = sum(model.kind != "trained" for model in self.models)
        return BASELINES + compared + self.evaluations + CONFIRMATIONS


@dataclass(frozen=True)
class StudyState:
    """What is known of a study besides its trials.

    Attributes:
        elapsed_s: Seconds that the study has taken so far.
        converged: Whether the sampler has no more points.
        interrupted: Whether the user wants it to stop.
    """

    elapsed_s: float = 0.0
    converged: bool = False
    interrupted: bool = False


@dataclass(frozen=True)
class Evaluate:
    """Evaluate these factors next; None asks the sampler for them."""

    kind: TrialKind
    factors: Factors | None


@dataclass(frozen=True)
class WaitForTrials:
    """The answer that nothing can be decided before a running trial ends."""


@dataclass(frozen=True)
class Stop:
    """The study is over."""

    reason: StopReason


def next_decision(
    plan: Plan, trials: Sequence[TrialRecord], state: StudyState
) -> Evaluate | WaitForTrials | Stop:
    """What the study does next, given every trial so far in order of number."""
    if state.interrupted:
        return Stop("interrupted")
    baselines = _of(trials, TrialKind.BASELINE)
    if len(baselines) < BASELINES:
        return Evaluate(TrialKind.BASELINE, plan.space.trained)
    if _running(baselines):
        return WaitForTrials()
    if all(trial.status is TrialStatus.FAILED for trial in baselines):
        return Stop("baseline failed")
    if plan.seconds is not None and state.elapsed_s >= plan.seconds:
        return Stop("time")
    model = next_comparison(plan.models, trials)
    if model is not None:
        return Evaluate(TrialKind.COMPARISON, model.factors)
    reason = _exploration_ends(plan, trials, state)
    return _explore(plan, trials) if reason is None else _confirm(plan, trials, reason)


def _exploration_ends(
    plan: Plan, trials: Sequence[TrialRecord], state: StudyState
) -> StopReason | None:
    explored = len(_of(trials, *_EXPLORING))
    if explored >= plan.evaluations:
        return "budget"
    if state.converged:
        return "converged"
    if _time_is_short(plan, trials, state) or _of(trials, TrialKind.CONFIRM):
        return "time"
    return None


def _time_is_short(plan: Plan, trials: Sequence[TrialRecord], state: StudyState) -> bool:
    """Whether one more search trial would leave no time for the confirmations."""
    if plan.seconds is None:
        return False
    costs = [t.outcome.seconds["total"] for t in trials if "total" in t.outcome.seconds]
    typical = sum(costs) / len(costs) if costs else 0.0
    return state.elapsed_s + (1 + CONFIRMATIONS) * typical > plan.seconds


def _explore(plan: Plan, trials: Sequence[TrialRecord]) -> Evaluate:
    done = len(_of(trials, *_EXPLORING))
    if done < plan.startup:
        return Evaluate(TrialKind.STARTUP, _startup_points(plan)[done])
    return Evaluate(TrialKind.SEARCH, None)


def _confirm(
    plan: Plan, trials: Sequence[TrialRecord], reason: StopReason
) -> Evaluate | WaitForTrials | Stop:
    if _running(_of(trials, TrialKind.COMPARISON, *_EXPLORING)):
        return WaitForTrials()
    confirmations = _of(trials, TrialKind.CONFIRM)
    if _running(confirmations):
        return WaitForTrials()
    finished, done = evaluations(plan, trials), len(confirmations)
    if plan.gradients:
        point = next_exact_confirmation(finished, done)
    else:
        point = next_confirmation(plan.space, plan.seed, finished, done)
    return Stop(reason) if point is None else Evaluate(TrialKind.CONFIRM, point)


@lru_cache(maxsize=4)
def _startup_points(plan: Plan) -> tuple[Factors, ...]:
    return plan.space.startup_points(plan.startup, seed=plan.seed, scale=plan.startup_scale)


def trained_error(trials: Sequence[TrialRecord]) -> float | None:
    """Mean error of the baselines that finished, None before the first one."""
    errors = _errors(_of(trials, TrialKind.BASELINE))
    return sum(errors) / len(errors) if errors else None


def noise_floor(trials: Sequence[TrialRecord]) -> float | None:
    """Difference between the two evaluations of the trained model, None without both."""
    errors = _errors(_of(trials, TrialKind.BASELINE))
    return max(errors) - min(errors) if len(errors) == BASELINES else None


def violations(
    plan: Plan, trials: Sequence[TrialRecord], guardrails: dict[str, float] | None = None
) -> tuple[float, ...]:
    """Excess of each guardrail's error over what is allowed; feasible when none is > 0.

    Args:
        plan: Plan that names the guardrails.
        trials: Trials with the baselines that the rise is measured from.
        guardrails: Errors of the trial in question; None (a failed trial) gives zeros.
    """
    if guardrails is None:
        return (0.0,) * len(plan.max_increases)
    baselines = [t for t in _of(trials, TrialKind.BASELINE) if t.status is TrialStatus.FINISHED]
    rises = []
    for name, allowed in plan.max_increases:
        before = sum(t.outcome.guardrails[name] for t in baselines) / len(baselines)
        rises.append(guardrails[name] - before - allowed)
    return tuple(rises)


def known_guardrails(outcome: TrialOutcome) -> dict[str, float] | None:
    """Errors of the guardrails; None where the trial failed, or was stopped before they came."""
    unknown = outcome.error is None or outcome.answered is not None
    return None if unknown else dict(outcome.guardrails)


def is_feasible(plan: Plan, trials: Sequence[TrialRecord], trial: TrialRecord) -> bool:
    """Whether a finished trial keeps every guardrail; of one that was stopped it is not known."""
    if trial.outcome.answered is not None:
        return False
    rises = violations(plan, trials, dict(trial.outcome.guardrails))
    return all(rise <= 0 for rise in rises)


def evaluations(plan: Plan, trials: Sequence[TrialRecord]) -> tuple[Evaluation, ...]:
    """What finished trials of the search gave, in order of their numbers."""
    return tuple(
        Evaluation(
            factors=trial.factors,
            error=trial.outcome.error,
            violations=violations(plan, trials, known_guardrails(trial.outcome)),
            is_confirmation=trial.kind is TrialKind.CONFIRM,
            is_estimate=trial.outcome.answered is not None,
        )
        for trial in trials
        if trial.status is TrialStatus.FINISHED
        and trial.outcome.error is not None
        and is_part_of_search(plan.space, trial)
    )


@dataclass(frozen=True)
class BestPoint:
    """What the search came to.

    Attributes:
        factors: The best factors; zeros when nothing beat the trained model.
        error: Error of their re-evaluation, or the trained model's.
    """

    factors: Factors
    error: float


def choose(plan: Plan, trials: Sequence[TrialRecord]) -> BestPoint | None:
    """The best factors of a study that has ended, or was interrupted (`choose_answer`).

    None when the trained model's error is not known.
    """
    trained = trained_error(trials)
    if trained is None:
        return None
    finished = evaluations(plan, trials)
    if plan.gradients:
        answer = choose_exact_answer(finished, trained)
    else:
        answer = choose_answer(plan.space, plan.seed, finished, trained)
    if answer is None:
        return BestPoint(plan.space.trained, trained)
    return BestPoint(answer.factors, answer.error)


def lowest(plan: Plan, trials: Sequence[TrialRecord]) -> BestPoint | None:
    """The lowest error so far that keeps every guardrail, for whoever watches a study."""
    trained = trained_error(trials)
    if trained is None:
        return None
    feasible = [e for e in evaluations(plan, trials) if e.is_feasible and e.error < trained]
    best = min(feasible, key=lambda e: e.error, default=None)
    return BestPoint(
        *((plan.space.trained, trained) if best is None else (best.factors, best.error))
    )


def incumbent(plan: Plan, trials: Sequence[TrialRecord]) -> Incumbent | None:
    """The best feasible trial that answered every stimulus, the trained model's included."""
    whole = [
        t
        for t in _of(trials, TrialKind.BASELINE, *_EXPLORING)
        if t.status is TrialStatus.FINISHED and t.outcome.per_stimulus
    ]
    best = min(
        (t for t in whole if is_feasible(plan, trials, t)),
        key=lambda t: (t.outcome.error, t.number),
        default=None,
    )
    if best is None or best.outcome.error is None:
        return None
    return Incumbent(best.number, best.outcome.error, best.outcome.per_stimulus)


def _of(trials: Sequence[TrialRecord], *kinds: TrialKind) -> list[TrialRecord]:
    return [trial for trial in trials if trial.kind in kinds]


def _running(trials: Sequence[TrialRecord]) -> bool:
    return any(trial.status is TrialStatus.RUNNING for trial in trials)


def _errors(trials: Sequence[TrialRecord]) -> list[float]:
    return [t.outcome.error for t in trials if t.outcome.error is not None]
