"""Whether a variant may have traffic: no green, no ship.

What counts is the latest verdict of the gate on record, of the project or of none. A server may be
told to do without one where the search that wrote the variant has proved it better, and its gate,
if it had one, let it pass. Who insists gets through, and is on record; only what a release's own
plan asks for stays.
"""

from __future__ import annotations

from ztom.errors import GateRefusedError
from ztom.evaluation.gate.verdict import Outcome
from ztom.ledger.verdicts import VerdictRecord, Verdicts
from ztom.rollout.plan import ReleaseGate
from ztom.rollout.routing import SHORT

IMPROVED = "improved"


def refusal(
    verdict: VerdictRecord | None, *, proof: str | None, gate: str | None, gate_required: bool
) -> str | None:
    """Why a variant is not deployed unless somebody insists; None when it is.

    Args:
        verdict: The latest of the gate on record.
        proof: Outcome of the proof in the variant's recipe; None for factors set by hand.
        gate: What the recipe says that the gate said in the search; None without suites.
        gate_required: The server takes no recipe's word for it.
    """
    if verdict is not None:
        return None if verdict.outcome == Outcome.PASS else f"the gate says {said(verdict)}"
    if gate not in (None, Outcome.PASS):
        return f"the gate of its search says {gate}"
    if gate_required:
        return "no verdict of the gate is on record"
    if proof != IMPROVED:
        return f"the variant is not proved to be better (verdict: {proof or 'none'}), nor gated"
    return None


def said(verdict: VerdictRecord | None) -> str:
    """A verdict in a line: its outcome and its name."""
    return "none" if verdict is None else f"{verdict.outcome} ({verdict.sha256[:SHORT]})"


def require_gate(
    verdicts: Verdicts,
    gate: ReleaseGate,
    *,
    candidate: str,
    stable: str | None,
    project_id: str | None,
) -> None:
    """Let a release begin whose plan's gate is passed.

    Args:
        verdicts: On record.
        gate: Of the plan.
        candidate: Its digest.
        stable: Digest of the variant that is stable now; None where there is none yet.
        project_id: Of the deployment.

    Raises:
        GateRefusedError: It is not.
    """
    if gate is ReleaseGate.NONE or stable == candidate:
        return
    champion = stable if gate is ReleaseGate.CHAMPION else None
    verdict = verdicts.latest(candidate, project_id=project_id, champion=champion)
    if verdict is None or verdict.outcome != Outcome.PASS:
        against = f" compared with {champion[:SHORT]}, which is stable" if champion else ""
        raise GateRefusedError(
            f"the release's plan asks for a pass of the gate{against}",
            got=said(verdict),
            fix="Have `ztom gate` decide, and deploy with its verdict.",
        )
