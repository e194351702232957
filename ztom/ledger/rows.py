"""Studies, trials and projects: finding their rows, and turning rows into records."""

from __future__ import annotations

from sqlalchemy import ColumnElement, func, null, or_, select
from sqlalchemy.orm import Session

from ztom.errors import LedgerError, NotOnRecordError
from ztom.ledger.models import DeploymentRow, ProjectRow, StudyRow, TrialRow
from ztom.ledger.records import (
    StudyRecord,
    StudyStatus,
    TrialKind,
    TrialOutcome,
    TrialRecord,
    TrialStatus,
)


def study_row(session: Session, study_id: int) -> StudyRow:
    """The study with this id; LedgerError when there is none."""
    row = session.get(StudyRow, study_id)
    if row is None:
        raise LedgerError("no such study", got=study_id)
    return row


def trial_row(session: Session, study_id: int, number: int) -> TrialRow:
    """The trial with this number; LedgerError when there is none."""
    query = select(TrialRow).where(TrialRow.study_id == study_id, TrialRow.number == number)
    row = session.scalars(query).one_or_none()
    if row is None:
        raise LedgerError(f"study {study_id} has no trial {number}")
    return row


def project_row(session: Session, project_id: str) -> ProjectRow:
    """The project with this id.

    Raises:
        NotOnRecordError: There is none, or it was deleted.
    """
    row = session.get(ProjectRow, project_id)
    if row is None or row.deleted is not None:
        raise NotOnRecordError("there is no such project", got=project_id)
    return row


def is_served() -> ColumnElement[bool]:
    """The condition that a deployment serves: it starts, is ready, or goes on as it was before."""
    return or_(DeploymentRow.state.in_(("starting", "ready")), DeploymentRow.kept.is_not(null()))


def next_sequence(session: Session, study_id: int) -> int:
    """The position of the next event of a study."""
    query = select(func.max(TrialRow.asked), func.max(TrialRow.told)).where(
        TrialRow.study_id == study_id
    )
    asked, told = session.execute(query).one()
    return 1 + max(-1 if asked is None else asked, -1 if told is None else told)


def study_record(row: StudyRow) -> StudyRecord:
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


def trial_record(row: TrialRow) -> TrialRecord:
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
        ),
    )
