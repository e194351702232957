"""Rollouts: releases under way and ended, what was observed in them, and feedback."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from ztom.errors import AlreadyOnRecordError, NotOnRecordError
from ztom.ledger.audit_store import append_event
from ztom.ledger.database import Database
from ztom.ledger.feedback import FeedbackStore, callers_of
from ztom.ledger.models import CallerTrafficRow, ObservationRow, RolloutRow, now
from ztom.ledger.records import AuditEvent
from ztom.ledger.upsert import add_up, put
from ztom.ledger.values import from_json, to_json
from ztom.rollout.callers import CallerShares
from ztom.rollout.observations import StepObservations
from ztom.rollout.plan import ReleasePlan
from ztom.rollout.state import Command, ReleaseState, ReleaseStatus

#: Days of traffic before a release that its callers' shares are of.
_DAYS = 7
_OPEN = tuple(status for status in ReleaseStatus if status.is_open)


@dataclass(frozen=True, slots=True)
class RolloutRecord:
    """A release as callers see it.

    Attributes:
        alias: Alias whose traffic it moves.
        candidate: Digest of the variant that is tried.
        stable: Digest of the variant that it is compared with.
        plan: Plan with the steps that are to be passed.
        state: State of its controller.
        command: Command that somebody gave it and that it has not carried out yet.
        callers: Shares of the callers in the traffic before it.
    """

    id: str
    alias: str
    candidate: str
    stable: str
    plan: ReleasePlan
    state: ReleaseState
    status: ReleaseStatus
    command: Command | None
    actor: str
    created: str
    ended: str | None
    callers: CallerShares = CallerShares()


class Rollouts:
    """Reads and writes rollouts; part of `ztom.ledger.endpoints.Endpoints`.

    Attributes:
        feedback: What people thought of answers.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.feedback = FeedbackStore(database)

    def start(
        self,
        alias: str,
        *,
        candidate: str,
        stable: str,
        plan: ReleasePlan,
        actor: str,
    ) -> RolloutRecord:
        """Begin a release.

        Raises:
            AlreadyOnRecordError: Another one of this alias is under way.
        """
        with self._database.write("add a rollout to") as session:
            other = _open_rollout(session, alias)
            if other is not None:
                raise AlreadyOnRecordError(
                    f"a release of {alias} is under way", got=f"{other.id} ({other.status})"
                )
            row = RolloutRow(
                id=secrets.token_hex(4),
                alias=alias,
                candidate=candidate,
                stable=stable,
                plan=to_json(plan),
                state=to_json(ReleaseState()),
                callers=to_json(_shares(session, alias)),
                actor=actor,
            )
            session.add(row)
            session.flush()
            _audit(session, actor, "start", row.id, f"of {alias}", candidate)
            return _rollout(row)

    def get(self, rollout_id: str) -> RolloutRecord:
        """The release with this id.

        Raises:
            NotOnRecordError: There is none.
        """
        with self._database.read() as session:
            return _rollout(_rollout_row(session, rollout_id))

    def all(self, alias: str | None = None) -> tuple[RolloutRecord, ...]:
        """Releases, newest first; those of one alias, or all."""
        query = select(RolloutRow)
        if alias is not None:
            query = query.where(RolloutRow.alias == alias)
        with self._database.read() as session:
            order = (RolloutRow.created.desc(), RolloutRow.id)
            return tuple(map(_rollout, session.scalars(query.order_by(*order))))

    def open(self) -> tuple[RolloutRecord, ...]:
        """Releases that are under way, oldest first."""
        query = select(RolloutRow).where(RolloutRow.status.in_(_OPEN))
        with self._database.read() as session:
            return tuple(map(_rollout, session.scalars(query.order_by(RolloutRow.created))))

    def command(self, rollout_id: str, command: Command, *, actor: str) -> RolloutRecord:
        """Tell a release's controller something.

        Raises:
            AlreadyOnRecordError: It has ended.
        """
        with self._database.write("change a rollout in") as session:
            row = _rollout_row(session, rollout_id)
            if not ReleaseStatus(row.status).is_open:
                raise AlreadyOnRecordError("the release has ended", got=row.status)
            row.command = command
            _audit(session, actor, command, row.id, f"of {row.alias}")
            return _rollout(row)

    def save(
        self,
        rollout_id: str,
        *,
        state: ReleaseState,
        status: ReleaseStatus,
        done: Command | None = None,
        records: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Keep where a release's controller is; one that has ended stays as it is.

        Args:
            rollout_id: Id of the release.
            state: State that its controller goes on from.
            status: Status that users see.
            done: Command that was carried out.
            records: Rows for the audit chain: action and note.
        """
        with self._database.write("change a rollout in") as session:
            row = _rollout_row(session, rollout_id)
            if not ReleaseStatus(row.status).is_open:
                return
            row.state, row.status = to_json(state), status
            if row.command == done:
                row.command = None
            if not status.is_open:
                row.ended = now()
            for action, note in records:
                _audit(session, "controller", action, row.id, note, row.candidate)

    def observe(self, rollout_id: str, step: int, source: str, content: StepObservations) -> None:
        """Keep everything that one gateway process has counted in a step, so far.

        Raises:
            NotOnRecordError: There is no such release.
        """
        if self.observe_all([(rollout_id, step, source, content)]):
            raise NotOnRecordError("there is no such release", got=rollout_id)

    def observe_all(
        self, counted: Sequence[tuple[str, int, str, StepObservations]]
    ) -> frozenset[str]:
        """Keep everything that one gateway process has counted in some steps, so far.

        Args:
            counted: Release, number of the step, source and what was counted, of each step.

        Returns:
            Ids of the releases that are not on record.
        """
        if not counted:
            return frozenset()
        with self._database.write("add observations to") as session:
            known = set(
                session.scalars(
                    select(RolloutRow.id).where(RolloutRow.id.in_({item[0] for item in counted}))
                )
            )
            rows = [
                {"rollout_id": release, "step": step, "source": source, "content": to_json(content)}
                for release, step, source, content in counted
                if release in known
            ]
            put(session, ObservationRow, rows, ("content",))
        return frozenset(item[0] for item in counted) - known

    def observations(self, rollout_id: str, step: int) -> tuple[StepObservations, ...]:
        """What gateways have counted in a step."""
        query = select(ObservationRow).where(
            ObservationRow.rollout_id == rollout_id, ObservationRow.step == step
        )
        with self._database.read() as session:
            rows = session.scalars(query.order_by(ObservationRow.source))
            return tuple(from_json(StepObservations, row.content) for row in rows)

    def add_traffic(self, requests: Mapping[str, Mapping[str, int]]) -> None:
        """Add to what callers have asked of stable variants today.

        Args:
            requests: Number of requests by alias, and by keyed hash of the caller.
        """
        day = datetime.now(UTC).date().isoformat()
        with self._database.write("count callers in") as session:
            rows = [
                {"alias": alias, "day": day, "caller": caller, "requests": number}
                for alias, callers in requests.items()
                for caller, number in callers.items()
            ]
            add_up(session, CallerTrafficRow, rows, ("requests",))

    def callers(self, rollout_id: str) -> CallerShares:
        """Shares of the callers in the traffic before a release; none for an unknown release."""
        with self._database.read() as session:
            row = session.get(RolloutRow, rollout_id)
            return CallerShares() if row is None else callers_of(row)


def _shares(session: Session, alias: str) -> CallerShares:
    """Shares in the traffic of the last days; what is older is taken away."""
    first = (datetime.now(UTC).date() - timedelta(days=_DAYS)).isoformat()
    session.execute(delete(CallerTrafficRow).where(CallerTrafficRow.day < first))
    query = (
        select(CallerTrafficRow.caller, func.sum(CallerTrafficRow.requests))
        .where(CallerTrafficRow.alias == alias)
        .group_by(CallerTrafficRow.caller)
    )
    return CallerShares.of({caller: int(number) for caller, number in session.execute(query)})


def _rollout_row(session: Session, rollout_id: str) -> RolloutRow:
    row = session.get(RolloutRow, rollout_id)
    if row is None:
        raise NotOnRecordError("there is no such release", got=rollout_id)
    return row


def _open_rollout(session: Session, alias: str) -> RolloutRow | None:
    query = select(RolloutRow).where(RolloutRow.alias == alias, RolloutRow.status.in_(_OPEN))
    return session.scalars(query).first()


def _audit(
    session: Session, actor: str, action: str, rollout_id: str, note: str, after: str | None = None
) -> None:
    event = AuditEvent(
        actor=actor,
        action=f"rollout.{action}",
        subject=f"rollout:{rollout_id}",
        note=note,
        after=after,
    )
    append_event(session, event)


def _rollout(row: RolloutRow) -> RolloutRecord:
    return RolloutRecord(
        id=row.id,
        alias=row.alias,
        candidate=row.candidate,
        stable=row.stable,
        plan=from_json(ReleasePlan, row.plan),
        state=from_json(ReleaseState, row.state),
        status=ReleaseStatus(row.status),
        command=None if row.command is None else Command(row.command),
        actor=row.actor,
        created=row.created,
        ended=row.ended,
        callers=callers_of(row),
    )
