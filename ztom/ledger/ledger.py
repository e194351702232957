"""The ledger: the truth about studies and trials, in one database.

A trial is written when it is asked for and again when its answer comes, each in its own
transaction, so after a kill at any moment the ledger holds every finished trial and knows which
ones were under way. Events are numbered per study; replaying them in that order restores a sampler
exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select

from ztom.errors import LedgerError
from ztom.ledger.accounts import Accounts
from ztom.ledger.audit import SignedHead, check_entries
from ztom.ledger.audit_store import all_entries, append_event, last_entry
from ztom.ledger.database import Database, open_database, parse_address
from ztom.ledger.endpoints import Endpoints
from ztom.ledger.lock import study_lock
from ztom.ledger.models import (
    ReleaseRow,
    ResultRow,
    StudyRow,
    TrialRow,
    VariantRow,
    VerdictRow,
)
from ztom.ledger.project_files import ProjectFiles
from ztom.ledger.projects import Projects
from ztom.ledger.records import (
    AuditEntry,
    AuditEvent,
    Event,
    NewStudy,
    NewVariant,
    ReleaseRecord,
    StudyRecord,
    StudyStatus,
    TrialKind,
    TrialOutcome,
    TrialRecord,
    TrialStatus,
    VariantRecord,
)
from ztom.ledger.requests import Requests
from ztom.ledger.rows import (
    next_sequence,
    study_record,
    study_row,
    trial_record,
    trial_row,
)
from ztom.ledger.verdicts import Verdicts


class Ledger:
    """Reads and writes the book-keeping; made by `Ledger.open`.

    Threads of one process may share it: their writes are serialised. Every method raises
    LedgerError when the database fails, is locked for longer than the busy timeout, or holds no
    such row.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.accounts = Accounts(self._database)
        self.projects = Projects(self._database)
        self.files = ProjectFiles(self._database)
        self.requests = Requests(self._database)
        self.endpoints = Endpoints(self._database)
        self.verdicts = Verdicts(self._database)

    @classmethod
    def open(cls, address: str | Path, *, busy_timeout_s: float = 10.0) -> Self:
        """Open the ledger, making the file or the tables when they do not exist.

        Args:
            address: A file, or a SQLAlchemy address.
            busy_timeout_s: How long a locked SQLite file is waited for.

        Raises:
            LedgerError: Unreachable, locked, damaged, or made by a newer version.
        """
        return cls(open_database(parse_address(address), busy_timeout_s=busy_timeout_s))

    def close(self) -> None:
        """Give back the connections; calling it twice is harmless."""
        self._database.close()

    def __enter__(self) -> Self:
        """The ledger itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Keep every other driver away from the study called ``name`` while in the context.

        Raises:
            LedgerError: Another driver is there already.
        """
        return study_lock(self._database.engine, name)

    def create_study(self, new: NewStudy) -> StudyRecord:
        """Write a new study, with status ``running``."""
        with self._database.write("add a study to") as session:
            row = StudyRow(
                name=new.name,
                config=dict(new.config),
                config_digest=new.config_digest,
                chain_digest=new.chain_digest,
                data_digests=dict(new.data_digests),
                seed=new.seed,
                versions=dict(new.versions),
            )
            session.add(row)
            session.flush()
            return study_record(row)

    def study(self, study_id: int) -> StudyRecord:
        """The study with this id."""
        with self._database.read() as session:
            return study_record(study_row(session, study_id))

    def studies(self) -> tuple[StudyRecord, ...]:
        """Every study, oldest first."""
        with self._database.read() as session:
            return tuple(map(study_record, session.scalars(select(StudyRow).order_by(StudyRow.id))))

    def latest_study(self, name: str) -> StudyRecord | None:
        """The newest study of this name, or None."""
        query = select(StudyRow).where(StudyRow.name == name).order_by(StudyRow.id.desc()).limit(1)
        with self._database.read() as session:
            row = session.scalars(query).first()
            return None if row is None else study_record(row)

    def set_status(self, study_id: int, status: StudyStatus, *, reason: str | None = None) -> None:
        """Say where the study stands and why."""
        with self._database.write("update a study in") as session:
            row = study_row(session, study_id)
            row.status, row.reason = status, reason

    def record_ask(
        self, study_id: int, *, number: int, kind: TrialKind, factors: tuple[float, ...]
    ) -> TrialRecord:
        """Write a trial that is about to run.

        Raises:
            LedgerError: The number is taken, besides what every method raises.
        """
        with self._database.write("add a trial to") as session:
            row = TrialRow(
                study_id=study_id,
                number=number,
                kind=kind,
                factors=list(factors),
                asked=next_sequence(session, study_id),
            )
            session.add(row)
            session.flush()
            return trial_record(row)

    def record_tell(self, study_id: int, number: int, outcome: TrialOutcome) -> TrialRecord:
        """Write what a running trial gave: finished when it has an error, else failed.

        Raises:
            LedgerError: The trial is not running, besides what every method raises.
        """
        with self._database.write("complete a trial in") as session:
            row = trial_row(session, study_id, number)
            if row.status != TrialStatus.RUNNING:
                raise LedgerError(f"trial {number} of study {study_id} has ended", got=row.status)
            row.status = TrialStatus.FAILED if outcome.error is None else TrialStatus.FINISHED
            row.told = next_sequence(session, study_id)
            row.error = outcome.error
            row.per_stimulus = list(outcome.per_stimulus)
            row.guardrails = dict(outcome.guardrails)
            row.reason = outcome.reason
            row.seconds = dict(outcome.seconds)
            row.generated_tokens = outcome.generated_tokens
            row.attempts = outcome.attempts
            session.flush()
            return trial_record(row)

    def trials(self, study_id: int) -> tuple[TrialRecord, ...]:
        """Every trial of the study, by number."""
        query = select(TrialRow).where(TrialRow.study_id == study_id).order_by(TrialRow.number)
        with self._database.read() as session:
            return tuple(trial_record(row) for row in session.scalars(query))

    def events(self, study_id: int) -> tuple[Event, ...]:
        """Every ask and tell of the study, in the order in which they happened."""
        events = []
        for trial in self.trials(study_id):
            events.append(Event(trial.asked, "ask", trial))
            if trial.told is not None:
                events.append(Event(trial.told, "tell", trial))
        return tuple(sorted(events, key=lambda event: event.sequence))

    def save_result(self, study_id: int, content: Mapping[str, object]) -> None:
        """Write, or replace, what the study came to."""
        with self._database.write("write a result to") as session:
            study_row(session, study_id)
            session.merge(ResultRow(study_id=study_id, content=dict(content)))

    def save_verdict(self, study_id: int, outcome: str, content: Mapping[str, object]) -> None:
        """Write, or replace, what the proof on the holdout said."""
        with self._database.write("write a verdict to") as session:
            study_row(session, study_id)
            session.merge(VerdictRow(study_id=study_id, outcome=outcome, content=dict(content)))

    def verdict(self, study_id: int) -> Mapping[str, object] | None:
        """What the proof said, or None where there was none."""
        with self._database.read() as session:
            row = session.get(VerdictRow, study_id)
            return None if row is None else row.content

    def result(self, study_id: int) -> Mapping[str, object] | None:
        """What the study came to, or None while that is open."""
        with self._database.read() as session:
            row = session.get(ResultRow, study_id)
            return None if row is None else row.content

    def record_event(self, event: AuditEvent) -> AuditEntry:
        """Append to the audit chain."""
        with self._database.write("add to the audit chain of") as session:
            return append_event(session, event)

    def record_variant(self, new: NewVariant, place: Callable[[], None]) -> AuditEntry:
        """Make a variant appear and write it down, with its audit row, in one transaction.

        One that comes from a search is written down as released, too.

        Args:
            new: What is written down.
            place: Makes the variant appear; called last, while nobody else can write to the ledger,
                so it has to be quick. If it raises, nothing is written down. If the process dies
                between its end and that of the transaction, the variant is on disk and not on
                record, which `ztom audit verify` reports.
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

    def variants(self) -> tuple[VariantRecord, ...]:
        """Every variant on record, by digest and address."""
        query = select(VariantRow).order_by(VariantRow.digest, VariantRow.address)
        with self._database.read() as session:
            return tuple(
                VariantRecord(row.digest, row.address, row.study_id, row.recipe, row.created)
                for row in session.scalars(query)
            )

    def releases(self) -> tuple[ReleaseRecord, ...]:
        """Every variant that a search released, oldest first."""
        query = select(ReleaseRow).order_by(ReleaseRow.study_id, ReleaseRow.address)
        with self._database.read() as session:
            return tuple(
                ReleaseRecord(
                    digest=row.digest,
                    address=row.address,
                    study_id=row.study_id,
                    actor=row.actor,
                    insisted=row.insisted,
                    created=row.created,
                )
                for row in session.scalars(query)
            )

    def audit_entries(self) -> Iterator[AuditEntry]:
        """The audit chain in order; nothing is checked, see `check_audit`."""
        with self._database.read() as session:
            yield from all_entries(session)

    def audit_rows(self) -> int:
        """How long the audit chain says that it is; nothing is checked, see `check_audit`."""
        with self._database.read() as session:
            last = last_entry(session)
        return 0 if last is None else last.sequence

    def check_audit(self, head: SignedHead | None = None) -> int:
        """Check the whole audit chain; see `ztom.ledger.audit.check_entries`."""
        return check_entries(self.audit_entries(), head)

    def sign_audit(self, key: Ed25519PrivateKey, *, time: str) -> SignedHead:
        """Sign the end of the audit chain."""
        with self._database.read() as session:
            return SignedHead.sign(last_entry(session), key, time=time)
