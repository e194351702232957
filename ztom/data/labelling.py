"""Which requests to label: a hundred that were chosen are worth what four hundred more would be.

A part is drawn at random, because only such labels say how good the model is
(`ztom.drift.quality`); the rest is chosen among the answers that the model is least sure of, spread
over what they mean, so that a new kind of request is asked about and not asked about a hundred
times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ztom.errors import ConfigError
from ztom.statistics.two_samples import Floats

_CANDIDATES = 4  # unsure ones a label


@dataclass(frozen=True)
class Selection:
    """Places of the requests to label.

    Attributes:
        random: Those drawn at random, in order, shape (random,).
        chosen: Those chosen for what they would teach, in order, shape (chosen,).
    """

    random: NDArray[np.int64]
    chosen: NDArray[np.int64]


def select(
    confidence: Floats, vectors: Floats, *, random: int, chosen: int, seed: int
) -> Selection:
    """Requests to label.

    Args:
        confidence: How sure the model is of each answer, on any scale, shape (requests,).
        vectors: Embedding of each request, shape (requests, dimensions).
        random: Number to draw at random; all there are where there are fewer.
        chosen: Number to choose among the others.
        seed: Seed of the draw and of the clusters.

    Raises:
        ConfigError: A number is negative, or there is not one vector a request.
    """
    if min(random, chosen) < 0 or len(confidence) != len(vectors):
        raise ConfigError(
            "requests to label cannot be selected",
            got=f"{random} random, {chosen} chosen, {len(confidence)} requests and "
            f"{len(vectors)} vectors",
            expected="numbers of at least 0, and a vector a request",
        )
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.permutation(len(confidence))[:random])
    rest = np.setdiff1d(np.arange(len(confidence)), drawn)
    unsure = rest[np.argsort(confidence[rest], kind="stable")][: _CANDIDATES * chosen]
    return Selection(drawn, np.sort(_spread(unsure, vectors, chosen, rng)))


def _spread(
    places: NDArray[np.int64], vectors: Floats, count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """The least sure one of each of so many clusters; ``places`` has the least sure first."""
    if len(places) <= count or count == 0:
        return places[:count]
    from scipy.cluster.vq import kmeans2  # takes a moment

    with np.errstate(all="ignore"):
        _, labels = kmeans2(vectors[places], count, minit="++", seed=rng, missing="warn")
    _, first = np.unique(labels, return_index=True)
    taken = places[np.sort(first)]
    # an empty cluster leaves a label over: the least sure of the others
    others = places[~np.isin(places, taken)]
    return np.concatenate([taken, others[: count - len(taken)]])
