"""May we look at the rates at any time and still trust the answer? Anytime-valid bounds of means.

Observations lie in [0, 1]: an error happened or not, a disagreement of 0.3. Of n of them with sum S
and true mean m, the bet that the mean is p instead of m has earned

    (p / m)^S * ((1 - p) / (1 - m))^(n - S),

which, each observation's share being convex in it, is expected to shrink or stay for every p
(a nonnegative supermartingale). So does its average over any p, fixed in advance (the method of
mixtures: Robbins 1970; Howard, Ramdas, McAuliffe, Sekhon 2021, "Time-uniform, nonparametric,
nonasymptotic confidence sequences"; Waudby-Smith and Ramdas 2024, "Estimating means of bounded
random variables by betting"), and by Ville's inequality it ever reaches 1 / alpha with a
probability of at most alpha. The means against which it has not got there are the bound, at every
n at once: looking after each observation costs nothing, stopping on what one sees is allowed.

**One side at a time.** For an upper bound p is spread evenly over [0, m]:

    E(m) = B_m(S + 1, n - S + 1) / (m^(S + 1) * (1 - m)^(n - S)),   B_m the incomplete beta function

(a Beta mixture cut off at m); the upper bound is the m at which E(m) = 1 / alpha. E grows with m:
with p = q m it is the average over q in [0, 1] of q^S ((1 - q m) / (1 - m))^(n - S). For p < m the
bet also shrinks for every mean above m, so the bound stays valid where the mean is not constant,
as a bound of its smallest value. The lower bound is the same of 1 - X. Each bound spends an alpha
of its own: a one-sided question uses alpha, not alpha / 2. The two-sided mixture over all p answers
both sides for one alpha, but pays for bets on the side not asked about: at error rates of 0 to 3 %
it needs a fifth to a half more requests for the same bound.

**Differences** of two means take one bound of each, at alpha / 2 each (union bound): they hold
however the two series depend on each other, e.g. answers to the same requests.

Only n and S are needed, so counts of several gateways are added up. What this does *not* cover:
observations whose expectation swings with what came before (an outage of minutes is one event, not
a hundred), and comparisons with a baseline of another time of day.
"""

from __future__ import annotations

import math
from enum import StrEnum
from functools import lru_cache
from typing import Self

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ztom.errors import ConfigError

#: Bounds are found to within this.
_TOLERANCE = 1e-10
#: An upper bound closer to 1 than this is 1.
_RESOLUTION = 1e-12
#: A sum of fractions may pass n by its rounding; relative.
_ROUNDING = 1e-9
#: `SequentialFinding.more_needed` gives up beyond this many times the observations there are.
_FARTHEST = 1000.0


class SequentialOutcome(StrEnum):
    """What the data says about a check."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Sums(BaseModel):
    """All that is kept of a series of observations in [0, 1].

    Attributes:
        n: Number of observations.
        total: Sum of the observations.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    n: int = Field(default=0, ge=0)
    total: float = Field(default=0.0, ge=0.0)

    @model_validator(mode="after")
    def _within_unit(self) -> Self:
        if self.total > self.n * (1.0 + _ROUNDING):
            raise ValueError(f"{self.n} observations in [0, 1] cannot add up to {self.total:g}")
        return self

    def __add__(self, other: Sums) -> Sums:
        return Sums(n=self.n + other.n, total=self.total + other.total)

    @property
    def mean(self) -> float | None:
        """The estimate; None without observations."""
        return min(1.0, self.total / self.n) if self.n else None


class SequentialFinding(BaseModel):
    """A candidate's excess over a baseline, both means, and what follows.

    Attributes:
        candidate: Observations of the candidate.
        baseline: Observations of the baseline.
        margin: Largest excess of the candidate's mean over the baseline's that is allowed.
        low: Lower bound of the difference; ever wrong with a probability of at most ``fail_alpha``.
        high: Upper bound; ever wrong with a probability of at most ``pass_alpha``.
        pass_alpha: Risk of a pass although the difference is above the margin.
        fail_alpha: Risk of a fail although the difference is within the margin.
        baseline_grows: Whether observations of the baseline keep coming in, too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    candidate: Sums
    baseline: Sums
    margin: float = Field(ge=0.0, lt=1.0)
    low: float = Field(ge=-1.0, le=1.0)
    high: float = Field(ge=-1.0, le=1.0)
    pass_alpha: float = Field(gt=0.0, lt=1.0)
    fail_alpha: float = Field(gt=0.0, lt=1.0)
    baseline_grows: bool = True

    @property
    def outcome(self) -> SequentialOutcome:
        """Pass when the excess is certainly allowed, fail when it certainly is not.

        Without data of both it is neither, whatever the bounds of the other alone would prove.
        """
        if not (self.candidate.n and self.baseline.n):
            return SequentialOutcome.INCONCLUSIVE
        if self.high <= self.margin:
            return SequentialOutcome.PASS
        if self.low > self.margin:
            return SequentialOutcome.FAIL
        return SequentialOutcome.INCONCLUSIVE

    @property
    def estimate(self) -> float | None:
        """The candidate's mean minus the baseline's; None without data of both."""
        if self.candidate.mean is None or self.baseline.mean is None:
            return None
        return self.candidate.mean - self.baseline.mean

    @property
    def reason(self) -> str:
        """The outcome in words."""
        if self.candidate.mean is None or self.baseline.mean is None:
            missing = [("the candidate", self.candidate.n), ("stable", self.baseline.n)]
            return f"no data of {' and '.join(name for name, n in missing if not n)} yet"
        quantities = (
            f"{self.candidate.mean:.4g} (of {self.candidate.n:,}) "
            f"against stable's {self.baseline.mean:.4g} (of {self.baseline.n:,})"
        )
        if self.outcome is SequentialOutcome.PASS:
            return f"{quantities}: at most {self.high:.3g} more, {self.margin:.3g} is allowed"
        if self.outcome is SequentialOutcome.FAIL:
            return f"{quantities}: at least {self.low:.3g} more, only {self.margin:.3g} is allowed"
        return (
            f"{quantities}: between {self.low:.3g} and {self.high:.3g} more, {self.margin:.3g} is "
            f"allowed: not decided, {self._needed()}"
        )

    def more_needed(self) -> int | None:
        """Number of further observations of the candidate that about decide it if the rates stay.

        None when it is decided, when there is no data to go by, and when more than 1,000 times the
        present number would be needed: the difference lies too near the margin, or the baseline no
        longer grows and is too small.
        """
        if (
            not (self.candidate.n and self.baseline.n)
            or self.outcome is not SequentialOutcome.INCONCLUSIVE
        ):
            return None
        low, high = 0.0, math.log(_FARTHEST)
        if self._times(_FARTHEST).outcome is SequentialOutcome.INCONCLUSIVE:
            return None
        while high - low > 0.02:
            middle = (low + high) / 2.0
            decided = self._times(math.exp(middle)).outcome is not SequentialOutcome.INCONCLUSIVE
            low, high = (low, middle) if decided else (middle, high)
        return max(1, math.ceil(self.candidate.n * math.expm1(high)))

    def _times(self, factor: float) -> SequentialFinding:
        """What as many times the observations would say, at the same means."""
        return compare(
            _times(self.candidate, factor),
            _times(self.baseline, factor) if self.baseline_grows else self.baseline,
            margin=self.margin,
            alpha=self.pass_alpha,
            fail_alpha=self.fail_alpha,
        )

    def _needed(self) -> str:
        more = self.more_needed()
        if more is None:
            return "and at these rates no number of requests in sight would decide it"
        return f"about {_two_digits(more):,} more would decide it"


def compare(
    candidate: Sums,
    baseline: Sums,
    *,
    margin: float,
    alpha: float,
    fail_alpha: float | None = None,
    baseline_grows: bool = True,
) -> SequentialFinding:
    """Compare the means of two series; see the module.

    Args:
        candidate: Observations of the new version; less is better.
        baseline: Observations of the present one.
        margin: Largest excess of the candidate's mean over the baseline's that is allowed, 0 to
            below 1.
        alpha: Risk of a pass, at any time, of a difference above the margin.
        fail_alpha: Risk of a fail, at any time, of a difference within it; alpha unless given.
        baseline_grows: Whether the baseline's observations go on, too; for the forecast only.

    Raises:
        ConfigError: A risk is not between 0 and 1, or the margin not from 0 to below 1.
    """
    fail_alpha = alpha if fail_alpha is None else fail_alpha
    if not 0.0 <= margin < 1.0:
        raise ConfigError("the margin is out of range", got=margin, expected="0 to below 1")
    low = lower_bound(candidate, fail_alpha / 2) - upper_bound(baseline, fail_alpha / 2)
    high = upper_bound(candidate, alpha / 2) - lower_bound(baseline, alpha / 2)
    return SequentialFinding(
        candidate=candidate,
        baseline=baseline,
        margin=margin,
        low=low,
        high=high,
        pass_alpha=alpha,
        fail_alpha=fail_alpha,
        baseline_grows=baseline_grows,
    )


def upper_bound(sums: Sums, alpha: float) -> float:
    """Above the mean at every n at once, but for a probability of at most alpha.

    Raises:
        ConfigError: alpha is not between 0 and 1.
    """
    return _upper_bound(sums.n, min(sums.total, float(sums.n)), alpha)


def lower_bound(sums: Sums, alpha: float) -> float:
    """Below the mean at every n at once, but for a probability of at most alpha.

    Raises:
        ConfigError: alpha is not between 0 and 1.
    """
    return 1.0 - _upper_bound(sums.n, max(0.0, sums.n - sums.total), alpha)


def log_evidence_below(n: ArrayLike, total: ArrayLike, mean: ArrayLike) -> NDArray[np.float64]:
    """Logarithm of the evidence E that the true mean lies below ``mean``; see the module.

    Args:
        n: Number of observations.
        total: Sum of the observations, 0 to n.
        mean: Mean between 0 and 1, both excluded. All three are broadcast.
    """
    n, total, mean = (np.asarray(values, dtype=np.float64) for values in (n, total, mean))
    first, second = total + 1.0, n - total + 1.0
    with np.errstate(divide="ignore"):
        share = np.log(scipy.special.betainc(first, second, mean))
    evidence = (
        share
        + scipy.special.betaln(first, second)
        - first * np.log(mean)
        - scipy.special.xlog1py(n - total, -mean)
    )
    return np.asarray(evidence, dtype=np.float64)


@lru_cache(maxsize=4096)
def _upper_bound(n: int, total: float, alpha: float) -> float:
    if not 0.0 < alpha < 1.0:
        raise ConfigError("alpha is out of range", got=alpha, expected="between 0 and 1")
    first, second, rest = total + 1.0, n - total + 1.0, n - total
    # The part of the evidence that does not depend on the mean, less what it has to reach.
    constant = float(scipy.special.betaln(first, second)) + math.log(alpha)

    def excess(mean: float) -> float:
        share = math.log(scipy.special.betainc(first, second, mean))
        return share + constant - first * math.log(mean) - rest * math.log1p(-mean)

    highest = 1.0 - _RESOLUTION
    if total >= n or excess(highest) < 0.0:
        return 1.0
    # At the estimate no bet has earned anything: the evidence is at most 1 there.
    lowest = min(max(total / n, _RESOLUTION), highest)
    return float(scipy.optimize.brentq(excess, lowest, highest, xtol=_TOLERANCE, maxiter=500))


def _times(sums: Sums, factor: float) -> Sums:
    n = round(sums.n * factor)
    return Sums(n=n, total=sums.total / sums.n * n)


def _two_digits(number: int) -> int:
    """Rounded up to two digits: a forecast is no more exact than that."""
    unit = int(10 ** max(0, len(str(number)) - 2))
    return -(-number // unit) * unit
