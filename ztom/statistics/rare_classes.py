"""What has not been seen may be there all the same: how low the truth may lie for that alone.

A share 1 - p of a class's clusters stays out of the data with probability p^G, G being the clusters
of the class, and shares of several classes at once with the product of these. Were all of them as
bad as can be, the truth would be

    value - sum over classes of (1 - p_c) l_c,     l_c = what class c can lose,

and it may be as low as that is at its least where the product of p_c^G_c is alpha. The least has

    p_c = min(1, lambda G_c / l_c),

by Lagrange's rule, lambda being what the product asks for: the classes that lose most a cluster
come first. Where a metric is a mean there is one class, and p = alpha^(1/G). Where classes are of
one size and lose the same, so is it with all their clusters together: 77 classes of 13 cost no more
than 1,000 items. A class of one item may lose 1 - alpha of what it adds, and others nothing then.

It is a joint bound at alpha. Each class at its own worst, p_c = alpha^(1/G_c) at once, would be
right too, and useless: identical answers to 77 classes of 13 would be shown to be no worse than
0.21 below. The worst class alone would be too high where several are rare.

Not only what a class misses is covered but what it is given wrongly, too: m items of large classes
that are taken for a rare one of n leave n / (n + m / 2) of its F1, and m of its own that are missed
leave less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ztom.statistics.proportions import Floats


@dataclass(frozen=True)
class Unseen:
    """A value with what each class of items can take from it.

    Attributes:
        value: Value on the data.
        losses: Loss of the value if all of a class were as bad as can be, not negative,
            shape (classes,).
        clusters: Number of independent clusters of each class, positive, shape (classes,).
    """

    value: float
    losses: Floats
    clusters: Floats

    def low(self, alpha: float) -> float:
        """The lowest truth of which the bad part stays unseen with probability alpha."""
        ratios, losses, clusters = self._sorted()
        if not ratios.size:
            return self.value
        logs = (math.log(alpha) + np.cumsum(clusters * np.log(ratios))) / np.cumsum(clusters)
        seen = np.minimum(1.0, _first(np.exp(logs), ratios) / ratios)
        return self.value - float(losses @ (1.0 - seen))

    def times(self, threshold: float, alpha: float) -> float:
        """How many times the clusters it takes for `low` to reach ``threshold``.

        Args:
            threshold: Below the value.
            alpha: Level of the bound.
        """
        ratios, losses, clusters = self._sorted()
        room = self.value - threshold
        if room >= losses.sum():
            return 0.0
        level = _first((np.cumsum(losses) - room) / np.cumsum(clusters), ratios)
        hidden = float(clusters @ np.log(np.maximum(1.0, ratios / level)))
        return -math.log(alpha) / hidden

    def _sorted(self) -> tuple[Floats, Floats, Floats]:
        """Loss a cluster, losses and clusters of the classes that can lose, highest first."""
        order = np.argsort(-self.losses / self.clusters, kind="stable")
        order = order[self.losses[order] > 0.0]
        losses, clusters = self.losses[order], self.clusters[order]
        return losses / clusters, losses, clusters


def _first(levels: Floats, ratios: Floats) -> float:
    """The lambda of the first k classes that leaves the next one, and so all others, alone."""
    alone = levels >= np.append(ratios[1:], 0.0)
    return float(levels[int(np.argmax(alone))])
