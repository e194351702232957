"""What error functions return: errors per stimulus that can be aggregated over any resample.

Aggregates are computed from resample counts, a matrix of shape (resamples, stimuli), as matrix
products: no loop over resamples, and statistics that are not means (a ratio of sums, a macro F1)
are recomputed for each resample as they should be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def _each_once(counts: Floats | None, stimuli: int) -> Floats:
    return np.ones((1, stimuli)) if counts is None else counts


@dataclass(frozen=True)
class MeanScores:
    """Errors whose aggregate is their mean.

    Attributes:
        errors: float64, shape (stimuli,).
    """

    errors: Floats

    @property
    def per_stimulus(self) -> Floats:
        """Error of each stimulus, shape (stimuli,)."""
        return self.errors

    def aggregate(self, counts: Floats | None = None) -> Floats:
        """Mean error of each resample, shape (resamples,)."""
        drawn = _each_once(counts, self.errors.size)
        mean: Floats = (drawn @ self.errors) / drawn.sum(axis=1)
        return mean


@dataclass(frozen=True)
class RatioScores:
    """Errors whose aggregate is a ratio of sums, such as the mean over all tokens.

    Attributes:
        numerators: float64, shape (stimuli,).
        denominators: Positive float64, shape (stimuli,).
    """

    numerators: Floats
    denominators: Floats

    @property
    def per_stimulus(self) -> Floats:
        """Error of each stimulus on its own, shape (stimuli,)."""
        ratio: Floats = self.numerators / self.denominators
        return ratio

    def aggregate(self, counts: Floats | None = None) -> Floats:
        """Sum of numerators over sum of denominators of each resample, shape (resamples,)."""
        drawn = _each_once(counts, self.numerators.size)
        ratio: Floats = (drawn @ self.numerators) / (drawn @ self.denominators)
        return ratio


@dataclass(frozen=True)
class MacroF1Scores:
    """1 - macro F1, recomputed from the confusion counts of each resample.

    The mean is over the classes that are expected or predicted at least once in the resample
    (scikit-learn's default). A prediction outside the classes (-1) misses its true class and
    belongs to none. One stimulus on its own is 0 when right and 1 when wrong.

    Attributes:
        expected: Class index, int64, shape (stimuli,).
        predicted: Class index or -1, int64, shape (stimuli,).
        classes: Number of classes.
    """

    expected: Ints
    predicted: Ints
    classes: int

    @property
    def per_stimulus(self) -> Floats:
        """0 where the prediction is right and 1 where it is wrong, shape (stimuli,)."""
        wrong: Floats = (self.expected != self.predicted).astype(np.float64)
        return wrong

    def aggregate(self, counts: Floats | None = None) -> Floats:
        """1 - macro F1 of each resample, shape (resamples,)."""
        f1, occurs = self._f1(_each_once(counts, self.expected.size))
        error: Floats = 1.0 - f1.sum(axis=1) / occurs.sum(axis=1)
        return error

    def by_class(self) -> tuple[Floats, float]:
        """What each class adds to macro F1, shape (classes,), and what a class can add at most."""
        f1, occurs = self._f1(_each_once(None, self.expected.size))
        most = 1.0 / float(occurs.sum())
        return f1[0] * most, most

    def _f1(self, drawn: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """F1 of each class, and whether it occurs, both of shape (resamples, classes)."""
        index = np.arange(self.classes)
        is_true = (self.expected[:, None] == index).astype(np.float64)
        is_predicted = (self.predicted[:, None] == index).astype(np.float64)
        hits = drawn @ (is_true * is_predicted)
        seen = drawn @ (is_true + is_predicted)
        f1 = np.divide(2 * hits, seen, out=np.zeros_like(hits), where=seen > 0)
        return f1, seen > 0


@dataclass(frozen=True)
class WholeSetScores:
    """One error for the whole set, from a function that does not tell the stimuli apart.

    Resamples of it cannot be computed: every resample gets the same number. `can_resample` says so,
    and no confidence interval is made of it.

    Attributes:
        error: The error of the set.
        stimuli: Number of stimuli in the set.
    """

    error: float
    stimuli: int

    @property
    def per_stimulus(self) -> Floats:
        """The error of the set, repeated for each stimulus, shape (stimuli,)."""
        return np.full(self.stimuli, self.error)

    def aggregate(self, counts: Floats | None = None) -> Floats:
        """The error of the set for each resample, shape (resamples,)."""
        return np.full(1 if counts is None else len(counts), self.error)


@dataclass(frozen=True)
class WeightedScores:
    """A weighted sum of the scores of several error functions on the same stimuli.

    Attributes:
        parts: One `Scores` per error function.
        weights: One weight per part.
    """

    parts: tuple[Scores, ...]
    weights: tuple[float, ...]

    @property
    def per_stimulus(self) -> Floats:
        """Weighted sum of the parts' errors, shape (stimuli,)."""
        return self._weighted([part.per_stimulus for part in self.parts])

    def aggregate(self, counts: Floats | None = None) -> Floats:
        """Weighted sum of the parts' aggregates, shape (resamples,)."""
        return self._weighted([part.aggregate(counts) for part in self.parts])

    def _weighted(self, rows: Sequence[Floats]) -> Floats:
        total: Floats = np.asarray(self.weights) @ np.stack(rows)
        return total


def can_resample(scores: Scores) -> bool:
    """Whether ``scores`` tells the stimuli apart, so that resampling them means something."""
    if isinstance(scores, WeightedScores):
        return all(can_resample(part) for part in scores.parts)
    return not isinstance(scores, WholeSetScores)


class Scores(Protocol):
    """The errors of one model on one set of stimuli."""

    @property
    def per_stimulus(self) -> NDArray[np.float64]:
        """Error of each stimulus, shape (stimuli,), finite, lower is better."""

    def aggregate(self, counts: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """The error of the whole set, or of resamples of it.

        Args:
            counts: How often each stimulus was drawn, shape (resamples, stimuli); None: each once.

        Returns:
            float64, shape (resamples,); shape (1,) when ``counts`` is None.
        """
