"""Verdicts of the gate: put on record, and looked up. What they decide is `clearance`'s."""

from __future__ import annotations

from fastapi import APIRouter

from serve_apps.control_plane.access import CallerOf, Permission, ServicesOf, route
from serve_apps.endpoints.evidence import record_verdict
from ztom.errors import NotOnRecordError
from ztom.wire.fields import Digest, DigestStart
from ztom.wire.verdicts import VerdictOnRecord, VerdictSubmission, VerdictSummary

router = APIRouter(tags=["verdicts"])


@route(router, "POST", "/v1/verdicts", Permission.WRITE, status_code=201)
def submit_verdict(
    body: VerdictSubmission, caller: CallerOf, services: ServicesOf
) -> VerdictSummary:
    """Put a verdict on record; one that is there already stays as it is."""
    caller.project_or_operator(body.project_id)
    verdicts = services.ledger.verdicts
    return VerdictSummary.of(
        record_verdict(verdicts, body.verdict, project_id=body.project_id, actor=caller.actor)
    )


@route(router, "GET", "/v1/verdicts", Permission.USER)
def verdicts(
    caller: CallerOf, services: ServicesOf, candidate: DigestStart | None = None
) -> list[VerdictSummary]:
    """Verdicts of the caller's projects, the latest first; those of a candidate, or all."""
    return [
        VerdictSummary.of(record)
        for record in services.ledger.verdicts.all(candidate=candidate or "")
        if caller.sees(record.project_id)
    ]


@route(router, "GET", "/v1/verdicts/{sha256}", Permission.READ)
def verdict(sha256: Digest, caller: CallerOf, services: ServicesOf) -> VerdictOnRecord:
    """A verdict with its document, by the document's sha256."""
    for record in services.ledger.verdicts.all(sha256=sha256):
        if caller.sees(record.project_id):
            caller.project_or_operator(record.project_id)
            content = services.ledger.verdicts.content(record.number)
            return VerdictOnRecord.with_document(record, content)
    raise NotOnRecordError("there is no such verdict", got=sha256)
