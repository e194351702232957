"""Secrets of a server that all of its processes need, in the database that they share.

A server over several nodes has one database and may have no common disk; what is kept here is the
same for all of them. Who can read the database can read it too.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.orm import Mapped, mapped_column

from ztom.ledger.audit_store import append_event
from ztom.ledger.database import Database
from ztom.ledger.models import Base, now
from ztom.ledger.records import AuditEvent


class ServerKeyRow(Base):
    """A secret of the server, or what tells one server from another."""

    __tablename__ = "server_keys"

    name: Mapped[str] = mapped_column(primary_key=True)
    content: Mapped[str]
    created: Mapped[str] = mapped_column(default=now)


class ServerKeyStore:
    """Reads and writes the server's secrets; part of `ztom.ledger.ledger.Ledger`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def is_shared(self) -> bool:
        """Whether processes on other machines reach the same database: it is no file."""
        return self._database.engine.dialect.name != "sqlite"

    def get(self, name: str) -> str | None:
        """The secret of this name; None where there is none."""
        with self._database.read() as session:
            row = session.get(ServerKeyRow, name)
            return None if row is None else row.content

    def take(self, name: str, make: Callable[[], str]) -> str:
        """The secret of this name; of processes that make one at once, the first one's holds.

        Args:
            name: Name of the secret.
            make: Function that makes one, called where there is none.
        """
        there = self.get(name)
        if there is not None:
            return there
        with self._database.write("add a key to") as session:
            row = session.get(ServerKeyRow, name)
            if row is None:
                row = ServerKeyRow(name=name, content=make())
                session.add(row)
            return row.content

    def replace(self, name: str, content: str, *, actor: str) -> None:
        """Put another secret in the place of one; the audit chain says that somebody did."""
        with self._database.write("change a key in") as session:
            session.merge(ServerKeyRow(name=name, content=content, created=now()))
            event = AuditEvent(actor=actor, action="server_key.replace", subject=f"key:{name}")
            append_event(session, event)
