"""Where a loop stands: a small document that is written after every decision."""

from __future__ import annotations

from enum import StrEnum

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field


class Reason(StrEnum):
    """What started a run."""

    CADENCE = "cadence"
    SIGNAL = "signal"
    CHANGE = "change"
    PERSON = "person"


class LoopStage(StrEnum):
    """What a run is at. Every stage but the last two waits for a job of the stage's name."""

    BLEND = "blend"
    GATE = "gate"
    TRAIN = "train"
    BLEND_TRAINED = "blend-trained"
    GATE_TRAINED = "gate-trained"
    APPROVAL = "approval"
    SHIP = "ship"


class RunEnd(StrEnum):
    """How a run ended. In all but the first the old version stays."""

    SHIPPED = "shipped"
    NOT_PASSED = "not-passed"
    NOT_SHIPPED = "not-shipped"
    NOT_APPROVED = "not-approved"
    FAILED = "failed"


class Trigger(BaseModel):
    """A reason to run, with its evidence.

    Attributes:
        key: What tells it from others: a trigger that has run does not run again.
        reason: What kind of reason it is.
        time: Time at which it arose.
        evidence: What was seen, in words with its numbers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    reason: Reason
    time: AwareDatetime
    evidence: str


class LoopRun(BaseModel):
    """A run that has begun.

    Attributes:
        number: Number of the run, from 1.
        trigger: Reason for it.
        started: Time at which it began.
        stage: What it is at.
        since: Time at which that stage began.
        candidate: Variant that may be shipped; None before there is one.
        notes: What each stage came to, in order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    trigger: Trigger
    started: AwareDatetime
    stage: LoopStage = LoopStage.BLEND
    since: AwareDatetime
    candidate: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def job(self) -> str:
        """Key of the job of its stage: the same job whoever asks for it, and how often."""
        return f"run-{self.number}-{self.stage}"


class EndedRun(BaseModel):
    """A run that has ended.

    Attributes:
        run: The run as it was at its last stage.
        end: How it ended.
        ended: Time at which it did.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: LoopRun
    end: RunEnd
    ended: AwareDatetime


class LoopState(BaseModel):
    """All that a loop remembers.

    Attributes:
        current: The run that has begun and not ended.
        history: Ended runs, the oldest first.
        seen: Keys of the triggers that have run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    current: LoopRun | None = None
    history: tuple[EndedRun, ...] = ()
    seen: frozenset[str] = Field(default=frozenset())
