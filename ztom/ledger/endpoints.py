"""What is served: endpoints, the routing table, deployments, rollouts, observations, feedback.

Desired state stands here and nowhere else: whoever deploys, routes or moves a rollout writes it
down, with a row of the audit chain in the same transaction, and whoever carries it out reads it
here. So a process that dies half-way is followed by one that goes on. The content of tables, plans
and states is JSON; what it means is `ztom.rollout`'s.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ztom.errors import AlreadyOnRecordError, NotOnRecordError
from ztom.ledger.audit_store import append_event
from ztom.ledger.database import Database
from ztom.ledger.models import (
    DeploymentRow,
    EndpointRow,
    FeedbackRow,
    ObservationRow,
    RolloutRow,
    RoutingRow,
    now,
)
from ztom.ledger.records import AuditEvent


class DeploymentState(StrEnum):
    """How far a deployment is: traffic goes to ``ready`` ones only."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    RETIRED = "retired"


class RolloutStatus(StrEnum):
    """Where a release stands."""

    RUNNING = "running"
    HELD = "held"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"

    @property
    def is_open(self) -> bool:
        """Whether its controller still moves it."""
        return self in (RolloutStatus.RUNNING, RolloutStatus.HELD)


_OPEN = tuple(status for status in RolloutStatus if status.is_open)


@dataclass(frozen=True, slots=True)
class NewDeployment:
    """A variant that is to run.

    Attributes:
        digest: Of the variant.
        name: Its model name.
        address: Its folder.
        base: What an adapter is loaded on: ``reference`` and ``digest``; None for full weights.
        options: How it is served.
        intent: What traffic it gets once it is ready.
        project_id: The project that it belongs to.
        insisted: Wanted although neither the gate nor a search let it pass.
        note: For the audit chain.
    """

    digest: str
    name: str
    address: str
    options: Mapping[str, object]
    base: Mapping[str, object] | None = None
    intent: Mapping[str, object] | None = None
    project_id: str | None = None
    insisted: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class DeploymentRecord:
    """A deployment as callers see it.

    Attributes:
        kept: ``name``, ``address`` and ``options`` under which it goes on serving while it is
            deployed anew, and when that fails; None when there is nothing to go on with.
        reason: Why it failed; what one that is starting waits for; of one that is ready, why it
            did not get the traffic it was for.
    """

    digest: str
    name: str
    address: str
    base: Mapping[str, Any] | None
    options: Mapping[str, Any]
    intent: Mapping[str, Any] | None
    kept: Mapping[str, Any] | None
    project_id: str | None
    state: DeploymentState
    reason: str | None
    insisted: bool
    actor: str
    created: str


@dataclass(frozen=True, slots=True)
class RolloutRecord:
    """A release as callers see it.

    Attributes:
        alias: Whose traffic it moves.
        candidate: Digest of the variant that is tried.
        stable: Digest of the variant that it is compared with.
        plan: What is to be passed.
        state: Where its controller is.
        command: What somebody told it and it has not done yet.
    """

    id: str
    alias: str
    candidate: str
    stable: str
    plan: Mapping[str, Any]
    state: Mapping[str, Any]
    status: RolloutStatus
    command: str | None
    actor: str
    created: str
    ended: str | None


@dataclass(frozen=True, slots=True)
class FeedbackRecord:
    """A judgement of one answer; `error` is from 0 (right) to 1 (wrong)."""

    response_id: str
    variant: str
    role: str
    error: float
    user_id: str
    label: str | None = None
    rollout_id: str | None = None
    step: int = 0


@dataclass(frozen=True, slots=True)
class FeedbackSum:
    """How many judgements there were, and the sum of their errors."""

    count: int
    error: float


class Endpoints:
    """Reads and writes what is served; part of `ztom.ledger.Ledger`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # the routing table

    def routing(self) -> tuple[int, Mapping[str, Any]]:
        """The table that holds, and its version; version 0 is the empty one."""
        with self._database.read() as session:
            return _routing(session)

    def routing_version(self) -> int:
        """The version of the table that holds."""
        with self._database.read() as session:
            return int(session.scalar(select(func.max(RoutingRow.version))) or 0)

    def change_routing(
        self,
        change: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        *,
        actor: str,
        action: str,
        subject: str,
        note: str = "",
        expected: int | None = None,
    ) -> int:
        """Replace the table by what a function makes of it; nobody else changes it meanwhile.

        Args:
            change: From content to content; what it raises leaves everything as it was.
            actor: Who does it.
            action: For the audit chain, such as ``route.promote``.
            subject: For the audit chain, such as ``endpoint:support``.
            note: For the audit chain.
            expected: The version that the caller looked at.

        Returns:
            The new version; the old one when nothing is different.

        Raises:
            AlreadyOnRecordError: The table is not ``expected`` any more.
        """
        with self._database.write("change the routing table in") as session:
            version, before = _routing(session)
            if expected is not None and expected != version:
                raise AlreadyOnRecordError(
                    "the routing table was changed meanwhile", got=version, expected=expected
                )
            after = dict(change(before))
            if after == before:
                return version
            session.add(RoutingRow(version=version + 1, content=after, actor=actor))
            event = AuditEvent(
                actor=actor, action=action, subject=subject, note=f"table {version + 1}; {note}"
            )
            append_event(session, event)
            return version + 1

    # endpoints

    def claim(self, alias: str, project_id: str | None) -> None:
        """Make an alias a project's, unless it is already.

        Raises:
            NotOnRecordError: It is another project's: one cannot tell which.
        """
        with self._database.write("add an endpoint to") as session:
            row = session.get(EndpointRow, alias)
            if row is None:
                session.add(EndpointRow(alias=alias, project_id=project_id))
            elif row.project_id != project_id:
                raise NotOnRecordError("there is no such endpoint", got=alias)

    def project_of(self, alias: str) -> str | None:
        """The project of an endpoint; None for an administrators' one.

        Raises:
            NotOnRecordError: There is no such endpoint.
        """
        with self._database.read() as session:
            row = session.get(EndpointRow, alias)
            if row is None:
                raise NotOnRecordError("there is no such endpoint", got=alias)
            return row.project_id

    # deployments

    def deploy(self, new: NewDeployment, *, actor: str) -> DeploymentRecord:
        """Write down that a variant is to run.

        Raises:
            AlreadyOnRecordError: It is being deployed already, or for another project.
        """
        with self._database.write("add a deployment to") as session:
            row = session.get(DeploymentRow, new.digest)
            if row is not None and row.state == DeploymentState.STARTING:
                raise AlreadyOnRecordError(
                    "this variant is being deployed already", got=new.digest[:12]
                )
            ready = row is not None and row.state == DeploymentState.READY
            if row is not None and ready and row.project_id != new.project_id:
                raise AlreadyOnRecordError("this variant is deployed already", got=new.digest[:12])
            if row is None:
                row = DeploymentRow(digest=new.digest)
                session.add(row)
            known = {"name": row.name, "address": row.address, "options": row.options}
            wanted = {"name": new.name, "address": new.address, "options": dict(new.options)}
            restart = not ready or known != wanted
            if ready and restart:
                row.kept = known
            row.name, row.address, row.options = new.name, new.address, dict(new.options)
            row.base = None if new.base is None else dict(new.base)
            row.intent = None if new.intent is None else dict(new.intent)
            row.project_id, row.insisted, row.actor = new.project_id, new.insisted, actor
            row.reason = None
            row.state = DeploymentState.STARTING if restart else DeploymentState.READY
            session.flush()
            _audit(session, actor, "deployment.create", f"variant:{new.digest}", new.note)
            return _deployment(row)

    def deployment(self, digest: str) -> DeploymentRecord:
        """The deployment of a variant.

        Raises:
            NotOnRecordError: There is none.
        """
        with self._database.read() as session:
            return _deployment(_deployment_row(session, digest))

    def deployments(self) -> tuple[DeploymentRecord, ...]:
        """Every deployment that is not retired, oldest first."""
        query = select(DeploymentRow).where(DeploymentRow.state != DeploymentState.RETIRED)
        with self._database.read() as session:
            order = (DeploymentRow.created, DeploymentRow.digest)
            return tuple(map(_deployment, session.scalars(query.order_by(*order))))

    def set_state(
        self,
        digest: str,
        state: DeploymentState,
        *,
        actor: str,
        reason: str | None = None,
        only_from: DeploymentState | None = None,
    ) -> bool:
        """Say how far a deployment is, if it was ``only_from`` until now.

        Returns:
            Whether it was changed.
        """
        with self._database.write("change a deployment in") as session:
            row = _deployment_row(session, digest)
            if row.state == state or (only_from is not None and row.state != only_from):
                return False
            row.state, row.reason = state, reason
            if state is DeploymentState.READY:
                row.kept = None
            _audit(session, actor, f"deployment.{state}", f"variant:{digest}", reason or "")
            return True

    def note(self, digest: str, reason: str) -> bool:
        """Say what a deployment that is starting waits for.

        Returns:
            Whether that is news.
        """
        with self._database.write("change a deployment in") as session:
            row = _deployment_row(session, digest)
            if row.state != DeploymentState.STARTING or row.reason == reason:
                return False
            row.reason = reason
            return True

    def clear_intent(self, digest: str, expected: Mapping[str, Any] | None) -> None:
        """Say that a deployment has got the traffic that was wanted then; a newer wish stays."""
        with self._database.write("change a deployment in") as session:
            row = _deployment_row(session, digest)
            if row.intent == expected:
                row.intent = None

    def let_go(self, digest: str) -> None:
        """Forget what a deployment that failed went on with."""
        with self._database.write("change a deployment in") as session:
            row = _deployment_row(session, digest)
            if row.state == DeploymentState.FAILED:
                row.kept = None

    def retire(self, digest: str, *, actor: str) -> bool:
        """Say that a deployment is over, unless somebody wants traffic for it by now.

        Returns:
            Whether it is.
        """
        with self._database.write("change a deployment in") as session:
            row = _deployment_row(session, digest)
            if row.state != DeploymentState.READY or row.intent is not None:
                return False
            row.state = DeploymentState.RETIRED
            _audit(session, actor, "deployment.retired", f"variant:{digest}", "")
            return True

    def cancel(
        self, *, actor: str, reason: str, digest: str | None = None, alias: str | None = None
    ) -> int:
        """Have deployments that wait for traffic wait no more: one, or those of an alias.

        Returns:
            How many there were.
        """
        with self._database.write("change deployments in") as session:
            cancelled = 0
            for row in session.scalars(select(DeploymentRow)).all():
                wanted = None if row.intent is None else row.intent.get("alias")
                is_meant = row.digest == digest if alias is None else wanted == alias
                if not is_meant or row.intent is None:
                    continue
                cancelled += 1
                row.intent, row.reason = None, reason
                if row.state == DeploymentState.STARTING:
                    row.state = DeploymentState.FAILED
                _audit(session, actor, "deployment.cancel", f"variant:{row.digest}", reason)
            return cancelled

    # rollouts

    def start_rollout(
        self,
        alias: str,
        *,
        candidate: str,
        stable: str,
        plan: Mapping[str, object],
        state: Mapping[str, object],
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
                plan=dict(plan),
                state=dict(state),
                actor=actor,
            )
            session.add(row)
            session.flush()
            _audit(session, actor, "rollout.start", f"rollout:{row.id}", f"of {alias}", candidate)
            return _rollout(row)

    def rollout(self, rollout_id: str) -> RolloutRecord:
        """The release with this id.

        Raises:
            NotOnRecordError: There is none.
        """
        with self._database.read() as session:
            return _rollout(_rollout_row(session, rollout_id))

    def rollouts(self, alias: str | None = None) -> tuple[RolloutRecord, ...]:
        """Releases, newest first; those of one alias, or all."""
        query = select(RolloutRow)
        if alias is not None:
            query = query.where(RolloutRow.alias == alias)
        with self._database.read() as session:
            order = (RolloutRow.created.desc(), RolloutRow.id)
            return tuple(map(_rollout, session.scalars(query.order_by(*order))))

    def open_rollouts(self) -> tuple[RolloutRecord, ...]:
        """Releases that are under way, oldest first."""
        query = select(RolloutRow).where(RolloutRow.status.in_(_OPEN))
        with self._database.read() as session:
            return tuple(map(_rollout, session.scalars(query.order_by(RolloutRow.created))))

    def command(self, rollout_id: str, command: str, *, actor: str) -> RolloutRecord:
        """Tell a release's controller something.

        Raises:
            AlreadyOnRecordError: It has ended.
        """
        with self._database.write("change a rollout in") as session:
            row = _rollout_row(session, rollout_id)
            if not RolloutStatus(row.status).is_open:
                raise AlreadyOnRecordError("the release has ended", got=row.status)
            row.command = command
            _audit(session, actor, f"rollout.{command}", f"rollout:{row.id}", f"of {row.alias}")
            return _rollout(row)

    def save_rollout(
        self,
        rollout_id: str,
        *,
        state: Mapping[str, object],
        status: RolloutStatus,
        done: str | None = None,
        records: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Keep where a release's controller is; one that has ended stays as it is.

        Args:
            rollout_id: Which.
            state: What it goes on from.
            status: What users see.
            done: The command that was carried out.
            records: Rows for the audit chain: action and note.
        """
        with self._database.write("change a rollout in") as session:
            row = _rollout_row(session, rollout_id)
            if not RolloutStatus(row.status).is_open:
                return
            row.state, row.status = dict(state), status
            if row.command == done:
                row.command = None
            if not status.is_open:
                row.ended = now()
            for action, note in records:
                _audit(
                    session, "controller", f"rollout.{action}", f"rollout:{row.id}", note,
                    row.candidate,
                )  # fmt: skip

    # observations and feedback

    def observe(self, rollout_id: str, step: int, source: str, content: Mapping[str, Any]) -> None:
        """Keep everything that one gateway process has counted in a step, so far."""
        with self._database.write("add observations to") as session:
            row = session.get(ObservationRow, (rollout_id, step, source))
            if row is None:
                _rollout_row(session, rollout_id)
                row = ObservationRow(rollout_id=rollout_id, step=step, source=source)
                session.add(row)
            row.content = dict(content)

    def observations(self, rollout_id: str, step: int) -> tuple[Mapping[str, Any], ...]:
        """What gateways have counted in a step."""
        query = select(ObservationRow).where(
            ObservationRow.rollout_id == rollout_id, ObservationRow.step == step
        )
        with self._database.read() as session:
            rows = session.scalars(query.order_by(ObservationRow.source))
            return tuple(dict(row.content) for row in rows)

    def add_feedback(self, feedback: FeedbackRecord) -> None:
        """Keep a judgement.

        Raises:
            AlreadyOnRecordError: The answer was judged before.
        """
        with self._database.write("add feedback to") as session:
            if session.get(FeedbackRow, feedback.response_id) is not None:
                raise AlreadyOnRecordError("this answer has its feedback already")
            known = feedback.rollout_id and session.get(RolloutRow, feedback.rollout_id)
            session.add(
                FeedbackRow(
                    response_id=feedback.response_id,
                    variant=feedback.variant,
                    rollout_id=feedback.rollout_id if known else None,
                    step=feedback.step,
                    role=feedback.role,
                    error=feedback.error,
                    label=feedback.label,
                    user_id=feedback.user_id,
                )
            )

    def feedback(self, rollout_id: str, step: int) -> Mapping[str, FeedbackSum]:
        """Judgements in a step of a release, by the role of who answered."""
        query = (
            select(FeedbackRow.role, func.count(), func.sum(FeedbackRow.error))
            .where(FeedbackRow.rollout_id == rollout_id, FeedbackRow.step == step)
            .group_by(FeedbackRow.role)
        )
        with self._database.read() as session:
            return {
                role: FeedbackSum(int(count), float(total))
                for role, count, total in session.execute(query)
            }


def _routing(session: Session) -> tuple[int, Mapping[str, Any]]:
    query = select(RoutingRow).order_by(RoutingRow.version.desc()).limit(1)
    row = session.scalars(query).first()
    return (0, {}) if row is None else (row.version, dict(row.content))


def _deployment_row(session: Session, digest: str) -> DeploymentRow:
    row = session.get(DeploymentRow, digest)
    if row is None:
        raise NotOnRecordError("there is no such deployment", got=digest[:12])
    return row


def _rollout_row(session: Session, rollout_id: str) -> RolloutRow:
    row = session.get(RolloutRow, rollout_id)
    if row is None:
        raise NotOnRecordError("there is no such release", got=rollout_id)
    return row


def _open_rollout(session: Session, alias: str) -> RolloutRow | None:
    query = select(RolloutRow).where(RolloutRow.alias == alias, RolloutRow.status.in_(_OPEN))
    return session.scalars(query).first()


def _audit(
    session: Session, actor: str, action: str, subject: str, note: str, after: str | None = None
) -> None:
    append_event(
        session, AuditEvent(actor=actor, action=action, subject=subject, note=note, after=after)
    )


def _deployment(row: DeploymentRow) -> DeploymentRecord:
    return DeploymentRecord(
        digest=row.digest,
        name=row.name,
        address=row.address,
        base=row.base,
        options=row.options,
        intent=row.intent,
        kept=row.kept,
        project_id=row.project_id,
        state=DeploymentState(row.state),
        reason=row.reason,
        insisted=row.insisted,
        actor=row.actor,
        created=row.created,
    )


def _rollout(row: RolloutRow) -> RolloutRecord:
    return RolloutRecord(
        id=row.id,
        alias=row.alias,
        candidate=row.candidate,
        stable=row.stable,
        plan=row.plan,
        state=row.state,
        status=RolloutStatus(row.status),
        command=row.command,
        actor=row.actor,
        created=row.created,
        ended=row.ended,
    )
