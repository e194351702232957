"""The answer of a search with derivatives: the point of the lowest error, confirmed as deployed.

Errors with derivatives have no noise, but they are those of float32 weights on another engine,
perhaps. So the best points are evaluated once more as everything else is, the lowest error first,
until no other one can be better by its float32 error; only what was confirmed is answered.
"""

from __future__ import annotations

from collections.abc import Sequence

from ztom.search.answer import CONFIRMATIONS, Evaluation
from ztom.search.space import Factors


def next_exact_confirmation(evaluations: Sequence[Evaluation], done: int) -> Factors | None:
    """The point to confirm next; None when nothing is left to confirm.

    Args:
        evaluations: Every finished evaluation, the confirmations included.
        done: Number of confirmations so far, failed ones included.
    """
    points: dict[Factors, float] = {}
    for evaluation in sorted(evaluations, key=lambda e: e.error):
        is_candidate = evaluation.is_feasible and any(evaluation.factors)
        if is_candidate and not evaluation.is_confirmation:
            points.setdefault(evaluation.factors, evaluation.error)
    confirmed = [e.error for e in evaluations if e.is_confirmation and e.is_feasible]
    left = list(points.items())[done:CONFIRMATIONS]
    if not left or (confirmed and min(confirmed) <= left[0][1]):
        return None
    return left[0][0]


def choose_exact_answer(evaluations: Sequence[Evaluation], trained: float) -> Evaluation | None:
    """The confirmation of the lowest error; None when none is better than the trained model.

    Without confirmations (an interrupted study) the lowest error of all is taken.

    Args:
        evaluations: Every finished evaluation, in order.
        trained: Error of the trained model.
    """
    pool = [e for e in evaluations if e.is_confirmation] or evaluations
    better = [e for e in pool if e.is_feasible and e.error < trained and any(e.factors)]
    return min(better, key=lambda e: e.error, default=None)
