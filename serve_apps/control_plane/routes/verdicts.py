"""Verdicts of the gate: put on record, and looked up. What they decide is `clearance`'s."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import StringConstraints

from serve_apps.control_plane.access import CallerOf, Permission, ServicesOf, route
from serve_apps.control_plane.wire import Id, Strict
from serve_apps.endpoints.clearance import record_verdict
from ztom.errors import NotOnRecordError
from ztom.evaluation.gate.verdict import Verdict
from ztom.ledger.verdicts import VerdictRecord

router = APIRouter(tags=["verdicts"])

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
DigestStart = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,64}$")]


class Recorded(Strict):
    """A verdict as ``ztom gate`` writes it; it counts for one project, or for everybody's."""

    verdict: Verdict
    project_id: Id | None = None


@route(router, "POST", "/v1/verdicts", Permission.WRITE, status_code=201)
def record(body: Recorded, caller: CallerOf, services: ServicesOf) -> dict[str, Any]:
    """Put a verdict on record; one that is there already stays as it is."""
    caller.project_or_operator(body.project_id)
    verdicts = services.ledger.verdicts
    return verdict_document(
        record_verdict(verdicts, body.verdict, project_id=body.project_id, actor=caller.actor)
    )


@route(router, "GET", "/v1/verdicts", Permission.USER)
def verdicts(
    caller: CallerOf, services: ServicesOf, candidate: DigestStart | None = None
) -> list[dict[str, Any]]:
    """Verdicts of the caller's projects, the latest first; those of a candidate, or all."""
    return [
        verdict_document(each)
        for each in services.ledger.verdicts.all(candidate=candidate or "")
        if caller.sees(each.project_id)
    ]


@route(router, "GET", "/v1/verdicts/{sha256}", Permission.READ)
def verdict(sha256: Digest, caller: CallerOf, services: ServicesOf) -> dict[str, Any]:
    """A verdict with its document, by the document's sha256."""
    for each in services.ledger.verdicts.all(sha256=sha256):
        if caller.sees(each.project_id):
            caller.project_or_operator(each.project_id)
            content = services.ledger.verdicts.content(each.number)
            return {**verdict_document(each), "verdict": content}
    raise NotOnRecordError("there is no such verdict", got=sha256)


def verdict_document(record: VerdictRecord) -> dict[str, Any]:
    """A verdict over the wire, without its document."""
    return {
        "sha256": record.sha256,
        "candidate": record.candidate,
        "champion": record.champion,
        "outcome": record.outcome,
        "projectId": record.project_id,
        "actor": record.actor,
        "createdAt": record.created,
    }
