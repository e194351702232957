"""Whether a variant may have traffic: no green, no ship.

What counts is the latest verdict of the gate on record, of the project or of none. A pass counts
where a key that the operator has registered signed it, or where a search of this server ran the
suites itself; without that it is a claim, which whoever forged it would make as well. A server may
be told to do without a verdict where the search that wrote the variant has proved it better, and
its gate, if it had one, let it pass. Who insists gets through, and is on record; only what a
release's own plan asks for stays.
"""

from __future__ import annotations

from typing import NamedTuple

from serve_apps.endpoints.evidence import AdmissionRules, Evidence
from ztom.errors import GateRefusedError, SignatureError
from ztom.evaluation.gate.verdict import Outcome
from ztom.io.signatures import fingerprint
from ztom.ledger.verdicts import VerdictRecord, Verdicts
from ztom.rollout.plan import ReleaseGate
from ztom.rollout.routing import SHORT

IMPROVED = "improved"
#: What is said of variants that this server has written.
THIS_SERVER = "this server"


class Clearance(NamedTuple):
    """What was found of a variant that may have traffic.

    Attributes:
        verdict: The gate's latest on record; None when there is none.
        refused: Why it took somebody's insistence; None when it took none.
        signer: Who has signed the variant, in words; None where nobody has.
    """

    verdict: VerdictRecord | None
    refused: str | None
    signer: str | None = None

    @property
    def gate_text(self) -> str:
        """The gate's verdict in a line."""
        return verdict_text(self.verdict)


def clear(
    evidence: Evidence, rules: AdmissionRules, *, gate: ReleaseGate, insist: bool
) -> Clearance:
    """Let a variant pass, or not: a function of values alone.

    Args:
        evidence: The variant with what its own papers say, and the verdicts on it.
        rules: Rules of the operator.
        gate: Gate that its release's plan asks for.
        insist: Whether somebody wants it although neither the gate nor a search lets it pass.

    Raises:
        GateRefusedError: It is not green, and nobody insists or the release's plan asks for it.
        SignatureError: It is signed with a wrong key.
    """
    signer = signer_of(evidence, rules)
    variant, verdict = evidence.variant, evidence.verdict
    refused = refusal(
        verdict,
        proof=variant.verdict,
        gate=variant.gate,
        gate_required=rules.gate_required,
        own_gate=evidence.own_gate,
    )
    if refused is not None and not insist:
        fix = (
            "Have `ztom gate --sign KEY` decide, with a key that an administrator has registered; "
            "or deploy it with insist, which is recorded, all the same."
        )
        raise GateRefusedError(refused, fix=fix)
    deciding = evidence.against_stable if gate is ReleaseGate.CHAMPION else verdict
    _require_pass(gate, deciding, candidate=variant.digest, stable=evidence.stable)
    return Clearance(verdict, refused, signer)


def signer_of(evidence: Evidence, rules: AdmissionRules) -> str | None:
    """Who has signed a variant, in words; None where nobody has.

    Args:
        evidence: The variant with its signature, which fits, and the registered key.
        rules: Rules of the operator: this server's own key, and whether a signature is needed.

    Raises:
        SignatureError: The key was revoked, or it is none of those that the variant has to be
            signed with.
    """
    signed, key, name = evidence.variant.signed, evidence.key, evidence.variant.folder.name
    fix = "Have it signed with a key that an administrator has registered."
    expected = "a registered key (signed_variants)"
    if signed is None:
        if rules.signed_only:
            raise SignatureError(
                f"{name} is unsigned", got="no signature", expected=expected, fix=fix
            )
        return None
    if signed.public_key == rules.own_key:
        return THIS_SERVER
    if key is not None and key.revoked is not None:
        raise SignatureError(f"{name} is signed with a key that was revoked", got=key.name, fix=fix)
    if key is not None:
        return key.name
    unknown = f"key {fingerprint(signed.public_key)}, which is not registered"
    if rules.signed_only:
        raise SignatureError(
            f"{name} is signed with a wrong key", got=unknown, expected=expected, fix=fix
        )
    return f"{unknown} ({signed.signer})"


def refusal(
    verdict: VerdictRecord | None,
    *,
    proof: str | None,
    gate: str | None,
    gate_required: bool,
    own_gate: str | None = None,
) -> str | None:
    """Why a variant is not deployed unless somebody insists; None when it is.

    Args:
        verdict: The latest of the gate on record.
        proof: Outcome of the proof in the variant's recipe; None for factors set by hand.
        gate: Outcome of the gate in the search, by the recipe; None without suites.
        gate_required: The server takes no recipe's word for it.
        own_gate: Outcome of the gate in the search, where a search of this server ran the suites.
    """
    if verdict is not None and not verdict.is_claim:
        return None if verdict.outcome == Outcome.PASS else f"the gate says {verdict_text(verdict)}"
    if gate not in (None, Outcome.PASS):
        return f"the gate of its search says {gate}"
    if own_gate == Outcome.PASS:
        return None
    claim = None if verdict is None else f"the gate's verdict is a claim: {verdict_text(verdict)}"
    if gate_required:
        return claim or "no verdict of the gate is on record"
    if proof != IMPROVED:
        unproven = f"the variant is not proved to be better (verdict: {proof or 'none'}), nor gated"
        return claim or unproven
    return None


def verdict_text(verdict: VerdictRecord | None) -> str:
    """A verdict in a line: its outcome, its name, and who says so."""
    if verdict is None:
        return "none"
    line = f"{verdict.outcome} ({verdict.sha256[:SHORT]})"
    if verdict.signer is not None:
        return f"{line} signed by {verdict.signer}"
    if verdict.public_key is None:
        return f"{line}, unsigned claim"
    return f"{line}, signed by key {fingerprint(verdict.public_key)}, which is not registered"


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
        verdicts: Verdicts that are on record.
        gate: Gate that the plan asks for.
        candidate: Digest of the candidate.
        stable: Digest of the variant that is stable now; None where there is none yet.
        project_id: Id of the project of the deployment.

    Raises:
        GateRefusedError: It is not.
    """
    if gate is not ReleaseGate.NONE:
        champion = stable if gate is ReleaseGate.CHAMPION else None
        verdict = verdicts.latest(candidate, project_id=project_id, champion=champion)
        _require_pass(gate, verdict, candidate=candidate, stable=stable)


def _require_pass(
    gate: ReleaseGate, verdict: VerdictRecord | None, *, candidate: str, stable: str | None
) -> None:
    """Let a release begin whose plan's gate this verdict passes.

    Args:
        gate: Gate that the plan asks for.
        verdict: Latest verdict on the candidate; for ``champion``, of those that compare it with
            the stable variant.
        candidate: Digest of the candidate.
        stable: Digest of the variant that is stable now; None where there is none yet.

    Raises:
        GateRefusedError: It does not.
    """
    if gate is ReleaseGate.NONE or stable == candidate:
        return
    if verdict is None or verdict.outcome != Outcome.PASS or verdict.is_claim:
        champion = stable if gate is ReleaseGate.CHAMPION else None
        against = f" compared with {champion[:SHORT]}, which is stable" if champion else ""
        raise GateRefusedError(
            f"the release's plan asks for a pass of the gate{against}",
            got=verdict_text(verdict),
            fix="Have `ztom gate --sign KEY` decide, and deploy with its verdict.",
        )
