"""What the gate said about models: verdicts on record, each with its row of the audit chain.

A verdict is for one project, or for all of them (None). What it says besides whom it is about and
its outcome is JSON here; what it means is `ztom.evaluation`'s.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from ztom.errors import NotOnRecordError
from ztom.io.signatures import fingerprint
from ztom.ledger.audit_store import append_event
from ztom.ledger.database import Database
from ztom.ledger.models import GateVerdictRow, SigningKeyRow
from ztom.ledger.records import AuditEvent


@dataclass(frozen=True, slots=True)
class NewVerdict:
    """A verdict as it is written down.

    Attributes:
        document: Bytes of the JSON document; their sha256 names the verdict.
        candidate: Digest of the model that was judged.
        champion: Digest of the model that it was compared with; None when there was none.
        outcome: ``pass``, ``fail`` or ``inconclusive``.
        project_id: Id of the project whose deployments it counts for; None for everybody's.
        public_key: Public key that has signed it, in Base64; None where nobody has.
    """

    document: bytes
    candidate: str
    champion: str | None
    outcome: str
    project_id: str | None = None
    public_key: str | None = None


@dataclass(frozen=True, slots=True)
class VerdictRecord:
    """A verdict on record; `Verdicts.content` is the rest of it.

    Attributes:
        number: Number of its row in the audit chain: a later verdict has a higher one.
        sha256: Lower-case hex sha256 of the document.
        created: Time for display only, ISO 8601.
        public_key: Public key that has signed it, in Base64; None where nobody has.
        signer: Name of that key, where it is registered and was not revoked. Without one, a pass is
            a claim.
    """

    number: int
    sha256: str
    candidate: str
    champion: str | None
    outcome: str
    project_id: str | None
    actor: str
    created: str
    public_key: str | None = None
    signer: str | None = None

    @property
    def is_claim(self) -> bool:
        """Whether it says pass, and nobody whom the operator trusts has signed that."""
        return self.outcome == _PASS and self.signer is None


_PASS = "pass"
_COLUMNS = tuple(
    SigningKeyRow.name if name == "signer" else getattr(GateVerdictRow, name)
    for name in VerdictRecord.__slots__
)


class Verdicts:
    """Reads and writes verdicts of the gate; part of `ztom.ledger.Ledger`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, new: NewVerdict, *, actor: str) -> VerdictRecord:
        """Write a verdict down.

        One that is on record for this project stays as it is: sent again, an old one does not
        become the latest.

        Raises:
            LedgerError: There is no such project, or the document is no JSON.
        """
        sha256 = hashlib.sha256(new.document).hexdigest()
        same = select(GateVerdictRow).where(
            GateVerdictRow.sha256 == sha256, _is_for(new.project_id)
        )
        with self._database.write("add a verdict to") as session:
            row = session.scalars(same).first()
            if row is None:
                event = AuditEvent(
                    actor=actor,
                    action="verdict.record",
                    subject=f"variant:{new.candidate}",
                    before=() if new.champion is None else (new.champion,),
                    after=sha256,
                    note=f"{new.outcome}, {_signer_text(session, new.public_key)}",
                )
                row = GateVerdictRow(
                    number=append_event(session, event).sequence,
                    sha256=sha256,
                    candidate=new.candidate,
                    champion=new.champion,
                    outcome=new.outcome,
                    content=json.loads(new.document),
                    project_id=new.project_id,
                    actor=actor,
                    public_key=new.public_key,
                )
                session.add(row)
                session.flush()
            return VerdictRecord(
                *session.execute(_select().where(GateVerdictRow.number == row.number)).one()
            )

    def latest(
        self, candidate: str, *, project_id: str | None, champion: str | None = None
    ) -> VerdictRecord | None:
        """The verdict that holds for a candidate in a project, or None.

        It is the latest one that is no claim; a claim where there is nothing else.

        Args:
            candidate: Digest of the candidate.
            project_id: Id of a project whose verdicts count, beside those of none.
            champion: Digest of the champion that it has to be compared with; None is any, and none.
        """
        query = _select().where(
            GateVerdictRow.candidate == candidate,
            or_(_is_for(project_id), _is_for(None)),
        )
        if champion is not None:
            query = query.where(GateVerdictRow.champion == champion)
        counts = or_(GateVerdictRow.outcome != _PASS, SigningKeyRow.id.is_not(None))
        records = self._records(query.where(counts).limit(1)) or self._records(query.limit(1))
        return records[0] if records else None

    def all(self, *, candidate: str = "", sha256: str = "") -> tuple[VerdictRecord, ...]:
        """Verdicts, the latest first.

        Args:
            candidate: First characters of the candidates' digests; empty for all.
            sha256: First characters of the documents' sha256; empty for all.
        """
        return self._records(
            _select().where(
                GateVerdictRow.candidate.startswith(candidate, autoescape=True),
                GateVerdictRow.sha256.startswith(sha256, autoescape=True),
            )
        )

    def content(self, number: int) -> Mapping[str, Any]:
        """What a verdict's document holds.

        Raises:
            NotOnRecordError: There is no such verdict.
        """
        with self._database.read() as session:
            row = session.get(GateVerdictRow, number)
            if row is None:
                raise NotOnRecordError("there is no such verdict", got=number)
            return dict(row.content)

    def _records(self, query: Select[Any]) -> tuple[VerdictRecord, ...]:
        with self._database.read() as session:
            rows = session.execute(query.order_by(GateVerdictRow.number.desc()))
            return tuple(VerdictRecord(*row) for row in rows)


def _select() -> Select[Any]:
    """Verdicts with the name of the key that signed them, while that key counts."""
    counts = (SigningKeyRow.public_key == GateVerdictRow.public_key) & (
        SigningKeyRow.revoked.is_(None)
    )
    return select(*_COLUMNS).join_from(GateVerdictRow, SigningKeyRow, counts, isouter=True)


def _signer_text(session: Session, public_key: str | None) -> str:
    if public_key is None:
        return "unsigned claim"
    query = select(SigningKeyRow).where(SigningKeyRow.public_key == public_key)
    row = session.scalars(query).first()
    if row is None:
        return f"claim, signed by key {fingerprint(public_key)}, which nobody registered"
    return f"signed by {row.name}" + ("" if row.revoked is None else ", a key that was revoked")


def _is_for(project_id: str | None) -> Any:
    column = GateVerdictRow.project_id
    return column.is_(None) if project_id is None else column == project_id
