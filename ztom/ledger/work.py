"""How much work is on record, and how it ended: numbers for who watches a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ztom.ledger.database import Database
from ztom.ledger.models import GateVerdictRow, RequestRow, StudyRow, TrialRow, VerdictRow
from ztom.ledger.requests import RequestKind, RequestStatus


@dataclass(frozen=True, slots=True)
class RunningSearch:
    """A search that runs.

    Attributes:
        name: Name of its study, and the study's id.
        trials: Number of its trials that have finished.
        best_error: Lowest error of those; None before the first.
    """

    name: str
    trials: int
    best_error: float | None


@dataclass(frozen=True, slots=True)
class WorkCounts:
    """What is on record.

    Attributes:
        searches: Number of searches by the status of their requests.
        oldest_queued: Time at which the oldest search that waits was asked for, in seconds since
            1970; None where none waits.
        running: Searches that run, oldest first.
        verdicts: Number of the gate's verdicts by outcome.
        proofs: Number of proofs of searches by outcome.
    """

    searches: Mapping[str, int]
    oldest_queued: float | None
    running: tuple[RunningSearch, ...]
    verdicts: Mapping[str, int]
    proofs: Mapping[str, int]


class RecordedWork:
    """Counts what is on record; part of `ztom.ledger.Ledger`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def counts(self) -> WorkCounts:
        """How much there is, in one look at the database."""
        is_search = RequestRow.kind == RequestKind.SEARCH
        with self._database.read() as session:
            by_status = (
                select(RequestRow.status, func.count()).where(is_search).group_by(RequestRow.status)
            )
            oldest = session.scalar(
                select(func.min(RequestRow.created)).where(
                    is_search, RequestRow.status == RequestStatus.QUEUED
                )
            )
            return WorkCounts(
                searches={status: number for status, number in session.execute(by_status)},
                oldest_queued=None
                if oldest is None
                else datetime.fromisoformat(oldest).timestamp(),
                running=_running(session),
                verdicts=_by_outcome(session, GateVerdictRow),
                proofs=_by_outcome(session, VerdictRow),
            )


def _running(session: Session) -> tuple[RunningSearch, ...]:
    finished = TrialRow.status == "finished"
    query = (
        select(
            StudyRow.id,
            StudyRow.name,
            func.count(TrialRow.id).filter(finished),
            func.min(TrialRow.error).filter(finished),
        )
        .join(TrialRow, TrialRow.study_id == StudyRow.id, isouter=True)
        .join(RequestRow, RequestRow.study_id == StudyRow.id)
        .where(RequestRow.status == RequestStatus.RUNNING)
        .group_by(StudyRow.id, StudyRow.name)
        .order_by(StudyRow.id)
    )
    return tuple(
        RunningSearch(f"{name} ({study})", trials, best)
        for study, name, trials, best in session.execute(query)
    )


def _by_outcome(session: Session, table: type[GateVerdictRow] | type[VerdictRow]) -> dict[str, int]:
    query = select(table.outcome, func.count()).group_by(table.outcome)
    return {outcome: number for outcome, number in session.execute(query)}
