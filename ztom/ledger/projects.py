"""Projects: who works on which checkpoints.

The chain of a project is its base model, where there is one, and then its iterations in the order
in which they were added. What a search wrote (*mastered*) is a file of the project too, but no part
of the chain: the next search would otherwise take the last one's answer for a training step.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Select, delete, func, select, update
from sqlalchemy.orm import Session

from ztom.errors import AlreadyOnRecordError, NotOnRecordError
from ztom.ledger.audit_store import append_event
from ztom.ledger.database import Database
from ztom.ledger.models import (
    ApiKeyRow,
    CheckpointRow,
    DataSetRow,
    DeploymentRow,
    EndpointRow,
    MembershipRow,
    ProjectRow,
    RequestRow,
    UserRow,
    now,
)
from ztom.ledger.records import AuditEvent


class Role(StrEnum):
    """What a member may do: look, change, or also manage members and delete."""

    OWNER = "owner"
    EDITOR = "editor"
    VIEWER = "viewer"


class Part(StrEnum):
    """Where a file stands in its project."""

    BASE = "base"
    ITERATION = "iteration"
    MASTERED = "mastered"


class Storage(StrEnum):
    """Whether the server keeps the bytes, or only knows where they are."""

    MANAGED = "managed"
    POINTER = "pointer"


class FileStatus(StrEnum):
    """Whether a file's content was looked at, and what was found."""

    PENDING = "pending"
    VALID = "valid"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class NewCheckpoint:
    """A file to be.

    Attributes:
        file_name: For people.
        format: Of the wire, such as ``HF_TEXT_GENERATION``.
        storage: Whether the server keeps it.
        address: What `ztom.checkpoints` opens.
        part: Where it stands in the chain.
        tag: A short name.
        nbytes: Of what was uploaded.
        digest: Of the checkpoint's content, where it is known.
        content: sha256 of what was uploaded, for the audit chain.
    """

    file_name: str
    format: str
    storage: Storage
    address: str
    part: Part = Part.ITERATION
    tag: str | None = None
    nbytes: int | None = None
    digest: str | None = None
    content: str | None = None


@dataclass(frozen=True, slots=True)
class CheckpointChange:
    """What is to be different about a file; None leaves it. A new address is looked at anew."""

    file_name: str | None = None
    tag: str | None = None
    storage: Storage | None = None
    address: str | None = None
    nbytes: int | None = None
    content: str | None = None


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """A file of a project as callers see it.

    Attributes:
        digest: Of its content; None until it was looked at.
        weight_score: See `ztom.blending.scores`; None until computed, and for the chain's first.
        bias_score: The same for biases.
        message: What is wrong with an invalid file.
    """

    id: str
    project_id: str
    position: int
    part: Part
    file_name: str
    tag: str | None
    format: str
    storage: Storage
    address: str
    nbytes: int | None
    digest: str | None
    weight_score: float | None
    bias_score: float | None
    status: FileStatus
    message: str | None
    created: str


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
    """Reads and writes projects, members and files; part of `ztom.ledger.Ledger`.

    A deleted project or file is not on record for any method, unless the deletion was hard, when
    nothing but the audit chain knows of it. Every change is a row of the audit chain, in the same
    transaction.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, *, name: str, description: str, format: str, owner: str, actor: str
    ) -> ProjectRecord:
        """Add a project that belongs to the user with the id ``owner``."""
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
            return _project(session, _project_row(session, project_id))

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
            row = _project_row(session, project_id)
            row.name = row.name if name is None else name
            row.description = row.description if description is None else description
            _audit(session, actor, "project.change", row.id)
            return _project(session, row)

    def delete(self, project_ids: Sequence[str], *, hard: bool, actor: str) -> tuple[str, ...]:
        """Delete projects: all of them, or none.

        Args:
            project_ids: Which.
            hard: Take their rows away as well.
            actor: Who does it.

        Returns:
            Addresses of managed files that no row refers to any more, for `purge`.

        Raises:
            NotOnRecordError: One of them is none.
            AlreadyOnRecordError: A request of one of them is under way.
        """
        with self._database.write("delete projects from") as session:
            orphans: list[str] = []
            for project_id in project_ids:
                row = _project_row(session, project_id)
                _refuse_open_requests(session, project_id)
                _refuse_served(session, project_id)
                row.deleted = now()
                if hard:
                    for served in (EndpointRow, DeploymentRow):
                        left = update(served).where(served.project_id == project_id)
                        session.execute(left.values(project_id=None))
                    of_it = select(CheckpointRow).where(CheckpointRow.project_id == project_id)
                    files = session.scalars(of_it).all()
                    for table in (RequestRow, CheckpointRow, MembershipRow, DataSetRow, ApiKeyRow):
                        session.execute(delete(table).where(table.project_id == project_id))
                    session.delete(row)
                    session.flush()
                    orphans += _orphans(session, files)
                note = "hard" if hard else "soft"
                _audit(session, actor, "project.delete", project_id, note=note)
            return tuple(orphans)

    def purge(self, addresses: Sequence[str], remove: Callable[[str], None]) -> None:
        """Remove files that no row refers to, while nobody can begin to.

        Args:
            addresses: Of managed files; those that a row refers to by now are left.
            remove: Takes one away.
        """
        if not addresses:
            return
        with self._database.write("purge files of") as session:
            for address in _unused(session, addresses):
                remove(address)

    def members(self, project_id: str) -> tuple[MemberRecord, ...]:
        """Who works on it, by name."""
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
            _project_row(session, project_id)
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

    def add_checkpoint(
        self,
        project_id: str,
        new: NewCheckpoint,
        *,
        actor: str,
        place: Callable[[], None] | None = None,
    ) -> CheckpointRecord:
        """Add a file at the end; the same file at the same place in the chain is added once.

        Args:
            project_id: Whose.
            new: The file.
            actor: Who does it.
            place: Makes an upload appear at its address; called last, see
                `ztom.ledger.Ledger.record_variant`.

        Raises:
            NotOnRecordError: There is no such project.
            AlreadyOnRecordError: There is a base model already.
        """
        with self._database.write("add a checkpoint to") as session:
            _project_row(session, project_id)
            row = _same_file(session, project_id, new)
            if row is None:
                row = insert_checkpoint(session, project_id, new, actor=actor)
            if place is not None:
                place()
            return _checkpoint(row)

    def checkpoint(self, project_id: str, file_id: str) -> CheckpointRecord:
        """A file of a project.

        Raises:
            NotOnRecordError: The project has no such file.
        """
        with self._database.read() as session:
            return _checkpoint(_checkpoint_row(session, project_id, file_id))

    def change_checkpoint(
        self,
        project_id: str,
        file_id: str,
        change: CheckpointChange,
        *,
        actor: str,
        place: Callable[[], None] | None = None,
    ) -> tuple[CheckpointRecord, tuple[str, ...]]:
        """Rename a file, or put another one in its place.

        Returns:
            The file, and managed addresses that no row refers to any more.

        Raises:
            NotOnRecordError: The project has no such file.
        """
        with self._database.write("change a checkpoint in") as session:
            row = _checkpoint_row(session, project_id, file_id)
            before = _checkpoint(row)
            row.file_name = row.file_name if change.file_name is None else change.file_name
            row.tag = row.tag if change.tag is None else change.tag
            if change.address is not None:
                row.address = change.address
                row.storage = change.storage or row.storage
                row.nbytes, row.digest, row.message = change.nbytes, None, None
                row.weight_score = row.bias_score = None
                row.status = FileStatus.PENDING
            session.flush()
            append_event(
                session,
                AuditEvent(
                    actor=actor,
                    action="checkpoint.change",
                    subject=f"checkpoint:{file_id}",
                    before=() if before.digest is None else (before.digest,),
                    after=change.content,
                    note=f"project:{project_id}",
                ),
            )
            if place is not None:
                place()
            return _checkpoint(row), _orphans(session, [before])

    def delete_checkpoint(
        self, project_id: str, file_id: str, *, hard: bool, actor: str
    ) -> tuple[str, ...]:
        """Take a file out of its project.

        Returns:
            Managed addresses that no row refers to any more; only a hard deletion makes some.

        Raises:
            NotOnRecordError: The project has no such file.
        """
        with self._database.write("delete a checkpoint from") as session:
            row = _checkpoint_row(session, project_id, file_id)
            before = _checkpoint(row)
            row.deleted = now()
            if hard:
                uses = update(RequestRow).where(RequestRow.checkpoint_id == file_id)
                session.execute(uses.values(checkpoint_id=None))
                session.delete(row)
            session.flush()
            append_event(
                session,
                AuditEvent(
                    actor=actor,
                    action="checkpoint.delete",
                    subject=f"checkpoint:{file_id}",
                    before=() if before.digest is None else (before.digest,),
                    note=f"project:{project_id}, {'hard' if hard else 'soft'}",
                ),
            )
            return _orphans(session, [before]) if hard else ()

    def set_scores(
        self,
        file_id: str,
        *,
        address: str,
        digest: str | None,
        weight_score: float | None = None,
        bias_score: float | None = None,
        message: str | None = None,
    ) -> None:
        """Write down what was found in a file; nothing if it is gone or was replaced meanwhile.

        Args:
            file_id: Which.
            address: What was looked at.
            digest: Of its content; None for a file that cannot be used.
            weight_score: See `ztom.blending.scores`.
            bias_score: The same.
            message: What is wrong with it; None if nothing is.
        """
        with self._database.write("write scores to") as session:
            row = session.get(CheckpointRow, file_id)
            if row is None or row.address != address:
                return
            row.status = FileStatus.VALID if message is None else FileStatus.INVALID
            row.digest = digest or row.digest
            row.weight_score, row.bias_score = weight_score, bias_score
            row.message = message

    def pending(self) -> tuple[CheckpointRecord, ...]:
        """Files whose content was not looked at."""
        query = select(CheckpointRow).where(
            CheckpointRow.status == FileStatus.PENDING, CheckpointRow.deleted.is_(None)
        )
        with self._database.read() as session:
            return tuple(map(_checkpoint, session.scalars(query.order_by(CheckpointRow.position))))

    def recompute(self, project_id: str, file_id: str) -> None:
        """Have a file looked at again.

        Raises:
            NotOnRecordError: The project has no such file.
        """
        with self._database.write("change a checkpoint in") as session:
            _checkpoint_row(session, project_id, file_id).status = FileStatus.PENDING

    def record_data(self, project_id: str, name: str, *, digest: str, nbytes: int) -> None:
        """Write down that a data set took part."""
        with self._database.write("add a data set to") as session:
            if session.get(DataSetRow, (project_id, digest)) is None:
                session.add(
                    DataSetRow(project_id=project_id, digest=digest, name=name, nbytes=nbytes)
                )

    def managed_addresses(self) -> frozenset[str]:
        """Every address at which the server keeps a file, deleted ones included."""
        query = select(CheckpointRow.address).where(CheckpointRow.storage == Storage.MANAGED)
        with self._database.read() as session:
            return frozenset(session.scalars(query))


def insert_checkpoint(
    session: Session, project_id: str, new: NewCheckpoint, *, actor: str
) -> CheckpointRow:
    """Add the row and its audit row, in the caller's transaction.

    Raises:
        AlreadyOnRecordError: There is a base model already.
    """
    if new.part is Part.BASE:
        bases = _live(project_id).where(CheckpointRow.part == Part.BASE)
        if session.scalars(bases).first() is not None:
            raise AlreadyOnRecordError(
                "the project has a base model", fix="Change it, or delete it first."
            )
    last = session.scalar(
        select(func.max(CheckpointRow.position)).where(CheckpointRow.project_id == project_id)
    )
    row = CheckpointRow(
        id=uuid.uuid4().hex,
        project_id=project_id,
        position=0 if last is None else last + 1,
        part=new.part,
        file_name=new.file_name,
        tag=new.tag,
        format=new.format,
        storage=new.storage,
        address=new.address,
        nbytes=new.nbytes,
        digest=new.digest,
    )
    session.add(row)
    session.flush()
    append_event(
        session,
        AuditEvent(
            actor=actor,
            action="checkpoint.add",
            subject=f"checkpoint:{row.id}",
            after=new.digest or new.content,
            note=f"project:{project_id}, {new.storage} {new.part}",
        ),
    )
    return row


def _live(project_id: str) -> Select[Any]:
    return select(CheckpointRow).where(
        CheckpointRow.project_id == project_id, CheckpointRow.deleted.is_(None)
    )


def _same_file(session: Session, project_id: str, new: NewCheckpoint) -> CheckpointRow | None:
    query = _live(project_id).where(
        CheckpointRow.address == new.address, CheckpointRow.part == new.part
    )
    row: CheckpointRow | None = session.scalars(query).first()
    return row


def _orphans(
    session: Session, files: Iterable[CheckpointRow | CheckpointRecord]
) -> tuple[str, ...]:
    """Addresses of managed files that no row refers to."""
    managed = sorted({file.address for file in files if file.storage == Storage.MANAGED})
    return _unused(session, managed)


def _unused(session: Session, addresses: Sequence[str]) -> tuple[str, ...]:
    query = select(CheckpointRow.address).where(CheckpointRow.address.in_(addresses))
    used = set(session.scalars(query))
    served = DeploymentRow.state.in_(("starting", "ready"))
    used |= set(session.scalars(select(DeploymentRow.address).where(served)))
    return tuple(address for address in addresses if address not in used)


def _refuse_open_requests(session: Session, project_id: str) -> None:
    query = select(RequestRow.id).where(
        RequestRow.project_id == project_id, RequestRow.status.in_(("queued", "running"))
    )
    found = session.scalars(query).first()
    if found is not None:
        raise AlreadyOnRecordError(
            "a request of the project is under way", got=found, fix="Wait for it, or cancel it."
        )


def _refuse_served(session: Session, project_id: str) -> None:
    query = select(DeploymentRow.name).where(
        DeploymentRow.project_id == project_id, DeploymentRow.state.in_(("starting", "ready"))
    )
    found = session.scalars(query).first()
    if found is not None:
        raise AlreadyOnRecordError(
            "the project serves variants", got=found, fix="Remove its endpoints first."
        )


def _project_row(session: Session, project_id: str) -> ProjectRow:
    row = session.get(ProjectRow, project_id)
    if row is None or row.deleted is not None:
        raise NotOnRecordError("there is no such project", got=project_id)
    return row


def _checkpoint_row(session: Session, project_id: str, file_id: str) -> CheckpointRow:
    row = session.get(CheckpointRow, file_id)
    if row is None or row.project_id != project_id or row.deleted is not None:
        raise NotOnRecordError("the project has no such file", got=file_id)
    return row


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
    """With their files, in one query."""
    query = select(CheckpointRow).where(
        CheckpointRow.project_id.in_([row.id for row in rows]), CheckpointRow.deleted.is_(None)
    )
    files: dict[str, list[CheckpointRecord]] = {row.id: [] for row in rows}
    for each in session.scalars(query.order_by(CheckpointRow.position)):
        files[each.project_id].append(_checkpoint(each))
    for found in files.values():
        found.sort(key=lambda file: (file.part is not Part.BASE, file.position))
    return tuple(
        ProjectRecord(
            id=row.id,
            name=row.name,
            description=row.description,
            format=row.format,
            created=row.created,
            files=tuple(files[row.id]),
        )
        for row in rows
    )


def _checkpoint(row: CheckpointRow) -> CheckpointRecord:
    return CheckpointRecord(
        id=row.id,
        project_id=row.project_id,
        position=row.position,
        part=Part(row.part),
        file_name=row.file_name,
        tag=row.tag,
        format=row.format,
        storage=Storage(row.storage),
        address=row.address,
        nbytes=row.nbytes,
        digest=row.digest,
        weight_score=row.weight_score,
        bias_score=row.bias_score,
        status=FileStatus(row.status),
        message=row.message,
        created=row.created,
    )
