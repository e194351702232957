"""No green, no ship: what a deployment and a release take, and a controller that looks again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from controlled import Controlled
from variant_folders import FAST, verdict_of

from serve_apps.controller.releases import move_releases
from serve_apps.endpoints.clearance import refusal, require_gate
from serve_apps.endpoints.traffic import promote, remove
from ztom.errors import ConfigError, GateRefusedError
from ztom.ledger import Ledger
from ztom.ledger.deployments import DeploymentState
from ztom.ledger.endpoints import Endpoints
from ztom.ledger.verdicts import NewVerdict, VerdictRecord, Verdicts
from ztom.rollout.plan import ReleaseGate, parse_plan
from ztom.rollout.state import ReleaseStatus

A, B, C = "a" * 64, "b" * 64, "c" * 64


def on_record(outcome: str | None, signer: str | None = "ci") -> VerdictRecord | None:
    if outcome is None:
        return None
    return VerdictRecord(1, C, A, None, outcome, None, "t", "", signer=signer)


@pytest.mark.parametrize(
    ("verdict", "proof", "gate", "gate_required", "refused"),
    [
        ("pass", "improved", None, False, None),
        ("pass", None, None, False, None),
        ("pass", "no_improvement", None, True, None),
        ("pass", "improved", "fail", True, None),
        ("fail", "improved", "pass", False, "the gate says fail (cccccccccccc)"),
        ("fail", None, None, True, "the gate says fail"),
        ("inconclusive", "improved", None, False, "the gate says inconclusive"),
        (None, "improved", None, False, None),
        (None, "improved", "pass", False, None),
        (None, "improved", "fail", False, "the gate of its search says fail"),
        (None, "improved", "inconclusive", False, "the gate of its search says inconclusive"),
        (None, "improved", None, True, "no verdict of the gate is on record"),
        (None, "improved", "pass", True, "no verdict of the gate is on record"),
        (None, None, None, True, "no verdict of the gate is on record"),
        (None, None, None, False, "not proved to be better (verdict: none)"),
        (None, "no_improvement", None, False, "not proved to be better (verdict: no_improvement)"),
    ],
)
def test_what_a_deployment_takes(verdict, proof, gate, gate_required, refused) -> None:
    said = refusal(on_record(verdict), proof=proof, gate=gate, gate_required=gate_required)
    assert (said is None) == (refused is None)
    assert said is None or refused in said


@pytest.mark.parametrize(
    ("proof", "gate", "own_gate", "gate_required", "refused"),
    [
        ("improved", None, None, True, "the gate's verdict is a claim: pass (cccccccccccc), unsig"),
        (None, None, None, False, "the gate's verdict is a claim: pass (cccccccccccc), unsigned"),
        ("improved", None, None, False, None),
        ("improved", "fail", None, False, "the gate of its search says fail"),
        ("improved", "pass", None, True, "is a claim"),
        ("improved", "pass", "pass", True, None),
        (None, "pass", "pass", True, None),
        ("improved", "pass", "inconclusive", True, "is a claim"),
    ],
)
def test_a_pass_that_nobody_signed_is_a_claim(
    proof, gate, own_gate, gate_required, refused
) -> None:
    claim = on_record("pass", signer=None)
    rules = {"proof": proof, "gate": gate, "gate_required": gate_required, "own_gate": own_gate}
    text = refusal(claim, **rules)
    assert (text is None) == (refused is None)
    assert text is None or refused in text
    assert refusal(on_record("fail", signer=None), **rules).startswith("the gate says fail")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        yield ledger


def judge(ledger: Ledger, candidate: str, outcome: str, champion: str | None = None) -> None:
    """By a key that is registered."""
    public_key = "of the operator"
    if ledger.signing_keys.by_public_key(public_key) is None:
        ledger.signing_keys.register("ci", public_key, actor="t")
    document = json.dumps(verdict_of(candidate, outcome, champion=champion)).encode()
    new = NewVerdict(document, candidate, champion, outcome, public_key=public_key)
    ledger.verdicts.record(new, actor="t")


@pytest.mark.parametrize(
    ("gate", "judged", "stable", "begins"),
    [
        ("none", [], B, True),
        ("none", [("fail", B)], B, True),
        ("pass", [], B, False),
        ("pass", [("pass", C)], B, True),
        ("pass", [("pass", B), ("fail", C)], B, False),
        ("pass", [("inconclusive", B)], B, False),
        ("pass", [], A, True),
        ("champion", [("pass", B)], B, True),
        ("champion", [("pass", C)], B, False),
        ("champion", [("pass", None)], B, False),
        ("champion", [("pass", B), ("fail", B)], B, False),
        ("champion", [("pass", B), ("fail", C)], B, True),
        ("champion", [("pass", None)], None, True),
        ("champion", [], None, False),
    ],
)
def test_what_a_release_takes(ledger, gate, judged, stable, begins) -> None:
    for outcome, champion in judged:
        judge(ledger, A, outcome, champion)

    def ask() -> None:
        require_gate(
            ledger.verdicts, ReleaseGate(gate), candidate=A, stable=stable, project_id=None
        )

    if begins:
        ask()
    else:
        with pytest.raises(GateRefusedError, match="the release's plan asks for a pass"):
            ask()


def test_a_plan_says_its_gate() -> None:
    assert parse_plan().gate is ReleaseGate.NONE
    assert parse_plan({"gate": "champion"}).gate is ReleaseGate.CHAMPION
    with pytest.raises(ConfigError, match="gate"):
        parse_plan({"gate": "green"})


@pytest.fixture
def controlled(ledger: Ledger, tmp_path: Path) -> Controlled:
    return Controlled(ledger, tmp_path)


BY_CHAMPION = parse_plan({**FAST, "gate": "champion"})


def test_a_release_begins_that_was_passed_against_what_is_stable(controlled: Controlled) -> None:
    one, two = controlled.serve("one"), controlled.write("two")
    judge(controlled.ledger, two, "pass", one)
    controlled.want("two", two, plan=BY_CHAMPION)
    controlled.look()
    (release,) = controlled.endpoints.rollouts.open()
    assert (release.candidate, release.stable, release.plan.gate) == (two, one, "champion")
    assert controlled.endpoints.deployments.get(two).state is DeploymentState.READY


def test_a_release_does_not_begin_where_another_one_became_stable(controlled: Controlled) -> None:
    one, two = controlled.serve("one"), controlled.write("two")
    three = controlled.serve("three", canary=10)
    judge(controlled.ledger, two, "pass", one)
    controlled.want("two", two, plan=BY_CHAMPION)
    promote(controlled.endpoints, "support", actor="t")
    controlled.look()
    assert controlled.endpoints.rollouts.all() == ()
    refused = controlled.endpoints.deployments.get(two)
    assert (refused.state, refused.intent) == (DeploymentState.FAILED, None)
    assert f"compared with {three[:12]}" in (refused.reason or "")
    assert controlled.table.routes["support"].stable == three
    assert two not in controlled.table.placements
    notes = [entry.event.note for entry in controlled.ledger.audit.entries()]
    assert refused.reason in notes


def test_a_release_that_was_about_to_begin_ends_where_another_one_became_stable(
    controlled: Controlled, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = controlled.serve("one"), controlled.write("two")
    three = controlled.serve("three", canary=10)
    judge(controlled.ledger, two, "pass", one)
    controlled.want("two", two, plan=BY_CHAMPION)
    latest, calls = Verdicts.latest, []

    def and_then_promote(*args: Any, **options: Any) -> VerdictRecord | None:
        found = latest(*args, **options)
        calls.append(found)
        if len(calls) == 2:  # the last look before the release is written down
            promote(controlled.endpoints, "support", actor="t")
        return found

    monkeypatch.setattr(Verdicts, "latest", and_then_promote)
    controlled.look()
    move_releases(controlled.endpoints, seconds=1.0)
    (release,) = controlled.endpoints.rollouts.all()
    assert release.status is ReleaseStatus.ABORTED
    assert "became stable" in (controlled.endpoints.deployments.get(two).reason or "")
    route = controlled.table.routes["support"]
    assert (route.stable, route.canary, route.shadow) == (three, None, None)


def test_one_that_serves_elsewhere_goes_on_there(controlled: Controlled) -> None:
    controlled.serve("one")
    two = controlled.serve("two", alias="other", now=True)
    judge(controlled.ledger, two, "pass")
    controlled.want("two", two, plan=parse_plan({**FAST, "gate": "pass"}))
    judge(controlled.ledger, two, "fail")
    controlled.look()
    refused = controlled.endpoints.deployments.get(two)
    assert (refused.state, refused.intent) == (DeploymentState.READY, None)
    assert "got fail" in (refused.reason or "")
    assert controlled.endpoints.rollouts.all() == ()
    assert controlled.table.routes["other"].stable == two
    assert controlled.table.routes["support"].shadow is None


def test_an_endpoint_that_is_removed_while_it_gets_its_traffic_stays_away(
    controlled: Controlled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is removed after the last look at what is wanted, and before the table is changed."""
    digest = controlled.write("one")
    controlled.want("one", digest, now=True)
    change_routing = Endpoints.change_routing

    def after_removal(endpoints: Endpoints, change: Any, **about: Any) -> int:
        if about["action"] == "route.intent":
            remove(endpoints, "support", actor="somebody")
        return change_routing(endpoints, change, **about)

    monkeypatch.setattr(Endpoints, "change_routing", after_removal)
    controlled.look()
    assert controlled.table.routes == {}
    assert controlled.table.placements == {}
    cancelled = controlled.endpoints.deployments.get(digest)
    assert (cancelled.state, cancelled.intent) == (DeploymentState.FAILED, None)
