"""How sure are we? Bounds, tests and sample sizes of answers that are right or wrong.

**A share** of independent answers has the exact bounds of Clopper and Pearson (1934).

**A difference of two shares on the same items** depends only on how many items the candidate lost
(right before, wrong now: b) and gained (c) of n. That the true difference is D is tested with
Tango's score statistic (1998, "Equivalence test and confidence interval for the difference in
proportions for the paired-sample design"), its variance being that of the most likely chances
under D, here with a continuity correction of half an item:

    z = (c - b - n D -+ 1/2) / sqrt(n (2 q + D - D^2)),
    q = the larger root of  2 n q^2 + (D (2 n + b - c) - (b + c)) q - b D (1 - D) = 0,

and the p-value is never smaller than that of the exact binomial test of c - b with the least
discordance that D allows; that one alone is taken where nothing changed. By enumeration of all
outcomes (n 30 to 400, D -0.005 to -0.3, all discordances, alpha 0.05) a candidate that is worse by
exactly D is taken to be above it with a probability of at most 0.050, and to be below it of at most
0.054. Tango's statistic alone reaches 0.060 and 0.089.

**Harm** to a suite that has to stay as it is: McNemar's test (1947), exact and one-sided: of b + c
changed items, at least b are losses. It takes items to be independent. Where clusters of items
repeat, the signs of whole clusters are flipped instead (Fisher 1935; by cluster: Canay, Romano,
Shaikh 2017, "Randomization tests under an approximate symmetry assumption"): had candidate and
champion changed places in some clusters, each as likely as not, how often would the sum of the
differences be as low? With clusters of one item it is McNemar's test again.

**Several tests**: Holm (1979) keeps the chance of any false rejection at alpha.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
import scipy
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ztom.statistics.planning import FARTHEST, POWER, items_needed, items_needed_paired

Floats = NDArray[np.float64]

_FLIPS = 10_000
_ROUNDING = 1e-9


class Method(StrEnum):
    """Where the bounds of an estimate come from."""

    EXACT = "exact"
    SCORE = "score"
    BOOTSTRAP = "bootstrap"


class Estimate(BaseModel):
    """An estimate with its bounds, each of them one-sided.

    Attributes:
        value: Estimate on the data itself.
        low: Lower bound; the truth lies below it with probability alpha at most.
        high: Upper bound; the truth lies above it with probability alpha at most.
        method: Method that the bounds come from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    value: float
    low: float
    high: float
    method: Method


class Quantity(Protocol):
    """Something that was estimated: a model's metric, or the difference of two models."""

    @property
    def value(self) -> float:
        """The estimate."""

    def estimate(self, alpha: float) -> Estimate:
        """The estimate with bounds at level alpha."""

    def p_below(self, threshold: float) -> float:
        """P-value of the test whose rejection shows that the truth lies below ``threshold``."""

    def needed(self, threshold: float, alpha: float) -> int | None:
        """Items that would show on which side of ``threshold`` it is; None: none in sight."""


@dataclass(frozen=True)
class Proportion:
    """The share of right answers among independent items.

    Attributes:
        right: How many are right; a fraction where items are worth fewer than their number.
        n: How many there are.
    """

    right: float
    n: float

    @property
    def value(self) -> float:
        """The share."""
        return self.right / self.n

    def estimate(self, alpha: float) -> Estimate:
        """Clopper-Pearson bounds."""
        wrong = self.n - self.right
        low = (
            float(scipy.special.betaincinv(self.right, wrong + 1.0, alpha))
            if self.right > 0.0
            else 0.0
        )
        high = (
            float(scipy.special.betaincinv(self.right + 1.0, wrong, 1.0 - alpha))
            if wrong > 0.0
            else 1.0
        )
        return Estimate(value=self.value, low=low, high=high, method=Method.EXACT)

    def p_below(self, threshold: float) -> float:
        """Exact binomial test."""
        return _at_most(self.right, self.n, threshold)

    def needed(self, threshold: float, alpha: float) -> int | None:
        """Number of items that would show it; see `items_needed`."""
        return items_needed(
            self.value - threshold,
            spread=math.sqrt(self.value * (1.0 - self.value)),
            spread_at_threshold=math.sqrt(threshold * (1.0 - threshold)),
            alpha=alpha,
            limit=round(FARTHEST * self.n),
        )


@dataclass(frozen=True)
class PairedDifference:
    """Candidate's share minus champion's, on the same independent items; see the module.

    Attributes:
        losses: Right with the champion only.
        gains: Right with the candidate only.
        n: All items; like the others a fraction where items are worth fewer than their number.
    """

    losses: float
    gains: float
    n: float

    @property
    def value(self) -> float:
        """The difference."""
        return (self.gains - self.losses) / self.n

    def estimate(self, alpha: float) -> Estimate:
        """Bounds that invert the tests."""
        return Estimate(
            value=self.value,
            low=self._low(alpha),
            high=-self._mirrored._low(alpha),
            method=Method.SCORE,
        )

    def p_above(self, threshold: float) -> float:
        """P-value of the test whose rejection shows that the difference exceeds ``threshold``."""
        net = self.gains - self.losses
        if threshold > 0.0:
            least = _at_most(self.n - net, self.n, 1.0 - threshold) if net > 0.0 else 1.0
        else:
            least = _at_most(-net, self.n, -threshold) if net <= 0.0 else 0.0
        nothing_changed = self.losses == self.gains == 0.0
        return least if nothing_changed else max(least, self._score_p(threshold))

    def p_below(self, threshold: float) -> float:
        """P-value of the test whose rejection shows that it lies below ``threshold``."""
        return self._mirrored.p_above(-threshold)

    def needed(self, threshold: float, alpha: float) -> int | None:
        """The count of `items_needed_paired`; enough to pass with no change if none is likely."""
        discordance = (self.losses + self.gains) / self.n
        needed = items_needed_paired(
            self.value,
            discordance=discordance,
            margin=-threshold,
            alpha=alpha,
            limit=round(FARTHEST * self.n),
        )
        if needed is None or not -1.0 < threshold < min(0.0, self.value):
            return needed
        none_changes = (1.0 - discordance) ** needed
        unchanged = math.ceil(math.log(alpha) / math.log1p(threshold))
        return max(needed, unchanged) if none_changes > 1.0 - POWER else needed

    @property
    def _mirrored(self) -> PairedDifference:
        return PairedDifference(losses=self.gains, gains=self.losses, n=self.n)

    def _score_p(self, difference: float) -> float:
        b, c, n = self.losses, self.gains, self.n
        linear = difference * (2 * n + b - c) - (b + c)
        root = linear * linear + 8.0 * n * b * difference * (1.0 - difference)
        q = (math.sqrt(max(0.0, root)) - linear) / (4.0 * n)
        variance = n * (2.0 * q + difference - difference * difference)
        distance = c - b - n * difference - 0.5
        if variance <= _ROUNDING:
            return 0.0 if distance > 0.0 else 1.0
        return float(scipy.special.ndtr(-distance / math.sqrt(variance)))

    def _low(self, alpha: float) -> float:
        if self.p_above(-1.0) > alpha:
            return -1.0
        return float(
            scipy.optimize.brentq(lambda d: self.p_above(d) - alpha, -1.0, self.value, xtol=1e-10)
        )


def _at_most(count: float, n: float, chance: float) -> float:
    """Chance that a binomial count is at most that."""
    if count >= n or chance <= 0.0:
        return 1.0
    return float(scipy.special.betainc(n - count, count + 1.0, max(0.0, 1.0 - chance)))


def mcnemar(losses: int, gains: int) -> float:
    """One-sided exact p-value that losses are not more likely than gains; see the module."""
    return float(scipy.special.bdtrc(losses - 1, losses + gains, 0.5)) if losses else 1.0


def sign_flip(differences: Floats, *, seed: int) -> float:
    """One-sided p-value that the clusters' differences are not below zero; see the module.

    Exact for whole numbers, by 10,000 random flips otherwise.

    Args:
        differences: Sum of candidate minus champion of each cluster, shape (clusters,).
        seed: Seed of the random flips.
    """
    sizes = np.abs(differences[differences != 0.0])
    if not sizes.size:
        return 1.0
    total = float(differences.sum())
    if np.array_equal(sizes, np.round(sizes)):
        return _exact_flips(sizes.astype(np.int64), round(total))
    generator = np.random.default_rng(seed)
    rows = max(1, 2**22 // sizes.size)
    as_low = 0
    for start in range(0, _FLIPS, rows):
        shape = (min(rows, _FLIPS - start), sizes.size)
        kept = generator.integers(2, size=shape, dtype=np.int8).astype(np.float64)
        as_low += int(np.count_nonzero(2.0 * (kept @ sizes) - sizes.sum() <= total + _ROUNDING))
    return (1 + as_low) / (1 + _FLIPS)


def _exact_flips(sizes: NDArray[np.int64], total: int) -> float:
    """Chance that the sum with random signs is at most ``total``."""
    chances: NDArray[np.floating] = np.ones(1)
    for size, count in zip(*np.unique(sizes, return_counts=True), strict=True):
        kept = np.arange(count + 1)
        ways = (
            scipy.special.gammaln(count + 1)
            - scipy.special.gammaln(kept + 1)
            - scipy.special.gammaln(count - kept + 1)
        )
        spread = np.zeros(size * count + 1)
        spread[::size] = np.exp(ways - count * math.log(2.0))
        chances = np.convolve(chances, spread)
    # With K kept positive the sum is 2 K - all.
    return min(1.0, float(chances[: (total + int(sizes.sum())) // 2 + 1].sum()))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values, in the same order."""
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return tuple(adjusted)
