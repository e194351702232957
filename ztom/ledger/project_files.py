"""Files of projects: the checkpoints that the server keeps, or that it knows where to find.

Only the book-keeping: no file is opened here. Bytes appear and go through functions that the caller
hands in, called inside the transaction, so that what is on disk and what is on record agree.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from sqlalchemy import select, update

from ztom.ledger.audit_store import append_event
from ztom.ledger.checkpoints import (
    CheckpointChange,
    CheckpointRecord,
    FileStatus,
    NewCheckpoint,
    Storage,
    checkpoint_record,
    checkpoint_row,
    insert_checkpoint,
    same_file,
    unreferenced,
    unused,
)
from ztom.ledger.database import Database
from ztom.ledger.models import CheckpointRow, RequestRow, now
from ztom.ledger.records import AuditEvent
from ztom.ledger.rows import project_row


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
            project_id: Id of the project.
            new: File to be added.
            actor: Name of whoever does it.
            place: Function that makes an upload appear at its address; called last, see
                `ztom.ledger.variants.Variants.record`. If it raises, nothing is written down.

        Raises:
            NotOnRecordError: There is no such project.
            AlreadyOnRecordError: There is a base model already.
        """
        with self._database.write("add a checkpoint to") as session:
            project_row(session, project_id)
            row = same_file(session, project_id, new)
            if row is None:
                row = insert_checkpoint(session, project_id, new, actor=actor)
            if place is not None:
                place()
            return checkpoint_record(row)

    def get(self, project_id: str, file_id: str) -> CheckpointRecord:
        """A file of a project.

        Raises:
            NotOnRecordError: The project has no such file.
        """
        with self._database.read() as session:
            return checkpoint_record(checkpoint_row(session, project_id, file_id))

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
            project_id: Id of the project.
            file_id: Id of the file.
            change: Fields that are to be different.
            actor: Name of whoever does it.
            place: Function that makes an upload appear at its address; see `add`.

        Returns:
            The file, and managed addresses that no row refers to any more, for `purge`.

        Raises:
            NotOnRecordError: The project has no such file.
        """
        with self._database.write("change a checkpoint in") as session:
            row = checkpoint_row(session, project_id, file_id)
            before = checkpoint_record(row)
            row.file_name = row.file_name if change.file_name is None else change.file_name
            row.tag = row.tag if change.tag is None else change.tag
            if change.address is not None:
                row.address = change.address
                row.storage = change.storage or row.storage
                row.unproven = change.unproven
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
            return checkpoint_record(row), unreferenced(session, [before])

    def delete(self, project_id: str, file_id: str, *, hard: bool, actor: str) -> tuple[str, ...]:
        """Take a file out of its project.

        Args:
            project_id: Id of the project.
            file_id: Id of the file.
            hard: Whether to take its row away as well.
            actor: Name of whoever does it.

        Returns:
            Managed addresses that no row refers to any more, for `purge`; only a hard deletion
            makes some.

        Raises:
            NotOnRecordError: The project has no such file.
        """
        with self._database.write("delete a checkpoint from") as session:
            row = checkpoint_row(session, project_id, file_id)
            before = checkpoint_record(row)
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
        usable: bool | None = None,
    ) -> None:
        """Write down what was found in a file; nothing if it is gone or was replaced meanwhile.

        Args:
            file_id: Id of the file.
            address: Address that was looked at.
            digest: Digest of the file's content; None for a file that cannot be used.
            weight_score: Mean absolute change of its weights; see `ztom.blending.changes`.
            bias_score: Mean absolute change of its biases.
            message: Message about what is wrong with it; None if nothing is.
            usable: Whether it can be used; None for what nothing is wrong with.
        """
        with self._database.write("write scores to") as session:
            row = session.get(CheckpointRow, file_id)
            if row is None or row.address != address:
                return
            valid = message is None if usable is None else usable
            row.status = FileStatus.VALID if valid else FileStatus.INVALID
            row.digest = digest or row.digest
            row.weight_score, row.bias_score = weight_score, bias_score
            row.message = message

    def pending(self) -> tuple[CheckpointRecord, ...]:
        """Files whose content was not looked at."""
        query = select(CheckpointRow).where(
            CheckpointRow.status == FileStatus.PENDING, CheckpointRow.deleted.is_(None)
        )
        with self._database.read() as session:
            return tuple(
                map(checkpoint_record, session.scalars(query.order_by(CheckpointRow.position)))
            )

    def recompute(self, project_id: str, file_id: str) -> None:
        """Have a file looked at again.

        Raises:
            NotOnRecordError: The project has no such file.
        """
        with self._database.write("change a checkpoint in") as session:
            checkpoint_row(session, project_id, file_id).status = FileStatus.PENDING

    def purge(self, addresses: Sequence[str], remove: Callable[[str], None]) -> None:
        """Remove files that no row refers to, while nobody can begin to.

        Args:
            addresses: Addresses of managed files; those that a row refers to by now are left.
            remove: Function that takes one away; what it raises ends the purge.
        """
        if not addresses:
            return
        with self._database.write("purge files of") as session:
            for address in unused(session, addresses):
                remove(address)

    def managed_of(self, project_ids: Collection[str]) -> dict[str, int]:
        """Addresses at which the server keeps files of projects, with their sizes in bytes.

        Files that were softly deleted are among them.
        """
        query = select(CheckpointRow.address, CheckpointRow.nbytes).where(
            CheckpointRow.storage == Storage.MANAGED, CheckpointRow.project_id.in_(project_ids)
        )
        with self._database.read() as session:
            return {address: nbytes or 0 for address, nbytes in session.execute(query)}

    def managed_addresses(self) -> frozenset[str]:
        """Every address at which the server keeps a file, deleted ones included."""
        query = select(CheckpointRow.address).where(CheckpointRow.storage == Storage.MANAGED)
        with self._database.read() as session:
            return frozenset(session.scalars(query))
