"""Deployments: which variants run, how far they are, and the traffic that each is for.

Options and intents are values of `ztom.rollout`; the columns hold them as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import null, select
from sqlalchemy.orm import Session

from ztom.errors import AlreadyOnRecordError, NotOnRecordError
from ztom.ledger.audit_store import append_event
from ztom.ledger.database import Database
from ztom.ledger.engine_quota import EngineQuota
from ztom.ledger.models import DeploymentRow
from ztom.ledger.records import AuditEvent
from ztom.ledger.values import from_json, to_json
from ztom.rollout.intent import Intent
from ztom.rollout.options import DeployOptions


class DeploymentState(StrEnum):
    """How far a deployment is: traffic goes to ``ready`` ones only."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class NewDeployment:
    """A variant that is to run.

    Attributes:
        digest: Digest of the variant.
        name: Model name of the variant.
        address: Folder of the variant.
        base: Base that an adapter is loaded on: ``reference`` and ``digest``; None for full
            weights.
        options: Options of its engine and replicas.
        intent: Traffic that it gets once it is ready.
        project_id: The project that it belongs to.
        insisted: Whether it was wanted although neither the gate nor a search let it pass.
        signed_by: Who has signed the variant, in words; None where nobody has.
        note: Note for the audit chain.
    """

    digest: str
    name: str
    address: str
    options: DeployOptions = DeployOptions()
    base: Mapping[str, str] | None = None
    intent: Intent | None = None
    project_id: str | None = None
    insisted: bool = False
    signed_by: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class ServedAs:
    """How a deployment serves.

    Attributes:
        name: Model name of the variant.
        address: Folder of the variant.
        options: Options of its engine and replicas.
    """

    name: str
    address: str
    options: DeployOptions


@dataclass(frozen=True, slots=True)
class DeploymentRecord:
    """A deployment as callers see it.

    Attributes:
        kept: Name, folder and options that it goes on serving with while it is deployed anew, and
            when that fails; None when there is nothing to go on with.
        reason: Why it failed; what one that is starting waits for; of one that is ready, why it
            did not get the traffic it was for, or that it has lost its replicas.
        signed_by: Who has signed the variant, in words; None where nobody has.
    """

    digest: str
    name: str
    address: str
    base: Mapping[str, str] | None
    options: DeployOptions
    intent: Intent | None
    kept: ServedAs | None
    project_id: str | None
    state: DeploymentState
    reason: str | None
    insisted: bool
    actor: str
    created: str
    signed_by: str | None = None

    def is_of(self, account: str) -> bool:
        """Whether it serves, or is about to, because the account (``user:<id>``) wanted it."""
        serves = self.state in (DeploymentState.STARTING, DeploymentState.READY)
        return account_of(self.actor) == account and (serves or self.kept is not None)


def account_of(actor: str) -> str:
    """The account in an actor's name of the audit chain, whichever key it used: ``user:<id>``."""
    return actor.partition(" ")[0]


class Deployments:
    """Reads and writes deployments; part of `ztom.ledger.endpoints.Endpoints`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def deploy(
        self,
        new: NewDeployment,
        *,
        actor: str,
        quota: EngineQuota | None = None,
    ) -> DeploymentRecord:
        """Write down that a variant is to run.

        Args:
            new: Deployment that is wanted.
            actor: Name of whoever wants it.
            quota: Engines that the actor's account may have; None is no limit.

        Raises:
            AlreadyOnRecordError: It is being deployed already, or for another project.
            QuotaError: The account would have more engines than it may.
        """
        with self._database.write("add a deployment to") as session:
            if quota is not None:
                others = select(DeploymentRow).where(DeploymentRow.digest != new.digest)
                records = map(_deployment, session.scalars(others))
                quota.require([*(r for r in records if r.is_of(account_of(actor))), new])
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
            options = to_json(new.options, exclude_defaults=True)
            known = {"name": row.name, "address": row.address, "options": row.options}
            wanted = {"name": new.name, "address": new.address, "options": options}
            restart = not ready or known != wanted
            if ready and restart:
                row.kept = known
            row.name, row.address, row.options = new.name, new.address, options
            row.base = None if new.base is None else dict(new.base)
            row.intent = None if new.intent is None else to_json(new.intent)
            row.project_id, row.insisted, row.actor = new.project_id, new.insisted, actor
            row.reason, row.signed_by = None, new.signed_by
            row.state = DeploymentState.STARTING if restart else DeploymentState.READY
            session.flush()
            _audit(session, actor, "create", new.digest, new.note)
            return _deployment(row)

    def get(self, digest: str) -> DeploymentRecord:
        """The deployment of a variant.

        Raises:
            NotOnRecordError: There is none.
        """
        with self._database.read() as session:
            return _deployment(_deployment_row(session, digest))

    def all(self, *, starting_with: str = "") -> tuple[DeploymentRecord, ...]:
        """Every deployment that is not retired, oldest first.

        Args:
            starting_with: A variant's digest or the start of it, in hexadecimal digits: only
                deployments of such variants.
        """
        query = select(DeploymentRow).where(DeploymentRow.state != DeploymentState.RETIRED)
        if starting_with:
            query = query.where(DeploymentRow.digest.startswith(starting_with, autoescape=True))
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
            _audit(session, actor, state, digest, reason)
            return True

    def note(self, digest: str, reason: str) -> bool:
        """Say what a deployment waits for, or what is wrong with one that serves.

        Returns:
            Whether that is news.
        """
        with self._database.write("change a deployment in") as session:
            row = _deployment_row(session, digest)
            serves = row.state in (DeploymentState.STARTING, DeploymentState.READY)
            if not serves or row.reason == reason:
                return False
            row.reason = reason
            return True

    def clear_reason(self, digest: str, expected: str | None) -> None:
        """Forget what was wrong with a deployment; another reason that is noted by now stays."""
        with self._database.write("change a deployment in") as session:
            row = _deployment_row(session, digest)
            if row.reason == expected:
                row.reason = None

    def clear_intent(self, digest: str, expected: Intent | None) -> None:
        """Say that a deployment has got the traffic that was wanted then; a newer wish stays."""
        with self._database.write("change a deployment in") as session:
            row = _deployment_row(session, digest)
            if _intent(row) == expected:
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
            _audit(session, actor, "retired", digest, "")
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
            query = select(DeploymentRow).where(DeploymentRow.intent.is_not(null()))
            if alias is None:
                query = query.where(DeploymentRow.digest == digest)
            for row in session.scalars(query).all():
                intent = _intent(row)
                if alias is not None and (intent is None or intent.alias != alias):
                    continue
                cancelled += 1
                row.intent, row.reason = None, reason
                if row.state == DeploymentState.STARTING:
                    row.state = DeploymentState.FAILED
                _audit(session, actor, "cancel", row.digest, reason)
            return cancelled


def _deployment_row(session: Session, digest: str) -> DeploymentRow:
    row = session.get(DeploymentRow, digest)
    if row is None:
        raise NotOnRecordError("there is no such deployment", got=digest[:12])
    return row


def _audit(session: Session, actor: str, action: str, digest: str, note: str | None) -> None:
    event = AuditEvent(
        actor=actor,
        action=f"deployment.{action}",
        subject=f"variant:{digest}",
        note=note or "",
    )
    append_event(session, event)


def _intent(row: DeploymentRow) -> Intent | None:
    return None if row.intent is None else from_json(Intent, row.intent)


def _served_as(kept: Mapping[str, Any]) -> ServedAs:
    return ServedAs(kept["name"], kept["address"], from_json(DeployOptions, kept["options"]))


def _deployment(row: DeploymentRow) -> DeploymentRecord:
    return DeploymentRecord(
        digest=row.digest,
        name=row.name,
        address=row.address,
        base=row.base,
        options=from_json(DeployOptions, row.options),
        intent=_intent(row),
        kept=None if row.kept is None else _served_as(row.kept),
        project_id=row.project_id,
        state=DeploymentState(row.state),
        reason=row.reason,
        insisted=row.insisted,
        actor=row.actor,
        created=row.created,
        signed_by=row.signed_by,
    )
