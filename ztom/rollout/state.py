"""The values of a release: where it stands, what its controller sees, and what it may ask for.

All of them go through JSON unchanged. `ztom.rollout.release` decides on them.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ztom.rollout.checks import StableP95
from ztom.rollout.observations import ArmCounts, StepObservations
from ztom.rollout.plan import ReleaseCheck, ReleasePlan
from ztom.statistics.sequential import SequentialFinding

Percent = Annotated[float, Field(ge=0.0, le=100.0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class ReleaseStatus(StrEnum):
    """Where a release stands; the last three are ends."""

    RUNNING = "running"
    HELD = "held"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"

    @property
    def is_open(self) -> bool:
        """Whether its controller still moves it."""
        return self in (ReleaseStatus.RUNNING, ReleaseStatus.HELD)


class Deployment(StrEnum):
    """Whether the candidate can answer."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"


class Command(StrEnum):
    """What an operator may ask for; without effect once the release has ended.

    Promote skips what is left of the plan, resume gives a held step its time again, rollback says
    that the candidate is bad, and abort takes it away without saying so.
    """

    PROMOTE = "promote"
    ROLLBACK = "rollback"
    RESUME = "resume"
    ABORT = "abort"


class ReleaseEvent(StrEnum):
    """What a record is about."""

    STARTED = "started"
    STEP = "step"
    HELD = "held"
    RESUMED = "resumed"
    REFUSED = "refused"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SetTraffic(_Value):
    """Give the candidate these shares of the alias's requests, copied and answered."""

    kind: Literal["set_traffic"] = "set_traffic"
    shadow_percent: Percent
    canary_percent: Percent


class Promote(_Value):
    """Make the candidate the alias's stable variant, without canary and shadow."""

    kind: Literal["promote"] = "promote"


class RollBack(_Value):
    """Take all traffic from the candidate."""

    kind: Literal["roll_back"] = "roll_back"
    reason: str


class Record(_Value):
    """A row for the audit."""

    kind: Literal["record"] = "record"
    action: ReleaseEvent
    note: str


Action = SetTraffic | Promote | RollBack | Record


class Traffic(_Value):
    """What the routing table says about the candidate.

    Attributes:
        shadow_percent: Percent of the alias's requests that are copied to it.
        canary_percent: Percent of the alias's requests that it answers.
        promoted: Whether it is the alias's stable variant.
    """

    shadow_percent: Percent = 0.0
    canary_percent: Percent = 0.0
    promoted: bool = False

    def is_like(self, other: Traffic) -> bool:
        """Whether both are the same, but for what a table may round."""
        return self.promoted == other.promoted and all(
            math.isclose(mine, theirs, abs_tol=1e-6)
            for mine, theirs in (
                (self.shadow_percent, other.shadow_percent),
                (self.canary_percent, other.canary_percent),
            )
        )


class ReleaseState(_Value):
    """All that has to be kept between two calls; ``ReleaseState()`` is a release not yet begun.

    Attributes:
        status: Status of the release.
        step: Index of the present step in the plan; where it was, once it has ended.
        seconds: Seconds spent in the step with its traffic applied.
        started: Whether the candidate has been ready once.
        settled: Whether it has ended and the traffic is as it left it.
        reason: Reason why it stands where it stands, when that is not the plan's course.
        findings: Findings of the checks that counted in the present step, at the last look.
        earlier: Counts of stable of the steps before the present one.
        p95: 95th percentile of stable, once that is settled.
        left_out: Number of answers of the present step that did not count.
    """

    status: ReleaseStatus = ReleaseStatus.RUNNING
    step: int = Field(default=0, ge=0)
    seconds: Seconds = 0.0
    started: bool = False
    settled: bool = False
    reason: str = ""
    findings: dict[ReleaseCheck, SequentialFinding] = {}
    earlier: ArmCounts = ArmCounts()
    p95: StableP95 | None = None
    left_out: int = Field(default=0, ge=0)

    @property
    def finished(self) -> bool:
        """Whether it has ended."""
        return not self.status.is_open

    def but(self, **changes: object) -> ReleaseState:
        """This state with some fields changed."""
        return self.model_copy(update=changes)


class ReleaseContext(_Value):
    """What the caller sees at one call.

    Attributes:
        plan: Plan of the release, the same at every call.
        observations: Observations so far of the step that the state is at.
        seconds_since_last_tick: Seconds on a monotonic clock, cut to a few ticks by the caller:
            time during which nobody looked is not time in which the candidate was watched.
        deployment: Whether the candidate can answer.
        deployment_note: Reason why it has failed, for the record.
        traffic: Traffic according to the routing table.
        command: Command of the operator, at one call only.
    """

    plan: ReleasePlan
    observations: StepObservations = StepObservations()
    seconds_since_last_tick: Seconds = 0.0
    deployment: Deployment = Deployment.READY
    deployment_note: str = ""
    traffic: Traffic = Traffic()
    command: Command | None = None
