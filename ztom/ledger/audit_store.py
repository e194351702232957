"""The audit chain in the database: rows are appended in the transaction of what they are about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from ztom.errors import AuditError
from ztom.ledger.audit import SignedHead, check_entries, follow
from ztom.ledger.database import Database
from ztom.ledger.models import AuditRow
from ztom.ledger.records import AuditEntry, AuditEvent


class AuditChain:
    """Reads the audit chain and adds to it; part of `ztom.ledger.Ledger`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, event: AuditEvent) -> AuditEntry:
        """Append to the audit chain."""
        with self._database.write("add to the audit chain of") as session:
            return append_event(session, event)

    def entries(self) -> Iterator[AuditEntry]:
        """The audit chain in order; nothing is checked, see `check`."""
        with self._database.read() as session:
            yield from all_entries(session)

    def length(self) -> int:
        """How long the audit chain says that it is; nothing is checked, see `check`."""
        with self._database.read() as session:
            last = last_entry(session)
        return 0 if last is None else last.sequence

    def check(self, head: SignedHead | None = None) -> int:
        """Check the whole audit chain; see `ztom.ledger.audit.check_entries`."""
        return check_entries(self.entries(), head)

    def sign(self, key: Ed25519PrivateKey, *, time: str) -> SignedHead:
        """Sign the end of the audit chain."""
        with self._database.read() as session:
            return SignedHead.sign(last_entry(session), key, time=time)


def append_event(session: Session, event: AuditEvent) -> AuditEntry:
    """Add a row at the end of the chain.

    The caller's transaction keeps other writers out until it ends: SQLite's write lock does, and on
    PostgreSQL the lock taken here.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("LOCK TABLE audit IN SHARE ROW EXCLUSIVE MODE"))
    entry = follow(event, last_entry(session), time=datetime.now(UTC).isoformat())
    session.add(
        AuditRow(
            sequence=entry.sequence,
            time=entry.time,
            event=asdict(event),
            previous=entry.previous,
            hash=entry.hash,
        )
    )
    session.flush()
    return entry


def last_entry(session: Session) -> AuditEntry | None:
    """The end of the chain, None when it is empty."""
    row = session.scalars(select(AuditRow).order_by(AuditRow.sequence.desc()).limit(1)).first()
    return None if row is None else _entry(row)


def all_entries(session: Session) -> Iterator[AuditEntry]:
    """The chain in order, a thousand rows in memory at a time."""
    query = select(AuditRow).order_by(AuditRow.sequence).execution_options(yield_per=1000)
    for row in session.scalars(query):
        yield _entry(row)


def _entry(row: AuditRow) -> AuditEntry:
    return AuditEntry(row.sequence, row.time, _event(row), row.previous, row.hash)


def _event(row: AuditRow) -> AuditEvent:
    content: dict[str, Any] = dict(row.event)
    try:
        return AuditEvent(**{**content, "before": tuple(content["before"])})
    except (KeyError, TypeError) as error:
        raise AuditError(
            f"row {row.sequence} of the audit chain was changed",
            got=f"fields {sorted(content)}",
            fix="Restore the ledger from a copy; rows from here on are not evidence.",
        ) from error
