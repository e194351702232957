"""Rows that several parts of the ledger look for."""

from __future__ import annotations

from sqlalchemy import ColumnElement, null, or_
from sqlalchemy.orm import Session

from ztom.errors import NotOnRecordError
from ztom.ledger.models import DeploymentRow, ProjectRow


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
