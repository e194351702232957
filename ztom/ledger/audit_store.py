"""The audit chain in the database: rows are appended in the transaction of what they are about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from ztom.errors import AuditError
from ztom.ledger.audit import follow
from ztom.ledger.models import AuditRow
from ztom.ledger.records import AuditEntry, AuditEvent


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
