"""What is served: endpoints and the routing table, with deployments and rollouts.

Desired state stands here and nowhere else: whoever deploys, routes or moves a rollout writes it
down, with a row of the audit chain in the same transaction, and whoever carries it out reads it
here. So a process that dies half-way is followed by one that goes on. Tables, plans and states are
values of `ztom.rollout`; the columns hold them as JSON.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ztom.errors import AlreadyOnRecordError, NotOnRecordError
from ztom.ledger.audit_store import append_event
from ztom.ledger.database import Database
from ztom.ledger.deployments import Deployments
from ztom.ledger.models import EndpointRow, RoutingRow
from ztom.ledger.records import AuditEvent
from ztom.ledger.rollouts import Rollouts
from ztom.ledger.values import from_json, to_json
from ztom.rollout.routing import RoutingTable

TableChange = Callable[[RoutingTable], RoutingTable]


class Endpoints:
    """Reads and writes what is served; part of `ztom.ledger.Ledger`.

    Attributes:
        deployments: Deployments of the variants that run.
        rollouts: Releases of the endpoints.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.deployments = Deployments(database)
        self.rollouts = Rollouts(database)

    def routing(self) -> tuple[int, RoutingTable]:
        """The table that holds, and its version; version 0 is the empty one."""
        with self._database.read() as session:
            return _routing(session)

    def table(self) -> RoutingTable:
        """The table that holds."""
        return self.routing()[1]

    def revision(self) -> str:
        """A text that is another one once anybody has written; see `Database.revision`."""
        return self._database.revision()

    def routing_version(self) -> int:
        """The version of the table that holds."""
        with self._database.read() as session:
            return int(session.scalar(select(func.max(RoutingRow.version))) or 0)

    def change_routing(
        self,
        change: TableChange,
        *,
        actor: str,
        action: str,
        subject: str,
        note: str = "",
        expected: int | None = None,
    ) -> int:
        """Replace the table by what a function makes of it; nobody else changes it meanwhile.

        Args:
            change: Function from table to table; what it raises leaves everything as it was.
            actor: Name of whoever does it.
            action: Action for the audit chain, such as ``route.promote``.
            subject: Subject for the audit chain, such as ``endpoint:support``.
            note: Note for the audit chain.
            expected: Version of the table that the caller looked at; None when any will do.

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
            after = change(before)
            if after == before:
                return version
            session.add(RoutingRow(version=version + 1, content=to_json(after), actor=actor))
            event = AuditEvent(
                actor=actor, action=action, subject=subject, note=f"table {version + 1}; {note}"
            )
            append_event(session, event)
            return version + 1

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


def _routing(session: Session) -> tuple[int, RoutingTable]:
    query = select(RoutingRow).order_by(RoutingRow.version.desc()).limit(1)
    row = session.scalars(query).first()
    if row is None:
        return 0, RoutingTable()
    return row.version, from_json(RoutingTable, row.content)
