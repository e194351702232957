"""Projects: who works on which checkpoints; the files themselves: `ztom.ledger.project_files`.

The chain of a project is its base model, where there is one, and then its iterations in the order
in which they were added. What a search wrote (*mastered*) is a file of the project too, but no part
of the chain: the next search would otherwise take the last one's answer for a training step.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from ztom.errors import AlreadyOnRecordError, NotOnRecordError
from ztom.ledger.audit_store import append_event
from ztom.ledger.checkpoints import CheckpointRecord, Part, files_of, unreferenced
from ztom.ledger.database import Database
from ztom.ledger.models import (
    ApiKeyRow,
    CheckpointRow,
    DataSetRow,
    DeploymentRow,
    EndpointRow,
    FeedbackRow,
    GateVerdictRow,
    MembershipRow,
    ObservationRow,
    ProjectRow,
    RequestRow,
    RolloutRow,
    UserRow,
    now,
)
from ztom.ledger.records import AuditEvent
from ztom.ledger.rows import is_served, project_row


class Role(StrEnum):
    """What a member may do: look, change, or also manage members and delete."""

    OWNER = "owner"
    EDITOR = "editor"
    VIEWER = "viewer"


@dataclass(frozen=True, slots=True)
class ProjectRecord:
    """A project as callers see it; the files are the base model first, then as they were added."""

    id: str
    name: str
    description: str
    format: str
    created: str
    files: tuple[CheckpointRecord, ...]

    @property
    def base(self) -> CheckpointRecord | None:
        """The base model."""
        return next((file for file in self.files if file.part is Part.BASE), None)

    @property
    def chain(self) -> tuple[CheckpointRecord, ...]:
        """What a search works on: base model and iterations."""
        return tuple(file for file in self.files if file.part is not Part.MASTERED)


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """Somebody who works on a project."""

    user_id: str
    email: str
    username: str
    role: Role


class Projects:
    """Reads and writes projects and members; part of `ztom.ledger.Ledger`.

    A deleted project is not on record for any method, unless the deletion was hard, when nothing
    but the audit chain knows of it. Every change of a project or its members is a row of the audit
    chain, in the same transaction. Every method raises LedgerError when the database fails, or is
    locked for longer than the busy timeout.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, *, name: str, description: str, format: str, owner: str, actor: str
    ) -> ProjectRecord:
        """Add a project that belongs to the user with the id ``owner``.

        Raises:
            LedgerError: There is no such user.
        """
        with self._database.write("add a project to") as session:
            row = ProjectRow(id=uuid.uuid4().hex, name=name, description=description, format=format)
            session.add(row)
            session.flush()
            session.add(MembershipRow(project_id=row.id, user_id=owner, role=Role.OWNER))
            _audit(session, actor, "project.create", row.id)
            return _project(session, row)

    def get(self, project_id: str) -> ProjectRecord:
        """The project with this id.

        Raises:
            NotOnRecordError: There is none.
        """
        with self._database.read() as session:
            return _project(session, project_row(session, project_id))

    def visible_to(self, user_id: str | None) -> tuple[ProjectRecord, ...]:
        """The projects of a user, oldest first; all of them for None."""
        query = select(ProjectRow).where(ProjectRow.deleted.is_(None))
        if user_id is not None:
            query = query.join(MembershipRow).where(MembershipRow.user_id == user_id)
        with self._database.read() as session:
            rows = session.scalars(query.order_by(ProjectRow.created, ProjectRow.id)).all()
            return _projects(session, rows)

    def ids_of(self, user_id: str) -> frozenset[str]:
        """Ids of the projects that the user works on."""
        query = (
            select(MembershipRow.project_id)
            .join(ProjectRow)
            .where(MembershipRow.user_id == user_id, ProjectRow.deleted.is_(None))
        )
        with self._database.read() as session:
            return frozenset(session.scalars(query))

    def owned_by(self, user_id: str) -> frozenset[str]:
        """Ids of the projects that are the user's own, softly deleted ones too."""
        query = select(MembershipRow.project_id).where(
            MembershipRow.user_id == user_id, MembershipRow.role == Role.OWNER
        )
        with self._database.read() as session:
            return frozenset(session.scalars(query))

    def owners(self, project_id: str) -> tuple[str, ...]:
        """Ids of the users whose own the project is."""
        query = select(MembershipRow.user_id).where(
            MembershipRow.project_id == project_id, MembershipRow.role == Role.OWNER
        )
        with self._database.read() as session:
            return tuple(session.scalars(query.order_by(MembershipRow.user_id)))

    def role(self, project_id: str, user_id: str) -> Role | None:
        """What the user may do there; None for nothing, or where there is no such project."""
        query = (
            select(MembershipRow.role)
            .join(ProjectRow)
            .where(
                MembershipRow.project_id == project_id,
                MembershipRow.user_id == user_id,
                ProjectRow.deleted.is_(None),
            )
        )
        with self._database.read() as session:
            role = session.scalar(query)
            return None if role is None else Role(role)

    def change(
        self, project_id: str, *, name: str | None, description: str | None, actor: str
    ) -> ProjectRecord:
        """Rename a project, or describe it anew.

        Raises:
            NotOnRecordError: There is none.
        """
        with self._database.write("change a project in") as session:
            row = project_row(session, project_id)
            row.name = row.name if name is None else name
            row.description = row.description if description is None else description
            _audit(session, actor, "project.change", row.id)
            return _project(session, row)

    def delete(self, project_ids: Sequence[str], *, hard: bool, actor: str) -> tuple[str, ...]:
        """Delete projects: all of them, or none.

        Args:
            project_ids: Ids of the projects.
            hard: Whether to take their rows away as well.
            actor: Name of whoever does it.

        Returns:
            Addresses of managed files that no row refers to any more, for `ProjectFiles.purge`.

        Raises:
            NotOnRecordError: One of them is none.
            AlreadyOnRecordError: A request of one of them is under way, or it serves variants.
        """
        with self._database.write("delete projects from") as session:
            orphans: list[str] = []
            for project_id in project_ids:
                row = project_row(session, project_id)
                _refuse_open_requests(session, project_id)
                _refuse_served(session, project_id)
                row.deleted = now()
                if hard:
                    _delete_served(session, project_id)
                    of_it = select(CheckpointRow).where(CheckpointRow.project_id == project_id)
                    files = session.scalars(of_it).all()
                    for table in (RequestRow, CheckpointRow, MembershipRow, DataSetRow, ApiKeyRow):
                        session.execute(delete(table).where(table.project_id == project_id))
                    session.delete(row)
                    session.flush()
                    orphans += unreferenced(session, files)
                note = "hard" if hard else "soft"
                _audit(session, actor, "project.delete", project_id, note=note)
            return tuple(orphans)

    def members(self, project_id: str) -> tuple[MemberRecord, ...]:
        """The members of a project with their roles, by name."""
        query = (
            select(UserRow, MembershipRow.role)
            .join(MembershipRow, MembershipRow.user_id == UserRow.id)
            .where(MembershipRow.project_id == project_id)
            .order_by(UserRow.username)
        )
        with self._database.read() as session:
            return tuple(
                MemberRecord(user.id, user.email, user.username, Role(role))
                for user, role in session.execute(query)
            )

    def set_member(self, project_id: str, user_id: str, role: Role, *, actor: str) -> None:
        """Let a user in, or change what they may do.

        Raises:
            NotOnRecordError: No such project or user.
            AlreadyOnRecordError: No owner would be left.
        """
        with self._database.write("add a member to") as session:
            project_row(session, project_id)
            if session.get(UserRow, user_id) is None:
                raise NotOnRecordError("there is no such user", got=user_id)
            session.merge(MembershipRow(project_id=project_id, user_id=user_id, role=role))
            session.flush()
            _require_an_owner(session, project_id)
            note = f"user:{user_id} is {role}"
            _audit(session, actor, "project.member", project_id, note=note)

    def remove_member(self, project_id: str, user_id: str, *, actor: str) -> None:
        """Take a user out.

        Raises:
            NotOnRecordError: They are not in.
            AlreadyOnRecordError: No owner would be left.
        """
        with self._database.write("remove a member from") as session:
            row = session.get(MembershipRow, (project_id, user_id))
            if row is None:
                raise NotOnRecordError("there is no such member", got=user_id)
            session.delete(row)
            session.flush()
            _require_an_owner(session, project_id)
            note = f"user:{user_id} is out"
            _audit(session, actor, "project.member", project_id, note=note)

    def record_data(self, project_id: str, name: str, *, digest: str, nbytes: int) -> None:
        """Write down that a data set took part.

        Raises:
            LedgerError: There is no such project.
        """
        with self._database.write("add a data set to") as session:
            if session.get(DataSetRow, (project_id, digest)) is None:
                session.add(
                    DataSetRow(project_id=project_id, digest=digest, name=name, nbytes=nbytes)
                )


def _refuse_open_requests(session: Session, project_id: str) -> None:
    query = select(RequestRow.id).where(
        RequestRow.project_id == project_id, RequestRow.status.in_(("queued", "running"))
    )
    open_request = session.scalars(query).first()
    if open_request is not None:
        raise AlreadyOnRecordError(
            "a request of the project is under way",
            got=open_request,
            fix="Wait for it, or cancel it.",
        )


def _delete_served(session: Session, project_id: str) -> None:
    """Endpoints of a project that serves nothing, and their history; their aliases are free."""
    aliases = select(EndpointRow.alias).where(EndpointRow.project_id == project_id)
    rollouts = select(RolloutRow.id).where(RolloutRow.alias.in_(aliases))
    for seen in (ObservationRow, FeedbackRow):
        session.execute(delete(seen).where(seen.rollout_id.in_(rollouts)))
    session.execute(delete(RolloutRow).where(RolloutRow.alias.in_(aliases)))
    for table in (EndpointRow, DeploymentRow, GateVerdictRow):
        session.execute(delete(table).where(table.project_id == project_id))


def _refuse_served(session: Session, project_id: str) -> None:
    query = select(DeploymentRow.name).where(DeploymentRow.project_id == project_id, is_served())
    served = session.scalars(query).first()
    if served is not None:
        raise AlreadyOnRecordError(
            "the project serves variants", got=served, fix="Remove its endpoints first."
        )


def _require_an_owner(session: Session, project_id: str) -> None:
    query = select(func.count()).where(
        MembershipRow.project_id == project_id, MembershipRow.role == Role.OWNER
    )
    if session.scalar(query) == 0:
        raise AlreadyOnRecordError("no owner would be left", fix="Make somebody else one first.")


def _audit(session: Session, actor: str, action: str, project_id: str, *, note: str = "") -> None:
    event = AuditEvent(actor=actor, action=action, subject=f"project:{project_id}", note=note)
    append_event(session, event)


def _project(session: Session, row: ProjectRow) -> ProjectRecord:
    return _projects(session, [row])[0]


def _projects(session: Session, rows: Sequence[ProjectRow]) -> tuple[ProjectRecord, ...]:
    """The projects of rows with their files, read in one query."""
    files = files_of(session, [row.id for row in rows])
    return tuple(
        ProjectRecord(
            id=row.id,
            name=row.name,
            description=row.description,
            format=row.format,
            created=row.created,
            files=files[row.id],
        )
        for row in rows
    )
