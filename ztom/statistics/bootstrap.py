"""Is the difference between two models on the same stimuli more than chance? A paired bootstrap.

Groups of stimuli are resampled with replacement (a cluster bootstrap: stimuli of one group are not
independent), both models on the same resample, and the difference of their aggregate errors is
taken each time. The interval is the *expanded percentile* interval: the percentiles of those
differences at

    alpha' = Phi( -sqrt(G / (G - 1)) * t_{1 - alpha/2, G - 1} ),     G = number of groups,

instead of alpha/2 (Hesterberg 2015, "What teachers should know about the bootstrap"). Why this
one: the plain percentile interval is too narrow for few groups, so it finds improvements too
often, which is the mistake a proof must not make. BCa does better on skewed differences and worse
on heavy tails, needs a jackknife of the whole statistic, and is undefined where all resamples
agree. How often the interval of 30 groups lay above a true difference of zero, in percent, 2.5
wanted, 1,500 simulations each:

    differences              percentile   expanded   BCa, expanded
    normal                          2.5        2.1             2.1
    exponential, skewed             6.7        5.6             4.4
    Student's t, 3 degrees           4.2        3.1             4.5

It does not correct for looking several times: one holdout, one look.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import ndtr, stdtrit

from ztom.errors import ScoringError
from ztom.statistics.scores import Floats, Scores, can_resample

#: Cells of one block of resample counts: 32 MiB of float64, whatever the number of stimuli.
_BLOCK_CELLS = 4 * 2**20


class Interval(BaseModel):
    """An estimate with its two-sided confidence interval.

    With fewer than two groups there is nothing to resample: ``low`` and ``high`` are the estimate,
    and ``groups`` says why they mean nothing.

    Attributes:
        estimate: Estimate of the difference on the data itself.
        low: Lower bound of the difference.
        high: Upper bound of the difference.
        confidence: Confidence of the two-sided interval, e.g. 0.95.
        resamples: Number of bootstrap resamples behind it; 0 when there was nothing to resample.
        groups: Number of independent groups of stimuli.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    estimate: float
    low: float
    high: float
    confidence: float = Field(gt=0.0, lt=1.0)
    resamples: int = Field(ge=0)
    groups: int = Field(ge=0)


def paired_bootstrap(
    before: Scores,
    after: Scores,
    *,
    groups: Sequence[str],
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int,
) -> Interval:
    """Confidence interval of the improvement ``before - after``; positive is better.

    Args:
        before: Scores of the trained model.
        after: Scores of the blend on the same stimuli in the same order.
        groups: The group of each stimulus.
        resamples: Number of bootstrap resamples.
        confidence: Confidence of the two-sided interval, e.g. 0.95.
        seed: Seed of the resampling.

    Raises:
        ScoringError: There are no stimuli, the lengths differ, or an option is out of range.
    """
    _check(before, after, groups=groups, resamples=resamples, confidence=confidence)
    estimate = float(before.aggregate()[0] - after.aggregate()[0])
    _, group_of = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    number = int(group_of.max()) + 1
    if not (can_resample(before) and can_resample(after)):
        number = 1
    if number < 2:
        return Interval(
            estimate=estimate,
            low=estimate,
            high=estimate,
            confidence=confidence,
            resamples=0,
            groups=number,
        )
    generator = np.random.default_rng(seed)
    differences = np.concatenate(
        [
            before.aggregate(counts) - after.aggregate(counts)
            for counts in _resample_counts(group_of, resamples=resamples, generator=generator)
        ]
    )
    tail = expanded_tail(confidence, number)
    low, high = np.quantile(differences, [tail, 1.0 - tail])
    return Interval(
        estimate=estimate,
        low=float(low),
        high=float(high),
        confidence=confidence,
        resamples=resamples,
        groups=number,
    )


def expanded_tail(confidence: float, groups: int) -> float:
    """Share of resamples cut off at each end, for two groups or more; see the module."""
    t = float(stdtrit(groups - 1, (1.0 + confidence) / 2.0))
    return float(ndtr(-math.sqrt(groups / (groups - 1)) * t))


def fewest_groups(confidence: float) -> int:
    """Fewest groups from which an interval at ``confidence`` can exclude a value at all.

    When nothing has changed, all G groups differ to the same side with probability 2^-G by chance
    alone, and no resampling of them can then tell. G has to make that rarer than one tail:
    ``G >= log2(2 / (1 - confidence))``, 6 at 95 %.
    """
    return math.ceil(math.log2(2.0 / (1.0 - confidence)))


def _check(
    before: Scores, after: Scores, *, groups: Sequence[str], resamples: int, confidence: float
) -> None:
    sizes = (before.per_stimulus.size, after.per_stimulus.size, len(groups))
    if len(set(sizes)) != 1:
        raise ScoringError(
            "errors before, errors after and groups are not of the same stimuli",
            got=f"{sizes[0]}, {sizes[1]} and {sizes[2]}",
            expected="three equal lengths",
        )
    if not groups:
        raise ScoringError("there are no stimuli to compare on", expected="at least one")
    if resamples < 100:
        raise ScoringError("too few resamples", got=resamples, expected="at least 100")
    if not 0.0 < confidence < 1.0:
        raise ScoringError("confidence is out of range", got=confidence, expected="between 0 and 1")


def _resample_counts(
    group_of: NDArray[np.intp], *, resamples: int, generator: np.random.Generator
) -> Iterator[Floats]:
    """Blocks of resample counts, each of shape (resamples in the block, stimuli)."""
    number = int(group_of.max()) + 1
    rows_at_once = max(1, _BLOCK_CELLS // group_of.size)
    for start in range(0, resamples, rows_at_once):
        rows = min(rows_at_once, resamples - start)
        drawn = generator.integers(number, size=(rows, number))
        drawn += np.arange(rows)[:, None] * number
        counts = np.bincount(drawn.ravel(), minlength=rows * number).reshape(rows, number)
        yield counts[:, group_of].astype(np.float64)
