"""What is counted of a step of a release: plain sums, so that the counts of all gateways add up.

A gateway writes rows of these; the rows of one step, added up in any order, are the step's
observations. Nothing here holds a prompt, an answer or a user.

Latencies go into a fixed histogram of ten buckets to the decade from 1 ms to 1,000 s: neighbouring
boundaries are a factor of 10^(1/10) = 1.26 apart, with one bucket below and one above. It is fixed
because histograms of the same boundaries add up exactly, and percentiles do not add up at all.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ztom.errors import ConfigError
from ztom.statistics.sequential import Sums

#: Upper boundaries of the buckets in seconds, each included; what lies above the last has a bucket
#: of its own.
BOUNDARIES_S: Final[tuple[float, ...]] = tuple(
    math.pow(10.0, step / 10.0 - 3.0) for step in range(61)
)
#: A bucket's upper boundary divided by its lower one.
BOUNDARY_RATIO: Final = 10.0**0.1
_BUCKETS: Final = len(BOUNDARIES_S) + 1
_EMPTY: Final = (0,) * _BUCKETS

Count = Annotated[int, Field(ge=0, strict=True)]
Total = Annotated[float, Field(ge=0.0, allow_inf_nan=False, strict=True)]


class _Counts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def bucket_of(latency_s: float) -> int:
    """The bucket of a latency in seconds.

    Raises:
        ConfigError: It is not a number, or negative.
    """
    if not latency_s >= 0.0:
        raise ConfigError("a latency is not a time", got=latency_s, expected="0 seconds or more")
    return bisect_left(BOUNDARIES_S, latency_s)


def boundary_at_or_above(latency_s: float) -> int:
    """Index of the lowest boundary that is not below a latency; the last one if all are."""
    return min(bucket_of(latency_s), len(BOUNDARIES_S) - 1)


class LatencyHistogram(_Counts):
    """Latencies, counted by bucket.

    Attributes:
        counts: ``counts[i]`` latencies lie above ``BOUNDARIES_S[i - 1]`` and not above
            ``BOUNDARIES_S[i]``; the last is of those above all.
    """

    counts: Annotated[tuple[Count, ...], Field(min_length=_BUCKETS, max_length=_BUCKETS)] = _EMPTY

    @classmethod
    def of(cls, latencies_s: Iterable[float]) -> Self:
        """Count latencies in seconds.

        Raises:
            ConfigError: One is not a number, or negative.
        """
        counts = list(_EMPTY)
        for latency_s in latencies_s:
            counts[bucket_of(latency_s)] += 1
        return cls(counts=tuple(counts))

    def __add__(self, other: LatencyHistogram) -> LatencyHistogram:
        both = zip(self.counts, other.counts, strict=True)
        return LatencyHistogram(counts=tuple(mine + theirs for mine, theirs in both))

    @property
    def n(self) -> int:
        """Number of latencies."""
        return sum(self.counts)

    def since(self, earlier: LatencyHistogram) -> LatencyHistogram:
        """What came in since an earlier count.

        Counts only grow. A bucket that has shrunk all the same (rows were lost) counts as having
        got nothing, until it has caught up.
        """
        both = zip(self.counts, earlier.counts, strict=True)
        return LatencyHistogram(counts=tuple(max(0, now - then) for now, then in both))

    def above(self, boundary: int) -> Sums:
        """How many lie above ``BOUNDARIES_S[boundary]``, of how many."""
        return Sums(n=self.n, total=float(sum(self.counts[boundary + 1 :])))

    def quantile_s(self, share: float) -> float | None:
        """Latency in seconds that about a share of all does not exceed; None without any.

        Inside a bucket latencies are taken to be spread evenly in the logarithm, which is off by
        less than `BOUNDARY_RATIO`. Above the last boundary nothing is known but that: it is the
        answer there, and the lowest is the answer below it.

        Args:
            share: Above 0 to 1, e.g. 0.95.
        """
        wanted = share * self.n
        if not self.n:
            return None
        for bucket, below in enumerate(accumulate(self.counts)):
            if below >= wanted and self.counts[bucket]:
                break
        if bucket in (0, _BUCKETS - 1):
            return BOUNDARIES_S[0 if bucket == 0 else -1]
        inside = 1.0 - (below - wanted) / self.counts[bucket]
        return BOUNDARIES_S[bucket - 1] * math.pow(BOUNDARY_RATIO, inside)


class ArmCounts(_Counts):
    """What was counted of one side's answers, candidate or stable.

    Attributes:
        requests: Number of requests that it was asked to answer.
        errors: Number of requests that the engine failed (our time-out and a lost reply are
            failures). What a caller caused is no request here: a refusal (4xx), one who left.
        empty: Number of requests that were answered by nothing, or by something malformed; no
            errors.
        latency: Latencies of the requests that were answered, errors excepted: a fast error would
            make the side look fast.
        feedback: Number of answers that users judged, whenever that comes in.
        feedback_error: Sum of the errors of these, each in [0, 1], 0 is good.
    """

    requests: Count = 0
    errors: Count = 0
    empty: Count = 0
    latency: LatencyHistogram = LatencyHistogram()
    feedback: Count = 0
    feedback_error: Total = 0.0

    @model_validator(mode="after")
    def _parts_of_the_whole(self) -> Self:
        if self.errors + self.empty > self.requests:
            raise ValueError(
                f"{self.errors} errors and {self.empty} empty answers of {self.requests} requests"
            )
        if self.latency.n > self.requests - self.errors:
            raise ValueError(
                f"{self.latency.n} latencies of {self.requests} requests, {self.errors} of them "
                "errors"
            )
        Sums(n=self.feedback, total=self.feedback_error)
        return self

    @classmethod
    def of_feedback(cls, error: float) -> Self:
        """One user's judgement, 0 (good) to 1."""
        return cls(feedback=1, feedback_error=error)

    def __add__(self, other: ArmCounts) -> ArmCounts:
        return ArmCounts(
            requests=self.requests + other.requests,
            errors=self.errors + other.errors,
            empty=self.empty + other.empty,
            latency=self.latency + other.latency,
            feedback=self.feedback + other.feedback,
            feedback_error=self.feedback_error + other.feedback_error,
        )

    @property
    def error_sums(self) -> Sums:
        """Errors among requests."""
        return Sums(n=self.requests, total=float(self.errors))

    @property
    def empty_sums(self) -> Sums:
        """Empty and malformed answers among requests."""
        return Sums(n=self.requests, total=float(self.empty))

    @property
    def feedback_sums(self) -> Sums:
        """Errors that users found in answers."""
        return Sums(n=self.feedback, total=self.feedback_error)


class Comparison(_Counts):
    """Two answers each to a number of requests, compared.

    Attributes:
        n: Number of requests.
        disagreement: Sum of the disagreements, each in [0, 1], 0 is the same answer.
    """

    n: Count = 0
    disagreement: Total = 0.0

    @model_validator(mode="after")
    def _within_unit(self) -> Self:
        Sums(n=self.n, total=self.disagreement)
        return self

    def __add__(self, other: Comparison) -> Comparison:
        return Comparison(n=self.n + other.n, disagreement=self.disagreement + other.disagreement)

    @property
    def sums(self) -> Sums:
        """The number and the sum of the observations, as `compare` takes them."""
        return Sums(n=self.n, total=self.disagreement)


class StepObservations(_Counts):
    """All that is counted of one step of a release.

    Attributes:
        candidate: The candidate's answers: mirrored requests in a shadow step, users' in a canary.
        stable: Counts of stable's answers to users in the same time.
        compared: The candidate's answers with stable's to the same requests.
        floor: Disagreement of stable's answers with its own second ones to the same requests: how
            much a model disagrees with itself.
        left_out: Number of answers that were not counted, as their callers had had their share; see
            `ztom.rollout.callers`.
    """

    candidate: ArmCounts = ArmCounts()
    stable: ArmCounts = ArmCounts()
    compared: Comparison = Comparison()
    floor: Comparison = Comparison()
    left_out: Count = 0

    def __add__(self, other: StepObservations) -> StepObservations:
        return StepObservations(
            candidate=self.candidate + other.candidate,
            stable=self.stable + other.stable,
            compared=self.compared + other.compared,
            floor=self.floor + other.floor,
            left_out=self.left_out + other.left_out,
        )
