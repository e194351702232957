"""Requests and tokens a minute, by API key: token buckets in the memory of one gateway process.

A bucket holds a minute's worth and fills evenly. Tokens are known when an answer has ended, so they
are taken then: a key that has used more than it had waits until its bucket is above zero again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

_MINUTE_S = 60.0
_MOST_KEYS = 100_000


@dataclass(frozen=True, slots=True)
class Quota:
    """What a key may use; None is no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float

    def fill(self, size: float, now: float) -> None:
        self.left = min(size, self.left + (now - self.at) * size / _MINUTE_S)
        self.at = now


class Quotas:
    """Counts what keys use.

    Attributes:
        share: This process's part of the limits, where several gateways share the traffic; it may
            change, as gateways come and go.
    """

    def __init__(self, share: float = 1.0) -> None:
        self.share = share
        self._buckets: OrderedDict[tuple[str, str], _Bucket] = OrderedDict()

    def admit(self, quotas: Sequence[tuple[str, Quota]], *, now: float) -> float:
        """Count one request, if it may be made: one that is refused costs nobody anything.

        Args:
            quotas: Each quota that it counts for, with whose it is.
            now: Monotonic time, seconds.

        Returns:
            0, or the seconds after which to try again.
        """
        wait_s = max((self._wait_s(key, quota, now) for key, quota in quotas), default=0.0)
        if wait_s > 0:
            return wait_s
        for key, quota in quotas:
            requests = self._bucket(key, "requests", quota.requests_per_minute, now)
            if requests is not None:
                requests.left -= 1
        return 0.0

    def _wait_s(self, key: str, quota: Quota, now: float) -> float:
        tokens = self._bucket(key, "tokens", quota.tokens_per_minute, now)
        if tokens is not None and tokens.left <= 0:
            size = self._size(quota.tokens_per_minute)
            return max(1.0, (1 - tokens.left) * _MINUTE_S / size)
        requests = self._bucket(key, "requests", quota.requests_per_minute, now)
        if requests is not None and requests.left < 1:
            return (1 - requests.left) * _MINUTE_S / self._size(quota.requests_per_minute)
        return 0.0

    def use(self, key: str, quota: Quota, tokens: int, *, now: float) -> None:
        """Take the tokens of an answer."""
        bucket = self._bucket(key, "tokens", quota.tokens_per_minute, now)
        if bucket is not None:
            bucket.left -= tokens

    def _size(self, limit: int | None) -> float:
        return max(1.0, (limit or 0) * self.share)

    def _bucket(self, key: str, kind: str, limit: int | None, now: float) -> _Bucket | None:
        if limit is None:
            return None
        size = self._size(limit)
        bucket = self._buckets.setdefault((key, kind), _Bucket(size, now))
        self._buckets.move_to_end((key, kind))
        while len(self._buckets) > _MOST_KEYS:
            self._buckets.popitem(last=False)
        bucket.fill(size, now)
        return bucket
