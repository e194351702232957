"""The protocol of a search, as pure functions: what comes next, given what is there.

1. *baseline*: the factors zero twice. Their mean is the trained model's error, their difference the
   noise floor.
2. *startup*: quasi-random points over the whole space, where the sampler wants them.
3. *search*: the sampler's points, until the budget of evaluations is spent, the time is nearly up
   or the sampler has converged.
4. *confirm*: the best three feasible points, by the surrogate's posterior mean, evaluated once
   more, so that luck in one evaluation is not taken for a better blend.

Nothing here knows Ray, samplers, clocks or the ledger's database: state comes in as arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from ztom.ledger import TrialKind, TrialRecord, TrialStatus
from ztom.search.space import Factors, SearchSpace
from ztom.search.surrogate import Surrogate

BASELINES = 2
CONFIRMATIONS = 3
_EXPLORING = (TrialKind.STARTUP, TrialKind.SEARCH)

StopReason = Literal["budget", "converged", "time", "interrupted", "baseline failed"]


@dataclass(frozen=True)
class Plan:
    """What is fixed before the first trial.

    Attributes:
        space: Bounds of the factors.
        evaluations: Number of start-up and search trials together.
        startup: Number of these that are quasi-random.
        seed: Seeds the start-up points and the surrogate.
        max_increases: Largest rise of each guardrail's error above the trained model's, by its
            name.
        seconds: Seconds for the whole study, None for no limit.
        gradients: Whether the sampler's trials take derivatives, in float32.
    """

    space: SearchSpace
    evaluations: int
    startup: int
    seed: int
    max_increases: tuple[tuple[str, float], ...] = ()
    seconds: float | None = None
    gradients: bool = False

    @property
    def total(self) -> int:
        """The most trials that the study can have."""
        return BASELINES + self.evaluations + CONFIRMATIONS


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
    explored = _of(trials, *_EXPLORING)
    if _running(explored):
        return WaitForTrials()
    chosen = confirmation_points(plan, tuple(trials))
    confirmations = _of(trials, TrialKind.CONFIRM)
    if len(confirmations) < len(chosen):
        return Evaluate(TrialKind.CONFIRM, chosen[len(confirmations)])
    return WaitForTrials() if _running(confirmations) else Stop(reason)


@lru_cache(maxsize=4)
def _startup_points(plan: Plan) -> tuple[Factors, ...]:
    return plan.space.startup_points(plan.startup, seed=plan.seed)


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


def is_feasible(plan: Plan, trials: Sequence[TrialRecord], trial: TrialRecord) -> bool:
    """Whether a finished trial keeps every guardrail."""
    rises = violations(plan, trials, dict(trial.outcome.guardrails))
    return all(rise <= 0 for rise in rises)


def confirmation_points(plan: Plan, trials: tuple[TrialRecord, ...]) -> tuple[Factors, ...]:
    """The best feasible points of the exploration, by posterior mean; at most three, no repeats."""
    explored = tuple(
        t for t in _of(trials, TrialKind.BASELINE, *_EXPLORING) if t.status is TrialStatus.FINISHED
    )
    feasible = {
        t.factors: None
        for t in explored
        if t.kind is not TrialKind.BASELINE and is_feasible(plan, trials, t)
    }
    evaluated = tuple((t.factors, t.outcome.error) for t in explored if t.outcome.error is not None)
    if plan.gradients:
        return _best_by_error(evaluated, tuple(feasible))
    return _best_by_posterior(plan.space, plan.seed, evaluated, tuple(feasible))


def _best_by_error(
    evaluated: tuple[tuple[Factors, float], ...], candidates: tuple[Factors, ...]
) -> tuple[Factors, ...]:
    """Errors with derivatives are exact: there is no luck to be smoothed out."""
    errors = dict(evaluated)
    return tuple(sorted(candidates, key=errors.__getitem__)[:CONFIRMATIONS])


@lru_cache(maxsize=4)
def _best_by_posterior(
    space: SearchSpace,
    seed: int,
    evaluated: tuple[tuple[Factors, float], ...],
    candidates: tuple[Factors, ...],
) -> tuple[Factors, ...]:
    if not candidates:
        return ()
    surrogate = Surrogate(space, [f for f, _ in evaluated], [e for _, e in evaluated], seed=seed)
    means, _ = surrogate.posterior(candidates)
    order = sorted(range(len(candidates)), key=lambda i: (means[i], i))
    return tuple(candidates[i] for i in order[:CONFIRMATIONS])


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
    """The best factors of a study that has ended, or was interrupted.

    Among points that were evaluated again only the second evaluation counts: the first one is what
    they were selected by. Without confirmations (an interrupted study) the best feasible trial is
    taken. None when the trained model's error is not known.
    """
    trained = trained_error(trials)
    if trained is None:
        return None
    finished = [t for t in trials if t.status is TrialStatus.FINISHED]
    confirmed = [t for t in finished if t.kind is TrialKind.CONFIRM]
    pool = confirmed or [t for t in finished if t.kind in _EXPLORING]
    best = BestPoint(plan.space.trained, trained)
    for trial in pool:
        error = trial.outcome.error
        if error is not None and error < best.error and is_feasible(plan, trials, trial):
            best = BestPoint(trial.factors, error)
    return best


def _of(trials: Sequence[TrialRecord], *kinds: TrialKind) -> list[TrialRecord]:
    return [trial for trial in trials if trial.kind in kinds]


def _running(trials: Sequence[TrialRecord]) -> bool:
    return any(trial.status is TrialStatus.RUNNING for trial in trials)


def _errors(trials: Sequence[TrialRecord]) -> list[float]:
    return [t.outcome.error for t in trials if t.outcome.error is not None]
