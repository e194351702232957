"""Keys that the operator has registered: whose signature counts, and under which name."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from sqlalchemy import select

from ztom.errors import AlreadyOnRecordError, NotOnRecordError
from ztom.ledger.audit_store import append_event
from ztom.ledger.database import Database
from ztom.ledger.models import SigningKeyRow, now
from ztom.ledger.records import AuditEvent


@dataclass(frozen=True, slots=True)
class SigningKeyRecord:
    """A registered key.

    Attributes:
        id: Id that is never used again for another key.
        name: Name under which records show who signed.
        public_key: Public key of 32 bytes, in Base64.
        actor: Name of whoever registered it.
        created: Time in ISO 8601, for display only.
        revoked: Time since which its signatures count no more; None while they do.
    """

    id: str
    name: str
    public_key: str
    actor: str
    created: str
    revoked: str | None


class SigningKeys:
    """Reads and writes registered keys; part of `ztom.ledger.Ledger`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def register(self, name: str, public_key: str, *, actor: str) -> SigningKeyRecord:
        """Let signatures of a key count.

        Raises:
            AlreadyOnRecordError: The key was registered before, or another one has the name.
        """
        with self._database.write("register a key in") as session:
            for row in session.scalars(select(SigningKeyRow)):
                if row.public_key == public_key:
                    state = "is registered" if row.revoked is None else "was revoked"
                    raise AlreadyOnRecordError(f"this key {state}", got=row.name)
                if row.name == name and row.revoked is None:
                    raise AlreadyOnRecordError("another key has this name", got=name)
            row = SigningKeyRow(id=uuid.uuid4().hex, name=name, public_key=public_key, actor=actor)
            session.add(row)
            session.flush()
            event = AuditEvent(
                actor=actor,
                action="signing_key.register",
                subject=f"signing-key:{row.id}",
                note=f"{name}: {public_key}",
            )
            append_event(session, event)
            return _record(row)

    def all(self) -> tuple[SigningKeyRecord, ...]:
        """Every key, revoked ones too, oldest first."""
        query = select(SigningKeyRow).order_by(SigningKeyRow.created, SigningKeyRow.id)
        with self._database.read() as session:
            return tuple(map(_record, session.scalars(query)))

    def by_public_key(self, public_key: str) -> SigningKeyRecord | None:
        """The key that this is, revoked or not; None where nobody has registered it."""
        query = select(SigningKeyRow).where(SigningKeyRow.public_key == public_key)
        with self._database.read() as session:
            row = session.scalars(query).first()
            return None if row is None else _record(row)

    def revoke(self, key_id: str, *, actor: str) -> SigningKeyRecord:
        """Let signatures of a key count no more, those that are on record neither.

        Raises:
            NotOnRecordError: There is no such key.
        """
        with self._database.write("revoke a key in") as session:
            row = session.get(SigningKeyRow, key_id)
            if row is None:
                raise NotOnRecordError("there is no such signing key", got=key_id)
            if row.revoked is None:
                row.revoked = now()
                event = AuditEvent(
                    actor=actor,
                    action="signing_key.revoke",
                    subject=f"signing-key:{row.id}",
                    note=row.name,
                )
                append_event(session, event)
            return _record(row)


def _record(row: SigningKeyRow) -> SigningKeyRecord:
    return SigningKeyRecord(
        id=row.id,
        name=row.name,
        public_key=row.public_key,
        actor=row.actor,
        created=row.created,
        revoked=row.revoked,
    )
