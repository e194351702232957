"""Whose answers count in a release: no caller more than their share of the traffic before it.

A caller is an API key, by a keyed hash. Of two thousand answers to one key and fifty to each of
four others, those of the one are no evidence of how the variant does with users; they may be made
to look bad, or good. Caller k brought the share s_k of the traffic before, and a_j answers went to
caller j since. An answer to k is counted while the number n_k of those counted before is at most

    n_k <= s_k / (1 - s_k) * sum_(j != k) min(a_j, s_j * V_k),

so n_k is no more than the share s_k of itself and what went to the others. V_k is a bound on the
volume a_j / s_j that others seem to bring: the largest that callers with a third of their shares
reach, those who ask nothing included. So keys that act together do not vouch for each other, short
of a third.

Whether an answer counts is decided before anything is known of it, from who asked and from how many
answers went to whom before: what is counted is a series like any other for the tests of a release
(``docs/statistics.md``).

Shares are of stable's answers in the week before the release. A key that had none counts for
nothing; where there is one key alone, what it does decides. With too little traffic on record
nobody has a share: then every key that asks counts like the others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

#: Answers before a release that say who brings how much of the traffic.
ENOUGH: Final = 100
#: Callers with a share of their own at most; those with the least traffic have none.
MOST_CALLERS: Final = 256
#: Share of the others that has to bring a volume of traffic for it to be taken as real.
_VOUCHING: Final = 1.0 / 3.0


class CallerShares(BaseModel):
    """Who brought how much of an alias' traffic before a release.

    Attributes:
        requests: Number of requests that stable answered, by caller.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests: dict[str, Annotated[int, Field(ge=0)]] = {}

    @classmethod
    def of(cls, requests: Mapping[str, int]) -> CallerShares:
        """The shares of those callers who brought the most."""
        return cls(requests=dict(Counter(requests).most_common(MOST_CALLERS)))

    @property
    def known(self) -> bool:
        """Whether there was enough traffic to speak of shares."""
        return sum(self.requests.values()) >= ENOUGH

    def text(self) -> str:
        """Who decides, in a sentence."""
        if not self.known:
            return "too little traffic before it is on record: every key counts like the others"
        if len(self.requests) == 1:
            return "one key brought all of the traffic before it: that key alone decides"
        return (
            f"{len(self.requests):,} keys brought the traffic before it: each counts at most for "
            "its share"
        )


class CallerCap:
    """Which answers of one side count; one for each side, step and gateway process.

    Args:
        shares: Shares of the traffic before the release.
        counted: Number of answers that were counted before, by caller.
        arrived: Number of answers that there were before, by caller.
    """

    def __init__(
        self,
        shares: CallerShares,
        counted: Mapping[str, int] | None = None,
        arrived: Mapping[str, int] | None = None,
    ) -> None:
        self._shares = shares
        self._counted: Counter[str] = Counter(counted or {})
        self._arrived: Counter[str] = Counter(arrived or {})
        self._most: dict[str, float] = {}

    def admits(self, caller: str) -> bool:
        """Whether an answer to a caller counts; if it does, it is counted.

        Args:
            caller: Keyed hash of the caller.
        """
        weights = self._weights(caller)
        if caller not in weights:
            return False
        counted = self._counted[caller]
        # it only grows with what arrives, so it is worked out only where it may matter
        if counted > self._most.get(caller, 0.0):
            self._most[caller] = _most(caller, weights, self._arrived)
        self._arrived[caller] += 1
        if counted > self._most.get(caller, 0.0):
            return False
        self._counted[caller] += 1
        return True

    def _weights(self, caller: str) -> Mapping[str, int]:
        """What each caller who counts weighs: the traffic before, or alike."""
        if self._shares.known:
            return self._shares.requests
        seen = dict.fromkeys(self._arrived, 1)
        return seen if len(seen) >= MOST_CALLERS else {**seen, caller: 1}


def _most(caller: str, weights: Mapping[str, int], arrived: Mapping[str, int]) -> float:
    """How many answers to a caller may have been counted for the next one to count."""
    others = {other: weight for other, weight in weights.items() if other != caller and weight}
    whole = sum(others.values())
    if not whole:
        return math.inf
    volumes = sorted(
        ((arrived.get(other, 0) / weight, weight) for other, weight in others.items()), reverse=True
    )
    reached, bound = 0, 0.0
    for volume, weight in volumes:
        reached += weight
        if reached >= _VOUCHING * whole:
            bound = volume
            break
    beside = sum(weight * min(volume, bound) for volume, weight in volumes)
    return weights[caller] / whole * beside
