"""Files of projects: the checkpoints that the server keeps, or that it knows where to find.

Only the book-keeping: no file is opened here. Bytes appear and go through functions that the caller
hands in, called inside the transaction, so that what is on disk and what is on record agree.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from ztom.errors import AlreadyOnRecordError, NotOnRecordError
from ztom.ledger.audit_store import append_event
from ztom.ledger.database import Database
from ztom.ledger.models import CheckpointRow, DeploymentRow, RequestRow, now
from ztom.ledger.records import AuditEvent
from ztom.ledger.rows import is_served, project_row


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


class ProjectFiles:
    """Reads and writes the files of projects; part of `ztom.ledger.Ledger`.

    A deleted file is not on record for any method, unless the deletion was hard, when nothing but
    the audit chain knows of it. Adding, changing and deleting one is a row of the audit chain, in
    the same transaction. Every method raises LedgerError when the database fails, or is locked for
    longer than the busy timeout.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
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
                `ztom.ledger.Ledger.record_variant`. If it raises, nothing is written down.

        Raises:
            NotOnRecordError: There is no such project.
            AlreadyOnRecordError: There is a base model already.
        """
        with self._database.write("add a checkpoint to") as session:
            project_row(session, project_id)
            row = _same_file(session, project_id, new)
            if row is None:
                row = insert_checkpoint(session, project_id, new, actor=actor)
            if place is not None:
                place()
            return _checkpoint(row)

    def get(self, project_id: str, file_id: str) -> CheckpointRecord:
        """A file of a project.

        Raises:
            NotOnRecordError: The project has no such file.
        """
        with self._database.read() as session:
            return _checkpoint(_checkpoint_row(session, project_id, file_id))

    def change(
        self,
        project_id: str,
        file_id: str,
        change: CheckpointChange,
        *,
        actor: str,
        place: Callable[[], None] | None = None,
    ) -> tuple[CheckpointRecord, tuple[str, ...]]:
        """Rename a file, or put another one in its place.

        Args:
            project_id: Whose.
            file_id: Which.
            change: What is to be different.
            actor: Who does it.
            place: See `add`.

        Returns:
            The file, and managed addresses that no row refers to any more, for `purge`.

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
            return _checkpoint(row), unreferenced(session, [before])

    def delete(self, project_id: str, file_id: str, *, hard: bool, actor: str) -> tuple[str, ...]:
        """Take a file out of its project.

        Args:
            project_id: Whose.
            file_id: Which.
            hard: Take its row away as well.
            actor: Who does it.

        Returns:
            Managed addresses that no row refers to any more, for `purge`; only a hard deletion
            makes some.

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
            return unreferenced(session, [before]) if hard else ()

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

    def purge(self, addresses: Sequence[str], remove: Callable[[str], None]) -> None:
        """Remove files that no row refers to, while nobody can begin to.

        Args:
            addresses: Of managed files; those that a row refers to by now are left.
            remove: Takes one away; what it raises ends the purge.
        """
        if not addresses:
            return
        with self._database.write("purge files of") as session:
            for address in _unused(session, addresses):
                remove(address)

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


def files_of(
    session: Session, project_ids: Sequence[str]
) -> dict[str, tuple[CheckpointRecord, ...]]:
    """Every project's files in one query: the base model first, then as they were added."""
    query = select(CheckpointRow).where(
        CheckpointRow.project_id.in_(project_ids), CheckpointRow.deleted.is_(None)
    )
    files: dict[str, list[CheckpointRecord]] = {project_id: [] for project_id in project_ids}
    for each in session.scalars(query.order_by(CheckpointRow.position)):
        files[each.project_id].append(_checkpoint(each))
    for found in files.values():
        found.sort(key=lambda file: (file.part is not Part.BASE, file.position))
    return {project_id: tuple(found) for project_id, found in files.items()}


def unreferenced(
    session: Session, files: Iterable[CheckpointRow | CheckpointRecord]
) -> tuple[str, ...]:
    """Addresses of managed files that no row refers to."""
    managed = sorted({file.address for file in files if file.storage == Storage.MANAGED})
    return _unused(session, managed)


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


def _unused(session: Session, addresses: Sequence[str]) -> tuple[str, ...]:
    query = select(CheckpointRow.address).where(CheckpointRow.address.in_(addresses))
    used = set(session.scalars(query))
    used |= set(session.scalars(select(DeploymentRow.address).where(is_served())))
    return tuple(address for address in addresses if address not in used)


def _checkpoint_row(session: Session, project_id: str, file_id: str) -> CheckpointRow:
    row = session.get(CheckpointRow, file_id)
    if row is None or row.project_id != project_id or row.deleted is not None:
        raise NotOnRecordError("the project has no such file", got=file_id)
    return row


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
