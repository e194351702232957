"""What a look at a window gives: findings, and at most one alarm that has them as its evidence."""

from __future__ import annotations

from enum import StrEnum

from pydantic import AwareDatetime, BaseModel, ConfigDict


class Signal(StrEnum):
    """What a finding is about."""

    QUALITY = "quality"
    INPUTS = "inputs"
    EFFORT = "effort"
    DISAGREEMENT = "disagreement"
    CONFIDENCE = "confidence"


class Cluster(BaseModel):
    """Requests of one kind that became more.

    Attributes:
        share_before: Their share in the reference.
        share_now: Their share in the window.
        examples: Texts nearest to the middle of the cluster.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    share_before: float
    share_now: float
    examples: tuple[str, ...]


class DriftFinding(BaseModel):
    """The outcome of one test on one window.

    Attributes:
        signal: What it is about.
        test: Name of the test.
        is_alarm: Whether it alone is a reason for an alarm.
        sentence: What was seen, in words with its numbers.
        p_value: P-value; None for tests that have none.
        value: Statistic, or estimate; None where there is none.
        limit: Value beyond which it is an alarm; for p-values below which.
        clusters: Requests that became more; of ``inputs``, after an alarm.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    signal: Signal
    test: str
    is_alarm: bool
    sentence: str
    p_value: float | None = None
    value: float | None = None
    limit: float | None = None
    clusters: tuple[Cluster, ...] = ()


class Alarm(BaseModel):
    """A reason to act: one, however many tests see it, until somebody has acted.

    Attributes:
        window: Number of the window that raised it.
        time: End of that window.
        signals: What it is about, each signal once.
        evidence: The findings that are alarms.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    window: int
    time: AwareDatetime
    signals: tuple[Signal, ...]
    evidence: tuple[DriftFinding, ...]


class Look(BaseModel):
    """What a window gave.

    Attributes:
        window: Number of the window.
        start: Time of its first moment.
        end: The first moment after it.
        requests: Number of its requests.
        labels: Number of its labels that were drawn at random.
        findings: Every test's outcome.
        alarm: The alarm that it raised; None while nothing is wrong, and while an earlier alarm is
            still open.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    window: int
    start: AwareDatetime
    end: AwareDatetime
    requests: int
    labels: int
    findings: tuple[DriftFinding, ...]
    alarm: Alarm | None = None
