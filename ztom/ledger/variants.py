"""Variants that were written, where, and which of them a search has let out."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import select

from ztom.ledger.audit_store import append_event
from ztom.ledger.database import Database
from ztom.ledger.models import ReleaseRow, VariantRow
from ztom.ledger.records import AuditEntry, NewVariant, PublishedVariant, VariantRecord


class Variants:
    """Reads and writes variants; part of `ztom.ledger.Ledger`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, new: NewVariant, place: Callable[[], None]) -> AuditEntry:
        """Make a variant appear and write it down, with its audit row, in one transaction.

        One that comes from a search is written down as released, too.

        Args:
            new: Variant that is written down.
            place: Function that makes the variant appear; called last, while nobody else can write
                to the ledger, so it has to be quick. If it raises, nothing is written down. If the
                process dies between its end and that of the transaction, the variant is on disk and
                not on record, which `ztom audit verify` reports.
        """
        with self._database.write("add a variant to") as session:
            session.merge(
                VariantRow(
                    digest=new.digest,
                    address=new.address,
                    study_id=new.study_id,
                    recipe=dict(new.recipe),
                )
            )
            if new.study_id is not None:
                session.merge(
                    ReleaseRow(
                        digest=new.digest,
                        address=new.address,
                        study_id=new.study_id,
                        actor=new.event.actor,
                        insisted=new.insisted,
                    )
                )
            entry = append_event(session, new.event)
            place()
            return entry

    def all(self, *, starting_with: str = "") -> tuple[VariantRecord, ...]:
        """Variants on record, by digest and address.

        Args:
            starting_with: A variant's digest or the start of it: only such variants.
        """
        query = select(VariantRow).order_by(VariantRow.digest, VariantRow.address)
        if starting_with:
            query = query.where(VariantRow.digest.startswith(starting_with, autoescape=True))
        with self._database.read() as session:
            return tuple(
                VariantRecord(row.digest, row.address, row.study_id, row.recipe, row.created)
                for row in session.scalars(query)
            )

    def published(self) -> tuple[PublishedVariant, ...]:
        """Every variant that a search has let out, oldest first."""
        query = select(ReleaseRow).order_by(ReleaseRow.study_id, ReleaseRow.address)
        with self._database.read() as session:
            return tuple(
                PublishedVariant(
                    digest=row.digest,
                    address=row.address,
                    study_id=row.study_id,
                    actor=row.actor,
                    insisted=row.insisted,
                    created=row.created,
                )
                for row in session.scalars(query)
            )
