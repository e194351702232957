"""What moved: which kinds of requests became more, with examples.

Asked only after an alarm, and no test: scores of a classifier, pooled over its folds, would alarm
on 13 % of unchanged windows. A ridge regression tells the window's texts from those of the
reference; the ones that it is surest of are clustered, and a cluster is told where its share has
grown by more than chance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ztom.drift.findings import Cluster
from ztom.statistics.two_samples import Floats

_FOLDS = 5
_RIDGE = 1.0
#: Texts of the window above this quantile of the reference's scores are looked at.
_TYPICAL = 0.9
_MOST_CLUSTERS = 6
_FEWEST = 5  # texts of a cluster
_CHANCE = 0.01


def grown_clusters(
    reference: Floats, window: Floats, texts: Sequence[str], *, examples: int, seed: int
) -> tuple[Cluster, ...]:
    """Clusters of the window's texts that grew, the most grown first.

    Args:
        reference: Vectors of the reference's texts, shape (n, dimensions).
        window: Vectors of the window's texts, shape (m, dimensions).
        texts: Texts of the window, shape (m,).
        examples: Number of texts to tell of each.
        seed: Seed of folds and clusters.
    """
    from scipy.cluster.vq import kmeans2  # takes a moment

    rng = np.random.default_rng(seed)
    scores = _scores(np.concatenate([reference, window]), len(reference), rng)
    surest = scores[len(reference) :] > np.quantile(scores[: len(reference)], _TYPICAL)
    members = window[surest]
    count = min(_MOST_CLUSTERS, len(members) // _FEWEST)
    if count == 0:
        return ()
    with np.errstate(all="ignore"):
        centers, labels = kmeans2(members, count, minit="++", seed=rng, missing="warn")
    clusters = []
    for index, center in enumerate(centers):
        own = members[labels == index]
        if len(own) < _FEWEST:
            continue
        cluster = _cluster(center, own, reference, window, texts, examples=examples)
        if cluster is not None:
            clusters.append(cluster)
    return tuple(sorted(clusters, key=lambda c: c.share_before - c.share_now))


def _cluster(
    center: Floats,
    own: Floats,
    reference: Floats,
    window: Floats,
    texts: Sequence[str],
    *,
    examples: int,
) -> Cluster | None:
    """What lies as near to a center as its members do; None where that did not grow."""
    from scipy.stats import fisher_exact  # takes a moment

    radius = np.quantile(_squares(own, center), 0.9)
    before, now = (_squares(vectors, center) <= radius for vectors in (reference, window))
    table = [[now.sum(), (~now).sum()], [before.sum(), (~before).sum()]]
    if fisher_exact(table, alternative="greater").pvalue > _CHANCE:
        return None
    nearest = np.argsort(_squares(window, center), kind="stable")
    return Cluster(
        share_before=float(before.mean()),
        share_now=float(now.mean()),
        examples=tuple(texts[place] for place in nearest[:examples]),
    )


def _scores(vectors: Floats, split: int, rng: np.random.Generator) -> Floats:
    """Scores of each vector, by a regression that did not see it, shape (n + m,)."""
    target = np.where(np.arange(len(vectors)) < split, -1.0, 1.0)
    weight = np.where(target > 0, 1.0 / (target > 0).mean(), 1.0 / (target < 0).mean()) / 2.0
    folds = rng.permutation(len(vectors)) % _FOLDS
    scores = np.empty(len(vectors))
    for fold in range(_FOLDS):
        seen = folds != fold
        middle = vectors[seen].mean(axis=0)
        centered = vectors[seen] - middle
        weighted = centered * weight[seen, None]
        ridge = _RIDGE * seen.sum() / 100.0 * np.eye(vectors.shape[1])
        slope = np.linalg.solve(weighted.T @ centered + ridge, weighted.T @ target[seen])
        scores[~seen] = (vectors[~seen] - middle) @ slope
    return scores


def _squares(vectors: Floats, center: Floats) -> Floats:
    return np.asarray(((vectors - center) ** 2).sum(axis=1))
