"""Invitations: e-mail addresses with which somebody may make an account, once."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from ztom.errors import AlreadyOnRecordError, NotOnRecordError
from ztom.ledger.audit_store import append_event
from ztom.ledger.database import Database
from ztom.ledger.models import InvitationRow, UserRow
from ztom.ledger.records import AuditEvent

#: Days after which an invitation that nobody has taken is none.
DAYS = 30


@dataclass(frozen=True, slots=True)
class InvitationRecord:
    """An invitation that nobody has taken yet.

    Attributes:
        id: Id of the invitation.
        email: Address in lower case.
        may_deploy: Whether the account will be allowed to deploy.
        actor: Name of whoever invites.
        created: Time in ISO 8601, UTC; it holds for `DAYS` days.
    """

    id: str
    email: str
    may_deploy: bool
    actor: str
    created: str


class Invitations:
    """Reads and writes invitations; part of `ztom.ledger.Ledger`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def invite(self, email: str, *, may_deploy: bool, actor: str) -> InvitationRecord:
        """Invite an address; once more gives the invitation anew, with what is said now.

        Args:
            email: Address in any case.
            may_deploy: Whether the account will be allowed to deploy.
            actor: Name of whoever invites.

        Raises:
            AlreadyOnRecordError: There is an account with it.
        """
        email = email.strip().lower()
        with self._database.write("invite somebody in") as session:
            if session.scalars(select(UserRow).where(UserRow.email == email)).first() is not None:
                raise AlreadyOnRecordError("there is a user with this address", got=email)
            before = session.scalars(select(InvitationRow).where(InvitationRow.email == email))
            for row in before:
                session.delete(row)
            session.flush()
            row = InvitationRow(
                id=uuid.uuid4().hex, email=email, may_deploy=may_deploy, actor=actor
            )
            session.add(row)
            session.flush()
            _audit(session, actor, "invitation.create", row.id, f"may deploy: {may_deploy}")
            return _record(row)

    def all(self) -> tuple[InvitationRecord, ...]:
        """Invitations that hold, oldest first."""
        query = select(InvitationRow).order_by(InvitationRow.created)
        with self._database.read() as session:
            return tuple(_record(row) for row in session.scalars(query) if _holds(row))

    def holds(self, email: str) -> bool:
        """Whether an address is invited."""
        with self._database.read() as session:
            return invitation(session, email) is not None

    def withdraw(self, invitation_id: str, *, actor: str) -> None:
        """Take an invitation back.

        Raises:
            NotOnRecordError: There is no such invitation.
        """
        with self._database.write("withdraw an invitation from") as session:
            row = session.get(InvitationRow, invitation_id)
            if row is None:
                raise NotOnRecordError("there is no such invitation", got=invitation_id)
            session.delete(row)
            _audit(session, actor, "invitation.withdraw", row.id, "")


def invitation(session: Session, email: str) -> InvitationRow | None:
    """The invitation of an address, if one holds."""
    query = select(InvitationRow).where(InvitationRow.email == email.strip().lower())
    row = session.scalars(query).first()
    return row if row is not None and _holds(row) else None


def _holds(row: InvitationRow) -> bool:
    return datetime.now(UTC) - datetime.fromisoformat(row.created) < timedelta(days=DAYS)


def _audit(session: Session, actor: str, action: str, invitation_id: str, note: str) -> None:
    subject = f"invitation:{invitation_id}"
    append_event(session, AuditEvent(actor=actor, action=action, subject=subject, note=note))


def _record(row: InvitationRow) -> InvitationRecord:
    return InvitationRecord(row.id, row.email, row.may_deploy, row.actor, row.created)
