"""Releases: the gradual move of an alias' traffic to a candidate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ztom.rollout.callers import CallerShares
from ztom.rollout.plan import ReleasePlan, parse_plan
from ztom.rollout.release import StepRow, describe
from ztom.rollout.state import Command, ReleaseState, ReleaseStatus
from ztom.wire import examples
from ztom.wire.base import WireAnswer
from ztom.wire.examples import example

if TYPE_CHECKING:
    from ztom.ledger.rollouts import RolloutRecord

_PLAN = parse_plan({"steps": [{"shadow": 100}, {"canary": 25}, {"canary": 100}]})
_CALLERS = CallerShares(requests={"a": 400, "b": 100})


class Release(WireAnswer):
    """A release.

    Attributes:
        id: Eight hexadecimal digits.
        candidate: Digest of the variant that is tried.
        stable: Digest of the variant that it is compared with.
        status: Status of the release; ``promoted``, ``rolled_back`` and ``aborted`` are ends.
        command: Command that somebody gave it and that it has not carried out yet.
        plan: Plan with the steps that are to be passed.
        state: State of its controller.
        steps: One row per step of the plan, with what each check says.
        callers: Whose answers count, in a sentence.
        actor: Name of whoever began it.
        ended_at: Time in ISO 8601, UTC; None while it is under way.
    """

    model_config = example(
        id="9c3e51d7",
        alias="support",
        candidate=examples.DIGEST,
        stable=examples.OTHER_DIGEST,
        status="running",
        command=None,
        plan=_PLAN.model_dump(mode="json"),
        state=ReleaseState().model_dump(mode="json"),
        steps=[row.model_dump(mode="json") for row in describe(_PLAN, ReleaseState())],
        callers=_CALLERS.text(),
        actor=f"user:{examples.USER}",
        createdAt=examples.TIME,
        endedAt=None,
    )

    id: str
    alias: str
    candidate: str
    stable: str
    status: ReleaseStatus
    command: Command | None
    plan: ReleasePlan
    state: ReleaseState
    steps: tuple[StepRow, ...]
    callers: str = ""
    actor: str
    created_at: str
    ended_at: str | None

    @classmethod
    def of(cls, record: RolloutRecord) -> Release:
        """The release on record."""
        return cls(
            id=record.id,
            alias=record.alias,
            candidate=record.candidate,
            stable=record.stable,
            status=record.status,
            command=record.command,
            plan=record.plan,
            state=record.state,
            steps=describe(record.plan, record.state),
            callers=record.callers.text(),
            actor=record.actor,
            created_at=record.created,
            ended_at=record.ended,
        )
