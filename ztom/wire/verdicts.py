"""Verdicts of the gate on a server's record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from ztom.evaluation.gate.verdict import Verdict
from ztom.wire import examples
from ztom.wire.base import WireAnswer, WireRequest
from ztom.wire.examples import example
from ztom.wire.fields import Id

if TYPE_CHECKING:
    from ztom.ledger.verdicts import VerdictRecord

GateOutcome = Literal["pass", "fail", "inconclusive"]

#: A document of the gate, as short as one can be.
DOCUMENT: dict[str, Any] = {
    "format": 1,
    "outcome": "pass",
    "reasons": ["refunds: not worse than the champion"],
    "suites": [
        {
            "suite": {
                "name": "refunds",
                "version": "1.0.0",
                "layer": "task",
                "metric": "exact_match",
                "digest": examples.OTHER_DIGEST,
            },
            "outcome": "pass",
            "findings": [{"rule": "difference", "outcome": "pass", "reason": "0.91 against 0.90"}],
            "alpha": 0.05,
            "floor": 0.0,
            "margin": 0.02,
            "n": 400,
            "clusters": 400,
        }
    ],
    "candidate": {"name": "support-5", "digest": examples.DIGEST},
    "champion": {"name": "support-4", "digest": examples.OTHER_DIGEST},
    "seed": 0,
    "versions": {"ztom": "0.9.0"},
}


class VerdictSubmission(WireRequest):
    """A verdict as ``ztom gate`` writes it; it counts for one project, or for everybody's."""

    model_config = example(verdict=DOCUMENT, projectId=examples.PROJECT)

    verdict: Verdict
    project_id: Id | None = None


_SUMMARY = {
    "sha256": examples.OTHER_DIGEST,
    "candidate": examples.DIGEST,
    "champion": examples.OTHER_DIGEST,
    "outcome": "pass",
    "projectId": examples.PROJECT,
    "actor": f"user:{examples.USER}",
    "createdAt": examples.TIME,
    "signedBy": "ci",
    "publicKey": examples.PUBLIC_KEY,
}


class VerdictSummary(WireAnswer):
    """A verdict without its document.

    Attributes:
        sha256: Lower-case hex sha256 of the document, which names the verdict.
        candidate: Digest of the model that was judged.
        champion: Digest of the model that it was compared with; None when there was none.
        project_id: Id of the project whose deployments it counts for; None for everybody's.
        actor: Name of whoever put it on record.
        signed_by: Name of the registered key that signed it; None where a pass is only a claim.
        public_key: Public key that signed it, registered or not, in Base64; None where none did.
    """

    model_config = example(**_SUMMARY)

    sha256: str
    candidate: str
    champion: str | None
    outcome: GateOutcome
    project_id: str | None
    actor: str
    created_at: str
    signed_by: str | None = None
    public_key: str | None = None

    @classmethod
    def of(cls, record: VerdictRecord) -> VerdictSummary:
        """The verdict on record."""
        return cls.model_validate(_fields(record))


class VerdictOnRecord(VerdictSummary):
    """A verdict with its document.

    Attributes:
        verdict: The document, as ``ztom gate`` wrote it.
    """

    model_config = example(**_SUMMARY, verdict=DOCUMENT)

    verdict: dict[str, Any]

    @classmethod
    def with_document(cls, record: VerdictRecord, document: Mapping[str, Any]) -> VerdictOnRecord:
        """The verdict on record, and its document."""
        return cls.model_validate({**_fields(record), "verdict": document})


def _fields(record: VerdictRecord) -> dict[str, object]:
    return {
        "sha256": record.sha256,
        "candidate": record.candidate,
        "champion": record.champion,
        "outcome": record.outcome,
        "project_id": record.project_id,
        "actor": record.actor,
        "created_at": record.created,
        "signed_by": record.signer,
        "public_key": record.public_key,
    }
