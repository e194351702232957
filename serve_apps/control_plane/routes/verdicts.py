"""Verdicts of the gate: put on record, and looked up. What they decide is `clearance`'s."""

from __future__ import annotations

from fastapi import APIRouter

from serve_apps.control_plane.access import Caller, CallerOf, Permission, ServicesOf, route
from serve_apps.control_plane.services import Services
from ztom.errors import ConfigError, NotOnRecordError
from ztom.evaluation.gate.verdict import Verdict, worst
from ztom.ledger.verdicts import NewVerdict, VerdictRecord
from ztom.wire.fields import Digest, DigestStart
from ztom.wire.verdicts import VerdictOnRecord, VerdictSubmission, VerdictSummary

router = APIRouter(tags=["verdicts"])


@route(router, "POST", "/v1/verdicts", Permission.WRITE, status_code=201)
def submit_verdict(
    body: VerdictSubmission, caller: CallerOf, services: ServicesOf
) -> VerdictSummary:
    """Put a verdict on record; one that is there already stays as it is."""
    caller.project_or_operator(body.project_id)
    return VerdictSummary.of(record_verdict(body.verdict, body.project_id, caller, services))


@route(router, "GET", "/v1/verdicts", Permission.USER)
def verdicts(
    caller: CallerOf, services: ServicesOf, candidate: DigestStart | None = None
) -> list[VerdictSummary]:
    """Verdicts of the caller's projects, the latest first; those of a candidate, or all."""
    return [
        VerdictSummary.of(each)
        for each in services.ledger.verdicts.all(candidate=candidate or "")
        if caller.sees(each.project_id)
    ]


@route(router, "GET", "/v1/verdicts/{sha256}", Permission.READ)
def verdict(sha256: Digest, caller: CallerOf, services: ServicesOf) -> VerdictOnRecord:
    """A verdict with its document, by the document's sha256."""
    for each in services.ledger.verdicts.all(sha256=sha256):
        if caller.sees(each.project_id):
            caller.project_or_operator(each.project_id)
            content = services.ledger.verdicts.content(each.number)
            return VerdictOnRecord.with_document(each, content)
    raise NotOnRecordError("there is no such verdict", got=sha256)


def record_verdict(
    verdict: Verdict,
    project_id: str | None,
    caller: Caller,
    services: Services,
    *,
    of: str | None = None,
) -> VerdictRecord:
    """Put a verdict on record.

    Args:
        verdict: The document.
        project_id: Whose it is; the caller may write there.
        caller: For the audit chain.
        services: With the ledger.
        of: Digest of the variant that it has to be of.

    Raises:
        ConfigError: It is of another one, or its outcome is not that of its suites.
    """
    judged, champion = verdict.candidate.digest, verdict.champion
    if of not in (None, judged):
        raise ConfigError("the verdict is of another variant", got=judged, expected=of)
    suites = worst(tuple(suite.outcome for suite in verdict.suites))
    if verdict.outcome != suites:
        raise ConfigError(
            "the verdict contradicts itself",
            got=verdict.outcome,
            expected=f"{suites}, as its suites",
        )
    new = NewVerdict(
        document=verdict.to_bytes(),
        candidate=judged,
        champion=None if champion is None else champion.digest,
        outcome=verdict.outcome.value,
        project_id=project_id,
    )
    return services.ledger.verdicts.record(new, actor=caller.actor)
