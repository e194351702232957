"""Can a suite be passed at all? What keeps it from that, however good the candidate is.

A candidate that answers as the champion does is shown to be no worse than what its items may hide
(`ztom.statistics.rare_classes`), 1 - alpha^(1/G) for G independent clusters of one size. Where that
is more than the margin, it stays inconclusive. Floors and rates are not looked at.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np

from ztom.evaluation.gate.align import clusters_of, effective_clusters
from ztom.evaluation.suites.suite import Layer, MetricName, Suite
from ztom.statistics.planning import FARTHEST
from ztom.statistics.rare_classes import Unseen

_ROUNDING = 1e-9


def warnings(suite: Suite) -> Iterator[str]:
    """Why nothing passes the suite, in words; nothing where something can."""
    config, n = suite.config, len(suite.items)
    if n < config.minimum_n:
        yield f"fewer items than minimum_n ({config.minimum_n}): they decide nothing"
    if config.layer is not Layer.TASK or not n:
        return
    equal = _of_an_equal(suite)
    shown = -equal.low(config.alpha)
    if shown > config.margin + _ROUNDING:
        clusters = effective_clusters(clusters_of(suite.items))
        yield (
            f"no candidate that is as good as its champion can pass: {n:,} items, worth "
            f"{clusters:,} independent ones of equal size, show no margin below {shown:.3g}, and "
            f"{config.margin:g} is asked for; {_would_do(suite, equal)}"
        )


def _of_an_equal(suite: Suite) -> Unseen:
    """The difference to the champion, 0, with what may be hidden in it."""
    items = [1.0 * len(suite.items)]
    if suite.config.metric is MetricName.MACRO_F1:
        items = [float(n) for n in Counter(str(item.target) for item in suite.items).values()]
    share = effective_clusters(clusters_of(suite.items)) / len(suite.items)
    return Unseen(0.0, np.full(len(items), 1.0 / len(items)), share * np.array(items))


def _would_do(suite: Suite, equal: Unseen) -> str:
    config = suite.config
    if config.margin <= 0.0:
        return "no number of items shows a margin of 0"
    times = equal.times(-config.margin, config.alpha)
    if times > FARTHEST:
        return "no number of items in sight would do"
    return f"about {math.ceil(times * len(suite.items) * (1.0 - _ROUNDING)):,} items would do"
