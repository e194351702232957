"""Scores that come in blocks of the stimuli, put together as if they had come at once.

Only for errors that look at each stimulus on its own, so that what a block gives is what the whole
set would have given: means, and ratios of sums. A macro F1 or one error for a whole set cannot be
known from a part.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ztom.errors import ScoringError
from ztom.statistics.scores import (
    Floats,
    MeanScores,
    RatioScores,
    Scores,
    WeightedScores,
)


def stimulus_weights(scores: Scores) -> Floats | None:
    """What each stimulus counts in the aggregate, shape (stimuli,); None where there is no such.

    The aggregate is then the mean of ``per_stimulus`` under these weights.
    """
    if isinstance(scores, MeanScores):
        return np.ones(scores.errors.size)
    if isinstance(scores, RatioScores):
        return scores.denominators
    if isinstance(scores, WeightedScores):
        weights = [stimulus_weights(part) for part in scores.parts]
        first = weights[0]
        same = all(
            w is not None and first is not None and np.array_equal(w, first) for w in weights
        )
        return first if same else None
    return None


def joined(blocks: Sequence[Scores], places: Sequence[Sequence[int]]) -> Scores:
    """The scores of several blocks as one, in the order of the places.

    Args:
        blocks: Scores of each block.
        places: Places of each block's stimuli in the whole set.

    Raises:
        ScoringError: The error cannot be put together from parts.
    """
    order = np.argsort(np.concatenate([np.asarray(block, dtype=np.int64) for block in places]))
    return _joined(blocks, order)


def _joined(blocks: Sequence[Scores], order: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Scores:
    means = [block for block in blocks if isinstance(block, MeanScores)]
    if len(means) == len(blocks):
        return MeanScores(np.concatenate([block.errors for block in means])[order])
    ratios = [block for block in blocks if isinstance(block, RatioScores)]
    if len(ratios) == len(blocks):
        return RatioScores(
            np.concatenate([block.numerators for block in ratios])[order],
            np.concatenate([block.denominators for block in ratios])[order],
        )
    sums = [block for block in blocks if isinstance(block, WeightedScores)]
    if len(sums) == len(blocks):
        columns = zip(*(block.parts for block in sums), strict=True)
        return WeightedScores(tuple(_joined(column, order) for column in columns), sums[0].weights)
    raise ScoringError(
        "an error of the whole set cannot be put together from blocks",
        got=type(blocks[0]).__name__,
    )
