"""Studies and their trials.

A trial is written when it is asked for and again when its answer comes, each in its own
transaction, so after a kill at any moment the ledger holds every finished trial and knows which
ones were under way. Events are numbered per study; replaying them in that order restores a sampler
exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ztom.errors import LedgerError
from ztom.ledger.database import Database, guarded
from ztom.ledger.lock import StudyLock, study_lock
from ztom.ledger.models import ResultRow, StudyRow, TrialRow, VerdictRow
from ztom.ledger.records import (
    NewStudy,
    StudyEvent,
    StudyRecord,
    StudyStatus,
    TrialKind,
    TrialOutcome,
    TrialRecord,
    TrialStatus,
)


class Studies:
    """Reads and writes studies and trials; part of `ztom.ledger.Ledger`.

    Every method raises LedgerError when the database fails, is locked for longer than the busy
    timeout, or holds no such row.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock: StudyLock | None = None

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Keep every other driver away from the study called ``name`` while in the context.

        Before each trial is written it is seen to that the lock is still held: PostgreSQL's ends
        with its session, when the server fails over.

        Raises:
            LedgerError: Another driver is there already.
        """
        with study_lock(self._database.engine, name) as lock:
            self._lock = lock
            try:
                yield
            finally:
                self._lock = None

    def _require_lock(self) -> None:
        if self._lock is not None:
            with guarded(self._database.url, "hold the study's lock in"):
                self._lock.require()

    def create(self, new: NewStudy) -> StudyRecord:
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
            return _study_record(row)

    def get(self, study_id: int) -> StudyRecord:
        """The study with this id."""
        with self._database.read() as session:
            return _study_record(_study_row(session, study_id))

    def all(self) -> tuple[StudyRecord, ...]:
        """Every study, oldest first."""
        with self._database.read() as session:
            return tuple(
                map(_study_record, session.scalars(select(StudyRow).order_by(StudyRow.id)))
            )

    def latest(self, name: str) -> StudyRecord | None:
        """The newest study of this name, or None."""
        query = select(StudyRow).where(StudyRow.name == name).order_by(StudyRow.id.desc()).limit(1)
        with self._database.read() as session:
            row = session.scalars(query).first()
            return None if row is None else _study_record(row)

    def set_status(self, study_id: int, status: StudyStatus, *, reason: str | None = None) -> None:
        """Say where the study stands and why."""
        with self._database.write("update a study in") as session:
            row = _study_row(session, study_id)
            row.status, row.reason = status, reason

    def ask(
        self, study_id: int, *, number: int, kind: TrialKind, factors: tuple[float, ...]
    ) -> TrialRecord:
        """Write a trial that is about to run.

        Raises:
            LedgerError: The number is taken, besides what every method raises.
        """
        self._require_lock()
        with self._database.write("add a trial to") as session:
            row = TrialRow(
                study_id=study_id,
                number=number,
                kind=kind,
                factors=list(factors),
                asked=_next_sequence(session, study_id),
            )
            session.add(row)
            session.flush()
            return _trial_record(row)

    def tell(self, study_id: int, number: int, outcome: TrialOutcome) -> TrialRecord:
        """Write what a running trial gave: finished when it has an error, else failed.

        Raises:
            LedgerError: The trial is not running, besides what every method raises.
        """
        self._require_lock()
        with self._database.write("complete a trial in") as session:
            row = _trial_row(session, study_id, number)
            if row.status != TrialStatus.RUNNING:
                raise LedgerError(f"trial {number} of study {study_id} has ended", got=row.status)
            row.status = TrialStatus.FAILED if outcome.error is None else TrialStatus.FINISHED
            row.told = _next_sequence(session, study_id)
            row.error = outcome.error
            row.per_stimulus = list(outcome.per_stimulus)
            row.guardrails = dict(outcome.guardrails)
            row.reason = outcome.reason
            row.seconds = dict(outcome.seconds)
            row.generated_tokens = outcome.generated_tokens
            row.attempts = outcome.attempts
            row.gradient = list(outcome.gradient)
            row.guardrail_gradients = {n: list(g) for n, g in outcome.guardrail_gradients.items()}
            row.answered = outcome.answered
            session.flush()
            return _trial_record(row)

    def trials(self, study_id: int) -> tuple[TrialRecord, ...]:
        """Every trial of the study, by number."""
        query = select(TrialRow).where(TrialRow.study_id == study_id).order_by(TrialRow.number)
        with self._database.read() as session:
            return tuple(_trial_record(row) for row in session.scalars(query))

    def events(self, study_id: int) -> tuple[StudyEvent, ...]:
        """Every ask and tell of the study, in the order in which they happened."""
        events = []
        for trial in self.trials(study_id):
            events.append(StudyEvent(trial.asked, "ask", trial))
            if trial.told is not None:
                events.append(StudyEvent(trial.told, "tell", trial))
        return tuple(sorted(events, key=lambda event: event.sequence))

    def save_result(self, study_id: int, content: Mapping[str, object]) -> None:
        """Write, or replace, what the study came to."""
        with self._database.write("write a result to") as session:
            _study_row(session, study_id)
            session.merge(ResultRow(study_id=study_id, content=dict(content)))

    def result(self, study_id: int) -> Mapping[str, object] | None:
        """What the study came to, or None while that is open."""
        with self._database.read() as session:
            row = session.get(ResultRow, study_id)
            return None if row is None else row.content

    def save_proof(self, study_id: int, outcome: str, content: Mapping[str, object]) -> None:
        """Write, or replace, what the proof on the holdout said."""
        with self._database.write("write a proof to") as session:
            _study_row(session, study_id)
            session.merge(VerdictRow(study_id=study_id, outcome=outcome, content=dict(content)))

    def proof(self, study_id: int) -> Mapping[str, object] | None:
        """What the proof said, or None where there was none."""
        with self._database.read() as session:
            row = session.get(VerdictRow, study_id)
            return None if row is None else row.content


def _study_row(session: Session, study_id: int) -> StudyRow:
    """The study with this id; LedgerError when there is none."""
    row = session.get(StudyRow, study_id)
    if row is None:
        raise LedgerError("no such study", got=study_id)
    return row


def _trial_row(session: Session, study_id: int, number: int) -> TrialRow:
    """The trial with this number; LedgerError when there is none."""
    query = select(TrialRow).where(TrialRow.study_id == study_id, TrialRow.number == number)
    row = session.scalars(query).one_or_none()
    if row is None:
        raise LedgerError(f"study {study_id} has no trial {number}")
    return row


def _next_sequence(session: Session, study_id: int) -> int:
    """The position of the next event of a study."""
    query = select(func.max(TrialRow.asked), func.max(TrialRow.told)).where(
        TrialRow.study_id == study_id
    )
    positions = session.execute(query).one()
    return 1 + max(-1 if position is None else position for position in positions)


def _study_record(row: StudyRow) -> StudyRecord:
    """A study as callers see it."""
    return StudyRecord(
        id=row.id,
        name=row.name,
        config=row.config,
        config_digest=row.config_digest,
        chain_digest=row.chain_digest,
        data_digests=row.data_digests,
        seed=row.seed,
        versions=row.versions,
        status=StudyStatus(row.status),
        reason=row.reason,
        created=row.created,
    )


def _trial_record(row: TrialRow) -> TrialRecord:
    """A trial as callers see it."""
    return TrialRecord(
        study_id=row.study_id,
        number=row.number,
        kind=TrialKind(row.kind),
        factors=tuple(row.factors),
        status=TrialStatus(row.status),
        asked=row.asked,
        told=row.told,
        outcome=TrialOutcome(
            error=row.error,
            per_stimulus=tuple(row.per_stimulus),
            guardrails=row.guardrails,
            reason=row.reason,
            seconds=row.seconds,
            generated_tokens=row.generated_tokens,
            attempts=row.attempts,
            gradient=tuple(row.gradient or ()),
            guardrail_gradients={
                name: tuple(gradient) for name, gradient in (row.guardrail_gradients or {}).items()
            },
            answered=row.answered,
        ),
    )
