"""Bounds where items are not independent, or a metric is no share of right answers.

The project's bootstrap (`ztom.statistics.bootstrap`): clusters are drawn with replacement, all
models on the same draw, and the bounds are its expanded percentiles. But a bootstrap knows only
what it has seen: where all clusters are right, every resample is, and the bound would be 1; and
near 1 its lower bound is too high too often. So the bounds are at least as wide as those of
independent answers that say as much, the number of items divided by the design effect (Rao and
Scott 1992, "A simple method for the analysis of clustered binary data"; Korn and Graubard 1998,
"Confidence intervals for proportions with small expected number of positive counts"):

    n' = variance of one right or wrong answer / variance of the metric * (z / t_(G - 1))^2,

the metric's variance being that on the resamples, and where it is a mean not less than that of
independent items; n' is G where the G clusters all agree. How often the lower bound of a share lay
above it, in percent, 5 wanted, G clusters of which most are all right or all wrong:

    G, share          20, 0.8    20, 0.9    20, 0.95    50, 0.8    50, 0.9
    percentiles             9         13          32          7         10
    these bounds            3          0           0          4          3

G is Kish's number (1965, "Survey sampling"), the clusters of equal size that would say as much,
items^2 / sum of (items of a cluster)^2, rounded down: a cluster of nearly all items leaves one.

And what has not been seen may be there all the same: a share of 1 - alpha^(1/G) of the clusters
stays out of the data with probability alpha. Were they as bad as can be, the truth would be

    alpha^(1/G) value + (1 - alpha^(1/G)) worst,     worst = 0, or -1 for a difference,

and no lower bound is higher: at alpha 0.05 a margin of 0.02 takes 149 clusters or graded items, as
it takes 149 items that are right or wrong and do not change. Without that, of candidates that are
worse by exactly the margin, 45 % passed where 3 % of answers worth 0.8 had become empty and others
moved by 0.02, with 30 items, and 27 % where 2 % of 50 clusters were lost as a whole and 5 % of the
other items changed; with it none did.

That is right for a mean. A macro-F1 gives every class the same weight: one item of a class that has
no other moves it by 1/K, and is missing in every third resample without a trace. So what has not
been seen is looked for class by class (`ztom.statistics.rare_classes`), each with its items' share
of the G clusters. How often both lower bounds, of the metric and of the difference to a champion
that is right throughout, lay above the truth, in percent, 1,000 simulations each of 4 classes, the
last one the rare one, 5 wanted:

    items of a class        32, 4        33, 1        32, 4
    right, rare / others    0.8 / 0.97   0.5 / 0.97   1 / 0.99, errors name the rare class
    as one class            16           50           36
    class by class           0            0            0

For a difference, answers count as lost or gained by one typical change: the mean squared change
over the mean absolute one, 1 for right and wrong. Of candidates that are worse by exactly a margin
of 0.05, all items of a cluster changing at once and 2 % being gained, percentiles passed 22 % with
20 clusters and 8 % with 50; these bounds passed 1 % at most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtr, stdtrit

from ztom.statistics.bootstrap import _resample_counts, expanded_tail
from ztom.statistics.planning import FARTHEST
from ztom.statistics.proportions import Estimate, Floats, Method, PairedDifference, Proportion
from ztom.statistics.rare_classes import Unseen
from ztom.statistics.scores import Scores

Ints = NDArray[np.intp]

_MOST, _FEWEST = 10_000, 2_000
#: Resamples times clusters; with more than 2,000 clusters fewer resamples are drawn.
_CELLS = 20_000_000
#: Variances that are no larger come from rounding: nothing varied.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class ClassParts:
    """The classes of items whose parts a metric, or a difference of metrics, is the sum of.

    Attributes:
        parts: What each adds, shape (classes,).
        most: What one can add to a metric at most.
        clusters: Independent clusters of each, positive, shape (classes,).
    """

    parts: Floats
    most: float
    clusters: Floats

    @classmethod
    def one(cls, value: float, clusters: int) -> ClassParts:
        """The classes of a mean, which is one: all items are alike."""
        return cls(np.array([value]), 1.0, np.array([float(clusters)]))


@dataclass(frozen=True)
class Resampled:
    """A metric, or a difference of metrics, with its values on the resamples.

    Attributes:
        value: Value on the data itself.
        draws: Value on each resample, shape (resamples,).
        clusters: Number of independent clusters of equal size that would say as much, at least one.
        n: Number of items.
        worth: Counts of independent answers, right or wrong, that say as much.
        worst: Value that it may have on clusters that were not seen.
        classes: Classes of items that the value is the sum of.
        scale: Factor by which the bounds of ``worth`` are multiplied.
    """

    value: float
    draws: Floats
    clusters: int
    n: int
    worth: Proportion | PairedDifference
    worst: float
    classes: ClassParts
    scale: float = 1.0

    def estimate(self, alpha: float) -> Estimate:
        """Expanded percentiles, at least as wide as the bounds of ``worth``; see the module."""
        like = self.worth.estimate(alpha)
        low = min(self.value, self._unseen.low(alpha), self.scale * like.low)
        high = max(self.value, self.scale * like.high)
        if self.clusters >= 2:
            left, right = self.percentiles(alpha)
            low, high = min(low, left), max(high, right)
        return Estimate(value=self.value, low=low, high=high, method=Method.BOOTSTRAP)

    def percentiles(self, alpha: float) -> tuple[float, float]:
        """Expanded percentiles of the resamples, for two clusters or more."""
        tail = expanded_tail(1.0 - 2.0 * alpha, self.clusters)
        left, right = np.quantile(self.draws, [tail, 1.0 - tail])
        return float(left), float(right)

    def p_below(self, threshold: float) -> float:
        """The level at which the upper bound would come down to ``threshold``."""
        if self.clusters < 2 or self.value >= threshold:
            return 1.0
        above = int(np.count_nonzero(self.draws >= threshold))
        share = (1 + above) / (1 + self.draws.size)
        shrunk = math.sqrt((self.clusters - 1) / self.clusters)
        level = float(stdtr(self.clusters - 1, float(ndtri(share)) * shrunk))
        return max(level, self.worth.p_below(threshold / self.scale))

    def needed(self, threshold: float, alpha: float) -> int | None:
        """What ``worth`` needs, and clusters enough not to hide what would be too bad."""
        answers = self.worth.needed(threshold / self.scale, alpha)
        if answers is None:
            return None
        times = answers / self.worth.n
        if self.worst < threshold < self.value:
            times = max(times, self._unseen.times(threshold, alpha))
        return math.ceil(times * self.n * (1.0 - _ROUNDING)) if times <= FARTHEST else None

    @property
    def _unseen(self) -> Unseen:
        losses = self.classes.parts - self.worst * self.classes.most
        return Unseen(self.value, losses, self.classes.clusters)


def share(
    value: float, draws: Floats, classes: ClassParts, *, clusters: int, n: int, least: float
) -> Resampled:
    """A metric.

    Args:
        value: Value on the data itself.
        draws: Value on each resample, shape (resamples,).
        classes: Classes of items that the value is the sum of.
        clusters: Number of independent clusters of equal size that would say as much.
        n: Number of items.
        least: Variance that it would have if items were independent; 0 where that is not known.
    """
    variance = max(float(draws.var()), least)
    worth = _worth(value * (1.0 - value), variance, clusters=clusters)
    worth_of = Proportion(value * worth, worth)
    return Resampled(value, draws, clusters, n, worth_of, worst=0.0, classes=classes)


def difference(ours: Resampled, theirs: Resampled, changes: Floats, *, least: float) -> Resampled:
    """The difference of two metrics.

    Args:
        ours: Metric of the candidate.
        theirs: Metric of the champion, on the same resamples.
        changes: Candidate minus champion of each item, shape (items,).
        least: Variance that it would have if items were independent; 0 where that is not known.
    """
    value, draws = ours.value - theirs.value, ours.draws - theirs.draws
    size = float(np.abs(changes).mean())
    scale = float(np.square(changes).mean()) / size if size > 0.0 else 1.0
    net = max(-1.0, min(1.0, value / scale))
    changed = min(1.0, max(size / scale, abs(net)))
    variance = max(float(draws.var()), least) / scale**2
    worth = _worth(changed - net**2, variance, clusters=ours.clusters)
    lost, gained = (worth * max(0.0, changed + sign * net) / 2.0 for sign in (-1.0, 1.0))
    paired = PairedDifference(lost, gained, worth)
    parts = ours.classes.parts - theirs.classes.parts
    classes = replace(theirs.classes, parts=parts)
    return Resampled(
        value, draws, ours.clusters, ours.n, paired, worst=-1.0, classes=classes, scale=scale
    )


def _worth(spread: float, variance: float, *, clusters: int) -> float:
    """How many independent answers of this spread have that variance together."""
    if spread <= 0.0 or variance <= _ROUNDING or clusters < 2:
        return float(clusters)
    few = float(ndtri(0.95) / stdtrit(clusters - 1, 0.95)) ** 2
    return max(1.0, spread / variance * few)


def metric(scores: Scores, counts: Floats | None = None) -> Floats:
    """1 - error of each resample; 1 where there was nothing to find and nothing was found."""
    with np.errstate(invalid="ignore"):
        errors = scores.aggregate(counts)
    value: Floats = 1.0 - np.nan_to_num(errors, nan=0.0)
    return value


def resample(models: Sequence[Scores], cluster_of: Ints, *, seed: int) -> Floats:
    """The metric of several models on the same resamples, shape (models, resamples).

    Args:
        models: Scores of each model, of the same items in the same order.
        cluster_of: Number of each item's cluster, from 0.
        seed: Seed of the resampling.
    """
    clusters = int(cluster_of.max()) + 1
    resamples = min(_MOST, max(_FEWEST, _CELLS // clusters))
    blocks = _resample_counts(
        cluster_of, resamples=resamples, generator=np.random.default_rng(seed)
    )
    return np.concatenate(
        [np.stack([metric(scores, counts) for scores in models]) for counts in blocks], axis=1
    )
