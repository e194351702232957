"""The answer of a search: the minimiser of the posterior over the box, confirmed by evaluating it.

Single evaluations are noisy, and the lowest of many is lowest by luck. So the answer comes from the
surrogate: its minimiser is evaluated, the surrogate learns from that, and again; at last the best
evaluated point, by posterior mean, is evaluated once more. Nothing is answered that was not
evaluated. An engine that is deterministic is not asked about the same point twice, and of its
evaluations the lowest simply is the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ztom.search.space import Factors, SearchSpace
from ztom.search.surrogate import Surrogate

CONFIRMATIONS = 3
#: Two points this close, in shares of the bounds, are the same to a deterministic engine's search.
_SAME = 1e-3


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation of a blend or of the trained model, whose factors are all zero.

    Attributes:
        factors: Factors of the blend.
        error: Error of the blend.
        violations: Excess of each guardrail's error over what is allowed.
        is_confirmation: Whether it was made to confirm an answer.
        is_estimate: Whether it was stopped before it had answered everything, being clearly worse
            than the best: the surrogate learns from it, and it is never the answer.
    """

    factors: Factors
    error: float
    violations: tuple[float, ...]
    is_confirmation: bool = False
    is_estimate: bool = False

    @property
    def is_feasible(self) -> bool:
        """Whether it is known to keep every guardrail."""
        return not self.is_estimate and all(excess <= 0 for excess in self.violations)


def is_deterministic(evaluations: Sequence[Evaluation]) -> bool:
    """Whether every point that was evaluated several times, one at least, gave the same error."""
    errors: dict[Factors, list[float]] = {}
    for evaluation in (e for e in evaluations if not e.is_estimate):
        errors.setdefault(evaluation.factors, []).append(evaluation.error)
    repeated = [values for values in errors.values() if len(values) > 1]
    return bool(repeated) and all(len(set(values)) == 1 for values in repeated)


def next_confirmation(
    space: SearchSpace, seed: int, evaluations: tuple[Evaluation, ...], done: int
) -> Factors | None:
    """The point to evaluate so that the search can answer; None when nothing is left to confirm.

    Args:
        space: Bounds of the factors.
        seed: Seed of the surrogate.
        evaluations: Every finished evaluation, the confirmations included.
        done: Number of confirmations so far, failed ones included.
    """
    if done >= CONFIRMATIONS or not any(e.is_feasible for e in evaluations if any(e.factors)):
        return None
    deterministic = is_deterministic(evaluations)
    if done == CONFIRMATIONS - 1 and not deterministic:
        return _best_by_posterior(space, seed, evaluations)
    point = _fit(space, seed, evaluations).minimiser()
    return None if deterministic and _is_known(space, point, evaluations) else point


def choose_answer(
    space: SearchSpace, seed: int, evaluations: tuple[Evaluation, ...], trained: float
) -> Evaluation | None:
    """The evaluation that the search answers with; None when none is better than the trained model.

    Among confirmations, and without any (an interrupted study) among all, those count that keep the
    guardrails and have a lower error than the trained model. Of them the lowest posterior mean
    wins, or the lowest error where the engine is deterministic, and of one point the last
    evaluation.

    Args:
        space: Bounds of the factors.
        seed: Seed of the surrogate.
        evaluations: Every finished evaluation, in order.
        trained: Error of the trained model.
    """
    deterministic = is_deterministic(evaluations)
    confirmed = [e for e in evaluations if e.is_confirmation]
    pool = evaluations if deterministic or not confirmed else confirmed
    latest = {e.factors: e for e in pool}
    better = [e for e in latest.values() if e.is_feasible and e.error < trained and any(e.factors)]
    if deterministic:
        return min(better, key=lambda e: e.error, default=None)
    if not better:
        return None
    means, _ = _fit(space, seed, evaluations).posterior([e.factors for e in better])
    return better[int(np.argmin(means))]


def _best_by_posterior(
    space: SearchSpace, seed: int, evaluations: tuple[Evaluation, ...]
) -> Factors | None:
    feasible = [e.factors for e in evaluations if e.is_feasible and any(e.factors)]
    if not feasible:
        return None
    means, _ = _fit(space, seed, evaluations).posterior(feasible)
    return feasible[int(np.argmin(means))]


def _is_known(space: SearchSpace, point: Factors, evaluations: Sequence[Evaluation]) -> bool:
    width = np.array(space.upper) - np.array(space.lower)
    steps = np.array([e.factors for e in evaluations]) - np.array(point)
    return bool((np.abs(steps) / width).max(axis=1).min() < _SAME)


@lru_cache(maxsize=4)
def _fit(space: SearchSpace, seed: int, evaluations: tuple[Evaluation, ...]) -> Surrogate:
    return Surrogate(
        space,
        [e.factors for e in evaluations],
        [e.error for e in evaluations],
        violations=[e.violations for e in evaluations],
        seed=seed,
    )
