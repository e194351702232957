"""24 weeks of a decaying model, simulated: retrained never, by the calendar, or at an alarm.

The model answers 90 % rightly when it is fresh, and a point less each week. 100 answers a week,
drawn at random, are labelled. The monitor is `ztom.drift.quality`, whose reference is 1,000 labels;
it is drawn anew with each new model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ztom.statistics.cusum import CusumDesign, threshold

WEEKS, LABELS, REFERENCE, FRESH = 24, 100, 1000, 0.9


@dataclass(frozen=True)
class Arm:
    """What an arm did.

    Attributes:
        accuracy: Accuracy at the start of each week, shape (runs, weeks + 1).
        retrained: Number of times that each run was retrained, shape (runs,).
    """

    accuracy: NDArray[np.float64]
    retrained: NDArray[np.int64]

    def first_week_below(self, share: float) -> float:
        """First week with an accuracy below a share, in the median over runs."""
        below = self.accuracy < share - 1e-9
        first = np.where(below.any(axis=1), below.argmax(axis=1), np.inf)
        return float(np.median(first))


def calendar(decay: float, weeks: tuple[int, ...]) -> Arm:
    """A model that is retrained in given weeks; one run, as nothing is drawn."""
    age, shares = 0, []
    for week in range(WEEKS + 1):
        age = 0 if week in weeks else age
        shares.append(_accuracy(decay, age))
        age += 1
    return Arm(np.array([shares]), np.array([len(weeks)]))


def signals(decay: float, *, runs: int, seed: int = 0) -> Arm:
    """A model that is retrained when the labelled monitor alarms.

    Args:
        decay: What the accuracy loses a week.
        runs: Number of runs.
        seed: Seed of what is drawn.
    """
    rng = np.random.default_rng(seed)
    accuracy, retrained = np.empty((runs, WEEKS + 1)), np.zeros(runs, dtype=np.int64)
    for run in range(runs):
        age, statistic, design = 0, 0.0, _design(rng)
        for week in range(WEEKS + 1):
            accuracy[run, week] = _accuracy(decay, age)
            age += 1
            wrong = int(rng.binomial(LABELS, 1.0 - _accuracy(decay, age)))
            statistic = design.step(statistic, wrong=wrong, total=LABELS)
            if week < WEEKS and statistic > threshold(design, [LABELS] * WEEKS):
                age, statistic, design = 0, 0.0, _design(rng)
                retrained[run] += 1
    return Arm(accuracy, retrained)


def delays(decay: float, *, runs: int, seed: int = 1) -> NDArray[np.float64]:
    """Week of the first alarm of each run, infinite without one, shape (runs,)."""
    rng = np.random.default_rng(seed)
    first = np.full(runs, np.inf)
    for run in range(runs):
        statistic, design = 0.0, _design(rng)
        for week in range(1, WEEKS + 1):
            wrong = int(rng.binomial(LABELS, 1.0 - _accuracy(decay, week)))
            statistic = design.step(statistic, wrong=wrong, total=LABELS)
            if statistic > threshold(design, [LABELS] * WEEKS):
                first[run] = week
                break
    return first


def _design(rng: np.random.Generator) -> CusumDesign:
    return CusumDesign(int(rng.binomial(REFERENCE, 1.0 - FRESH)), REFERENCE, horizon=WEEKS)


def _accuracy(decay: float, age: int) -> float:
    return max(0.0, FRESH - decay * age)
