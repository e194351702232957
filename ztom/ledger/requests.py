"""Requests: work that was asked of the server, where it stands, and what came of it.

The ledger, not the process that does the work, says where a request stands. A server that starts
finds here what was under way when it died.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ztom.errors import AlreadyOnRecordError, NotOnRecordError
from ztom.ledger.audit_store import append_event
from ztom.ledger.checkpoints import NewCheckpoint, insert_checkpoint
from ztom.ledger.database import Database
from ztom.ledger.models import RequestRow, now
from ztom.ledger.records import AuditEvent


class RequestKind(StrEnum):
    """What was asked."""

    SEARCH = "search"
    METATUNE = "metatune"
    EDIT = "edit"
    STATIC_ANALYSIS = "static_analysis"
    SENSITIVITY = "sensitivity"
    INFERENCE = "inference"


class RequestStatus(StrEnum):
    """Where it stands."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_open(self) -> bool:
        """Whether something is still to come."""
        return self in (RequestStatus.QUEUED, RequestStatus.RUNNING)


@dataclass(frozen=True, slots=True)
class NewRequest:
    """What was asked; no prompts and no expected outputs: their files are named."""

    kind: RequestKind
    user_id: str
    project_id: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """A request as callers see it.

    Attributes:
        study_id: Id of the study of a search, once it runs.
        job: Id of the job that runs it, for whoever runs jobs.
        attempts: Number of times that it was started.
        reason: Reason why it failed.
        result: Result of the request, as JSON values.
        artifact: Path of a file with the whole result.
        checkpoint_id: Id of the file of the project that came of it.
    """

    id: str
    kind: RequestKind
    user_id: str
    project_id: str | None
    status: RequestStatus
    parameters: Mapping[str, object]
    study_id: int | None
    job: str | None
    attempts: int
    reason: str | None
    result: Mapping[str, object] | None
    artifact: str | None
    checkpoint_id: str | None
    created: str
    ended: str | None


class Requests:
    """Reads and writes requests; part of `ztom.ledger.Ledger`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        new: NewRequest,
        *,
        request_id: str | None = None,
        within: Callable[[int], None] = lambda count: None,
    ) -> RequestRecord:
        """Write a request down, ``queued``: from then on it may be started.

        Args:
            new: Request that was made.
            request_id: Id from `new_request_id`, where something was prepared under it.
            within: Function that gets the number of the user's open searches; what it raises ends
                it.
        """
        with self._database.write("add a request to") as session:
            within(_open_searches(session, new.user_id))
            row = RequestRow(
                id=request_id or new_request_id(),
                project_id=new.project_id,
                user_id=new.user_id,
                kind=new.kind,
                parameters=dict(new.parameters),
            )
            session.add(row)
            session.flush()
            return _request(row)

    def get(self, request_id: str) -> RequestRecord:
        """The request with this id.

        Raises:
            NotOnRecordError: There is none.
        """
        with self._database.read() as session:
            return _request(_row(session, request_id))

    def of_project(self, project_id: str) -> tuple[RequestRecord, ...]:
        """A project's requests, oldest first."""
        query = select(RequestRow).where(RequestRow.project_id == project_id)
        with self._database.read() as session:
            order = (RequestRow.created, RequestRow.id)
            return tuple(map(_request, session.scalars(query.order_by(*order))))

    def latest(
        self, kind: RequestKind, *, projects: Collection[str] | None, most: int
    ) -> tuple[RequestRecord, ...]:
        """The latest requests of a kind, newest first.

        Args:
            kind: Kind of the requests.
            projects: Ids of the projects whose requests they are; None for all of them.
            most: Largest number of requests.
        """
        query = select(RequestRow).where(RequestRow.kind == kind)
        if projects is not None:
            query = query.where(RequestRow.project_id.in_(projects))
        with self._database.read() as session:
            order = (RequestRow.created.desc(), RequestRow.id)
            return tuple(map(_request, session.scalars(query.order_by(*order).limit(most))))

    def open(self) -> tuple[RequestRecord, ...]:
        """Every request of which something is still to come, oldest first."""
        states = (RequestStatus.QUEUED, RequestStatus.RUNNING)
        query = select(RequestRow).where(RequestRow.status.in_(states))
        with self._database.read() as session:
            return tuple(map(_request, session.scalars(query.order_by(RequestRow.created))))

    def start(
        self, request_id: str, *, job: str | None = None, instead_of: str | None = None
    ) -> RequestRecord | None:
        """Say that it runs, once more.

        Args:
            request_id: Id of the request.
            job: Id of the job that runs it.
            instead_of: Id of the job that was thought to run it; of two that start it at once, one
                does.

        Returns:
            The request; None when somebody else started it, or it has ended.
        """
        with self._database.write("start a request in") as session:
            row = _row(session, request_id, lock=True)
            if not RequestStatus(row.status).is_open or row.job != instead_of:
                return None
            row.status, row.job, row.reason, row.ended = RequestStatus.RUNNING, job, None, None
            row.attempts += 1
            return _request(row)

    def not_started(self, request_id: str, *, job: str) -> None:
        """Take an attempt back: what was to run it could not be handed over.

        Args:
            request_id: Id of the request.
            job: Id of the job that was to run it; nothing is done if it is another one by now.
        """
        with self._database.write("change a request in") as session:
            row = _row(session, request_id, lock=True)
            if row.job == job:
                row.attempts -= 1

    def forget_attempts(self, request_id: str) -> None:
        """Count attempts anew: what runs it had got on before it died."""
        with self._database.write("change a request in") as session:
            _row(session, request_id, lock=True).attempts = 0

    def set_study(self, request_id: str, study_id: int) -> None:
        """Say which study a search became."""
        with self._database.write("change a request in") as session:
            _row(session, request_id).study_id = study_id

    def finish(
        self,
        request_id: str,
        *,
        result: Mapping[str, object],
        artifact: str | None = None,
        checkpoint: NewCheckpoint | None = None,
        event: AuditEvent | None = None,
        actor: str = "server",
    ) -> RequestRecord:
        """Write down what came of it; one that has ended stays as it is.

        Args:
            request_id: Id of the request.
            result: Result of the request, as JSON values.
            artifact: Path of a file with the whole result.
            checkpoint: File that came of it, added to the project in the same transaction.
            event: Event of a row of the audit chain, in the same transaction.
            actor: Name of whoever asked.
        """
        with self._database.write("complete a request in") as session:
            row = _row(session, request_id, lock=True)
            if not RequestStatus(row.status).is_open:
                return _request(row)
            row.status, row.ended, row.reason = RequestStatus.FINISHED, now(), None
            row.result, row.artifact = dict(result), artifact
            if checkpoint is not None and row.project_id is not None:
                file = insert_checkpoint(session, row.project_id, checkpoint, actor=actor)
                row.checkpoint_id = file.id
            if event is not None:
                append_event(session, event)
            return _request(row)

    def open_searches(self, user_id: str) -> int:
        """Number of a user's searches of which something is still to come."""
        with self._database.read() as session:
            return _open_searches(session, user_id)

    def of_user(self, user_id: str) -> dict[str, bool]:
        """Ids of a user's requests, with whether something is still to come."""
        query = select(RequestRow.id, RequestRow.status).where(RequestRow.user_id == user_id)
        with self._database.read() as session:
            return {id: RequestStatus(status).is_open for id, status in session.execute(query)}

    def requeue(
        self, request_id: str, *, within: Callable[[int], None] = lambda count: None
    ) -> RequestRecord:
        """Have a request done that was cancelled or failed.

        Args:
            request_id: Id of the request.
            within: Function as of `create`.

        Raises:
            AlreadyOnRecordError: It is under way, or it has finished.
        """
        with self._database.write("resume a request in") as session:
            row = _row(session, request_id)
            within(_open_searches(session, row.user_id))
            if row.status not in (RequestStatus.CANCELLED, RequestStatus.FAILED):
                raise AlreadyOnRecordError("the request cannot be resumed", got=row.status)
            row.status, row.reason, row.ended, row.attempts = RequestStatus.QUEUED, None, None, 0
            return _request(row)

    def end(self, request_id: str, status: RequestStatus, *, reason: str) -> RequestRecord:
        """Say that nothing came of it, and why; one that has ended stays as it is."""
        with self._database.write("end a request in") as session:
            row = _row(session, request_id, lock=True)
            if RequestStatus(row.status).is_open:
                row.status, row.reason, row.ended = status, reason, now()
            return _request(row)


def new_request_id() -> str:
    """An id that no request has."""
    return uuid.uuid4().hex


def _open_searches(session: Session, user_id: str) -> int:
    states = (RequestStatus.QUEUED, RequestStatus.RUNNING)
    query = select(func.count()).where(
        RequestRow.user_id == user_id,
        RequestRow.kind == RequestKind.SEARCH,
        RequestRow.status.in_(states),
    )
    return session.scalar(query) or 0


def _row(session: Session, request_id: str, *, lock: bool = False) -> RequestRow:
    row = session.get(RequestRow, request_id, with_for_update=lock)
    if row is None:
        raise NotOnRecordError("there is no such request", got=request_id)
    return row


def _request(row: RequestRow) -> RequestRecord:
    return RequestRecord(
        id=row.id,
        kind=RequestKind(row.kind),
        user_id=row.user_id,
        project_id=row.project_id,
        status=RequestStatus(row.status),
        parameters=row.parameters,
        study_id=row.study_id,
        job=row.job,
        attempts=row.attempts,
        reason=row.reason,
        result=row.result,
        artifact=row.artifact,
        checkpoint_id=row.checkpoint_id,
        created=row.created,
        ended=row.ended,
    )
