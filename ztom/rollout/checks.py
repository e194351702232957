"""What the observations of a step say about a candidate: one finding per check.

**Latency** is tested as the share of slow answers: those that take longer than ``max_ratio`` times
stable's p95, rounded up to a boundary of the histogram. Stable's p95 is settled once in a release,
as soon as stable has answered 100 requests, and only answers after that count, of both sides, so
that the threshold does not depend on what is compared by it. Stable's own share of slow answers is
about 5 % at most when it is settled, and moves with the load of the day; the candidate's may exceed
it by the margin.

**At canary 100 %** stable answers nobody. Its counts of the release's earlier steps stand in: the
same variant and the same users, but an earlier time, so a change of the load or of the questions
since then is not told from a change by the candidate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field

from ztom.rollout.observations import (
    ArmCounts,
    LatencyHistogram,
    StepObservations,
    boundary_at_or_above,
)
from ztom.rollout.plan import ReleaseCheck, ReleaseStep
from ztom.statistics.sequential import SequentialFinding, Sums, compare

#: Stable's answers that settle its p95.
ENOUGH_FOR_P95: Final = 100


class StableP95(BaseModel):
    """The p95 of stable as it was settled, and which answers had come in by then.

    Attributes:
        p95_s: 95th percentile of stable's latencies, seconds.
        step: Index of the step in which it was settled, from 0.
        stable: Histogram of stable's latencies of the release up to then.
        candidate: Histogram of the candidate's latencies of that step up to then.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    p95_s: float = Field(gt=0.0)
    step: int = Field(ge=0)
    stable: LatencyHistogram
    candidate: LatencyHistogram

    @classmethod
    def settle(
        cls, observations: StepObservations, *, earlier: ArmCounts, step: int
    ) -> Self | None:
        """Settle it; None while stable has answered too few.

        Args:
            observations: Observations of the present step.
            earlier: Counts of stable of the steps before it.
            step: Index of the present step, from 0.
        """
        stable = earlier.latency + observations.stable.latency
        p95_s = stable.quantile_s(0.95)
        if p95_s is None or stable.n < ENOUGH_FOR_P95:
            return None
        return cls(p95_s=p95_s, step=step, stable=stable, candidate=observations.candidate.latency)


@dataclass(frozen=True)
class CheckEvidence:
    """What the checks of a step look at.

    Attributes:
        index: Index of the step in the plan, from 0.
        step: Step whose checks are made.
        observations: Observations of the step.
        earlier: Counts of stable of the steps before it.
        p95: 95th percentile of stable, once that is settled.
    """

    index: int
    step: ReleaseStep
    observations: StepObservations
    earlier: ArmCounts
    p95: StableP95 | None


def examine(
    evidence: CheckEvidence, *, pass_alpha: float, fail_alpha: float
) -> dict[ReleaseCheck, SequentialFinding]:
    """Make every check of the step that counts.

    Args:
        evidence: What is known.
        pass_alpha: Risk of each test to pass without cause.
        fail_alpha: Risk of each test to fail without cause.
    """
    checks = evidence.step.checks
    findings = {}
    for check in evidence.step.tests:
        candidate, stable = _sides(check, evidence)
        margin = checks.margin_of(check)
        if margin is None or not (candidate.n or checks.needs_data(check)):
            continue
        findings[check] = compare(
            candidate,
            stable,
            margin=margin,
            alpha=pass_alpha,
            fail_alpha=fail_alpha,
            baseline_grows=evidence.step.has_stable_beside_it,
        )
    return findings


def _sides(check: ReleaseCheck, evidence: CheckEvidence) -> tuple[Sums, Sums]:
    """The candidate's sums, and those they are compared with."""
    observations = evidence.observations
    candidate = observations.candidate
    stable = observations.stable if evidence.step.has_stable_beside_it else evidence.earlier
    if check is ReleaseCheck.ERROR_RATE:
        return candidate.error_sums, stable.error_sums
    if check is ReleaseCheck.EMPTY:
        return candidate.empty_sums, stable.empty_sums
    if check is ReleaseCheck.DISAGREEMENT:
        return observations.compared.sums, observations.floor.sums
    if check is ReleaseCheck.FEEDBACK:
        return candidate.feedback_sums, stable.feedback_sums
    return _slow_shares(evidence)


def _slow_shares(evidence: CheckEvidence) -> tuple[Sums, Sums]:
    """Slow answers of both sides since stable's p95 was settled; nothing before that."""
    p95, limit = evidence.p95, evidence.step.checks.latency
    if p95 is None or limit is None:
        return Sums(), Sums()
    candidate = evidence.observations.candidate.latency
    stable = evidence.observations.stable.latency
    if p95.step == evidence.index:
        candidate = candidate.since(p95.candidate)
        stable = (evidence.earlier.latency + stable).since(p95.stable)
    elif not evidence.step.has_stable_beside_it:
        stable = evidence.earlier.latency.since(p95.stable)
    boundary = boundary_at_or_above(limit.max_ratio * p95.p95_s)
    return candidate.above(boundary), stable.above(boundary)
