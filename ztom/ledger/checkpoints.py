"""Checkpoints that are files of projects: the values, and how they stand in the database.

`ztom.ledger.project_files` and other parts of the ledger work with them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from ztom.errors import AlreadyOnRecordError, NotOnRecordError
from ztom.ledger.audit_store import append_event
from ztom.ledger.models import CheckpointRow, DeploymentRow
from ztom.ledger.records import AuditEvent
from ztom.ledger.rows import is_served


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
        file_name: Name of the file for people.
        format: Format on the wire, such as ``HF_TEXT_GENERATION``.
        storage: Whether the server keeps it.
        address: Address that `ztom.checkpoints` opens.
        part: Part that it plays in the chain.
        tag: A short name.
        nbytes: Size of what was uploaded, bytes.
        digest: Digest of the checkpoint's content, where it is known.
        content: sha256 of what was uploaded, for the audit chain.
        unproven: Whether a search wrote it and did not prove it to be better.
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
    unproven: bool = False


@dataclass(frozen=True, slots=True)
class CheckpointChange:
    """What is to be different about a file; None leaves it. A new address is looked at anew.

    With a new address comes whether that one is ``unproven``.
    """

    file_name: str | None = None
    tag: str | None = None
    storage: Storage | None = None
    address: str | None = None
    nbytes: int | None = None
    content: str | None = None
    unproven: bool = False


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """A file of a project as callers see it.

    Attributes:
        digest: Digest of its content; None until it was looked at.
        weight_score: Mean absolute change of its weights, see `ztom.blending.changes`; None until
            computed, and for the chain's first.
        bias_score: Mean absolute change of its biases, likewise.
        message: What is wrong with an invalid file; of a valid one, what its chain has to be
            allowed to differ in.
        unproven: Whether a search wrote it and did not prove it to be better.
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
    unproven: bool = False


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
        unproven=new.unproven,
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
    for row in session.scalars(query.order_by(CheckpointRow.position)):
        files[row.project_id].append(checkpoint_record(row))
    for records in files.values():
        records.sort(key=lambda file: (file.part is not Part.BASE, file.position))
    return {project_id: tuple(records) for project_id, records in files.items()}


def unreferenced(
    session: Session, files: Iterable[CheckpointRow | CheckpointRecord]
) -> tuple[str, ...]:
    """Addresses of managed files that no row refers to."""
    managed = sorted({file.address for file in files if file.storage == Storage.MANAGED})
    return unused(session, managed)


def _live(project_id: str) -> Select[Any]:
    return select(CheckpointRow).where(
        CheckpointRow.project_id == project_id, CheckpointRow.deleted.is_(None)
    )


def same_file(session: Session, project_id: str, new: NewCheckpoint) -> CheckpointRow | None:
    """The file that is at this place in the chain already, or None."""
    query = _live(project_id).where(
        CheckpointRow.address == new.address, CheckpointRow.part == new.part
    )
    row: CheckpointRow | None = session.scalars(query).first()
    return row


def unused(session: Session, addresses: Sequence[str]) -> tuple[str, ...]:
    """The addresses that neither a file nor a deployment refers to."""
    query = select(CheckpointRow.address).where(CheckpointRow.address.in_(addresses))
    used = set(session.scalars(query))
    used |= set(session.scalars(select(DeploymentRow.address).where(is_served())))
    return tuple(address for address in addresses if address not in used)


def checkpoint_row(session: Session, project_id: str, file_id: str) -> CheckpointRow:
    """A file of a project.

    Raises:
        NotOnRecordError: The project has no such file.
    """
    row = session.get(CheckpointRow, file_id)
    if row is None or row.project_id != project_id or row.deleted is not None:
        raise NotOnRecordError("the project has no such file", got=file_id)
    return row


def checkpoint_record(row: CheckpointRow) -> CheckpointRecord:
    """A file as callers see it."""
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
        unproven=row.unproven,
    )
