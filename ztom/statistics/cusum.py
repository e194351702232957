"""Has the share of wrong answers risen? A CUSUM that knows that its reference is an estimate.

Window by window x of n labelled answers are wrong. With p_0 the share that is expected and p_1 the
one worth an alarm (Page 1954, "Continuous inspection schemes")

    S_w = max(0, S_(w-1) + x log(p_1 / p_0) + (n - x) log((1 - p_1) / (1 - p_0)))

and S_w > h is an alarm. p_0 was itself estimated, from a reference of so many labels; a threshold
that takes it for the truth alarms in 12 % of unchanged horizons instead of 5 % at a reference of
1,000, and in 22 % at 300. So h is the (1 - alpha) quantile of the highest S of simulated horizons
in which the true share is drawn from what the reference leaves open: Beta(wrong + 1/2, right + 1/2)
(Jeffreys' prior). The simulation is seeded: the same reference and labels give the same h.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ztom.errors import ConfigError

#: Simulated horizons that a threshold and what is said of it come from.
RUNS = 20_000
_LEAST_SHARE, _GREATEST_SHARE = 0.005, 0.5


@dataclass(frozen=True)
class CusumDesign:
    """What a CUSUM is meant to notice, and how seldom it may be wrong.

    Attributes:
        wrong: Number of wrong answers among the labels of the reference.
        total: Number of labels of the reference.
        rise: Rise of the share of wrong answers that is worth an alarm, e.g. 0.05.
        alpha: Chance of any alarm within the horizon although nothing has changed.
        horizon: Number of windows that alpha is for.
        seed: Seed of the simulation.
    """

    wrong: int
    total: int
    rise: float = 0.05
    alpha: float = 0.05
    horizon: int = 24
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.wrong <= self.total or self.total == 0:
            raise ConfigError(
                "a reference needs labels",
                got=f"{self.wrong} wrong of {self.total}",
                expected="at least one label, and no more wrong answers than labels",
            )
        if not 0.0 < self.rise < 1.0 - self.share:
            raise ConfigError(
                "no share of wrong answers can rise by this",
                got=f"{self.share:.3g} + {self.rise:.3g}",
                expected="a rise above 0 that ends below 1",
            )
        if not 0.0 < self.alpha < 1.0 or self.horizon < 1:
            raise ConfigError(
                "alpha or horizon is out of range",
                got=f"alpha {self.alpha:.3g}, horizon {self.horizon}",
                expected="alpha between 0 and 1, a horizon of at least one window",
            )

    @property
    def share(self) -> float:
        """The expected share of wrong answers, p_0; never so near 0 that one error is an alarm."""
        return min(max(self.wrong / self.total, _LEAST_SHARE), _GREATEST_SHARE)

    def step(self, statistic: float, *, wrong: int, total: int) -> float:
        """S after a window, from S before it."""
        right, left = _weights(self)
        return max(0.0, statistic + wrong * right + (total - wrong) * left)


@dataclass(frozen=True)
class Characteristics:
    """What can be expected of a monitor, from simulated horizons.

    Attributes:
        false_alarms: Share of unchanged horizons with an alarm.
        median_delay: Windows from the first decay to the alarm, in the median; None where half of
            the horizons pass without one.
        late_delay: The same, for nine horizons of ten.
    """

    false_alarms: float
    median_delay: int | None
    late_delay: int | None


def threshold(design: CusumDesign, labels: Sequence[int]) -> float:
    """The threshold h of a design.

    Args:
        design: The design.
        labels: Number of labels of each window of the horizon, shape (horizon,).
    """
    return _threshold(design, _fitting(design, labels))


def characteristics(
    design: CusumDesign, labels: Sequence[int], *, decay: float, limit: float | None = None
) -> Characteristics:
    """How often a monitor alarms without reason, and how late with one.

    Args:
        design: The design.
        labels: Number of labels of each window of the horizon, shape (horizon,).
        decay: Rise of the share of wrong answers from window to window.
        limit: Threshold; that of the design and the labels by default.
    """
    counts = _fitting(design, labels)
    limit = _threshold(design, counts) if limit is None else limit
    # draws of their own: those that gave the threshold would flatter it
    quiet = _paths(design, counts, decay=0.0, stream=1).max(axis=1) > limit
    over = _paths(design, counts, decay=decay, stream=2) > limit
    first = np.where(over.any(axis=1), over.argmax(axis=1) + 1, design.horizon + 1)
    delays = [int(np.quantile(first, share, method="higher")) for share in (0.5, 0.9)]
    median, late = (delay if delay <= design.horizon else None for delay in delays)
    return Characteristics(float(quiet.mean()), median, late)


@lru_cache(maxsize=512)
def _threshold(design: CusumDesign, labels: tuple[int, ...]) -> float:
    highest = _paths(design, labels, decay=0.0, stream=0).max(axis=1)
    return float(np.quantile(highest, 1.0 - design.alpha, method="higher"))


def _paths(
    design: CusumDesign, labels: tuple[int, ...], *, decay: float, stream: int
) -> NDArray[np.float64]:
    """S of simulated horizons, shape (runs, windows)."""
    rng = np.random.default_rng((design.seed, stream))
    right = design.total - design.wrong
    truth = rng.beta(design.wrong + 0.5, right + 0.5, RUNS)
    weights = _weights(design)
    statistic = np.zeros(RUNS)
    paths = np.empty((RUNS, len(labels)))
    for window, total in enumerate(labels):
        share = np.minimum(truth + decay * (window + 1), 1.0)
        wrong = rng.binomial(total, share)
        statistic = np.maximum(0.0, statistic + wrong * weights[0] + (total - wrong) * weights[1])
        paths[:, window] = statistic
    return paths


def _weights(design: CusumDesign) -> tuple[float, float]:
    """What a wrong and a right answer add to S."""
    expected, raised = design.share, min(design.share + design.rise, 1.0 - 1e-9)
    return math.log(raised / expected), math.log((1.0 - raised) / (1.0 - expected))


def _fitting(design: CusumDesign, labels: Sequence[int]) -> tuple[int, ...]:
    if len(labels) != design.horizon or min(labels) < 0:
        raise ConfigError(
            "labels are needed for each window of the horizon",
            got=f"{len(labels)} numbers from {min(labels, default=0)} on",
            expected=f"{design.horizon} numbers of at least 0",
        )
    return tuple(map(int, labels))
