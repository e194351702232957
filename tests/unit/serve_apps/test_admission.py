"""Which deployments are let in: requests as values, a ledger in a file, variants on disk."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError
from variant_folders import FAST, trusted_key, verdict_of, write_folder

from serve_apps.endpoints.admission import check, deploy, intent_of, new_deployment
from serve_apps.endpoints.evidence import AdmissionRules
from ztom.errors import (
    AlreadyOnRecordError,
    ConfigError,
    GateRefusedError,
    NotOnRecordError,
    ReferenceRefusedError,
    SignatureError,
    VariantError,
)
from ztom.io.signatures import public_key_of, signing_key
from ztom.ledger import Ledger
from ztom.ledger.accounts import NewUser
from ztom.ledger.deployments import DeploymentRecord, DeploymentState
from ztom.ledger.records import AuditEvent, NewStudy, NewVariant
from ztom.rollout.intent import Intent
from ztom.rollout.options import DeployOptions
from ztom.rollout.plan import parse_plan
from ztom.rollout.routing import Match, Placement, Route
from ztom.settings import Settings
from ztom.variants.signature import SIGNATURE, sign_variant
from ztom.wire.deployments import Deploy

ESTIMATE = {"value": 0.8, "low": 0.7, "high": 0.9, "method": "exact"}
FLOOR = {"floor": 0.8, "findings": [{"rule": "floor", "outcome": "pass", "reason": ""}]}
DIFFERENCE = {"findings": [{"rule": "difference", "outcome": "pass", "reason": ""}]}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        yield ledger


class Desk:
    """Where requests come in; variants are in one folder, and that is the one allowed root."""

    def __init__(self, ledger: Ledger, root: Path, **rules: Any) -> None:
        self.ledger, self.root = ledger, root
        settings = Settings(allowed_roots=(str(root),), cache_dir=root / "cache")
        self.rules = AdmissionRules(rules.pop("gate_required", False), settings, settings)

    def variant(self, name: str, **options: Any) -> tuple[str, str]:
        folder, digest = write_folder(self.root / name, **options)
        return str(folder), digest

    def deploy(self, path: str, alias: str = "support", **wishes: Any) -> DeploymentRecord:
        wanted = Deploy(alias=alias, path=path, **wishes)
        return deploy(wanted, self.ledger, self.rules, actor="user:1")

    def serve(self, name: str, alias: str = "support", **options: Any) -> tuple[str, str]:
        """A new variant that is stable under the alias, as the controller would make it."""
        path, digest = self.variant(name)
        self.deploy(path, alias, now=True, name=name, options=options)
        self.make_stable(digest, name, alias, app=f"variant-{name}")
        return path, digest

    def make_stable(self, digest: str, name: str, alias: str, *, app: str) -> None:
        endpoints = self.ledger.endpoints
        where = Placement(name=name, app=app, deployment="variant", folder="/", current=digest)
        endpoints.change_routing(
            lambda table: table.with_placement(digest, where).with_route(
                alias, Route(stable=digest)
            ),
            actor="t",
            action="x",
            subject="y",
        )
        endpoints.deployments.set_state(digest, DeploymentState.READY, actor="t")
        endpoints.deployments.clear_intent(digest, endpoints.deployments.get(digest).intent)


@pytest.fixture
def desk(ledger: Ledger, tmp_path: Path) -> Desk:
    root = tmp_path / "variants"
    root.mkdir()
    return Desk(ledger, root)


def test_a_deployment_is_written_down_with_its_traffic(desk: Desk) -> None:
    path, digest = desk.variant("one")
    record = desk.deploy(path, options={"max_replicas": 2}, plan=FAST)
    assert (record.digest, record.name, record.address) == (digest, "support", path)
    assert record.options == DeployOptions(max_replicas=2)
    assert record.intent == Intent(alias="support", plan=parse_plan(FAST))
    assert (record.state, record.insisted, record.actor) == ("starting", False, "user:1")
    assert desk.ledger.endpoints.deployments.get(digest) == record
    assert desk.ledger.endpoints.project_of("support") is None
    (note,) = [entry.event.note for entry in desk.ledger.audit.entries()]
    assert note == "for support; verdict: improved; gate: none; variant unsigned"


@pytest.mark.parametrize(
    ("wishes", "kind"),
    [
        ({}, "main"),
        ({"now": True}, "main"),
        ({"live": True}, "main"),
        ({"canary": 5}, "candidate"),
        ({"shadow": 5, "canary": 1}, "candidate"),
        ({"rule": Match(key="k")}, "rule"),
    ],
)
def test_what_a_request_says_of_its_traffic(wishes: dict[str, Any], kind: str) -> None:
    intent = intent_of(Deploy(alias="support", path="/", **wishes))
    assert intent.kind == kind
    assert (intent.plan == parse_plan()) == (not wishes)


@pytest.mark.parametrize("wishes", [{"now": True, "canary": 5}, {"canary": 5, "plan": FAST}])
def test_a_request_says_one_thing_of_its_traffic(desk: Desk, wishes: dict[str, Any]) -> None:
    path, _ = desk.variant("one")
    with pytest.raises(ConfigError, match="the traffic is not clear"):
        desk.deploy(path, **wishes)
    assert desk.ledger.endpoints.deployments.all() == ()


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"options": {"max_replicas": 0}}, "max_replicas"),
        ({"options": {"max_replica": 1}}, "max_replica"),
        ({"plan": {"steps": [{"canary": 5}]}}, "the release plan is wrong"),
        ({"canary": 101}, "canary"),
    ],
)
def test_what_is_wrong_in_itself_is_no_request(wishes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Deploy(alias="support", path="/", **wishes)


def test_a_variant_is_named_once_and_lies_under_the_roots(desk: Desk, tmp_path: Path) -> None:
    elsewhere, _ = write_folder(tmp_path / "elsewhere")
    path, _ = desk.variant("one")
    for wanted in (Deploy(alias="a"), Deploy(alias="a", path=path, file_id="0" * 32)):
        with pytest.raises(ConfigError, match="one of path and fileId"):
            deploy(wanted, desk.ledger, desk.rules, actor="t")
    with pytest.raises(ConfigError, match="a projectId beside it"):
        deploy(Deploy(alias="a", file_id="0" * 32), desk.ledger, desk.rules, actor="t")
    with pytest.raises(ReferenceRefusedError, match="outside the allowed roots"):
        desk.deploy(str(elsewhere))
    with pytest.raises(VariantError, match="no such variant"):
        desk.deploy(str(desk.root / "nowhere"))


def test_what_an_engine_reads_besides_lies_under_the_roots_too(desk: Desk, tmp_path: Path) -> None:
    """An adapter's base, and the chain of what swaps live; nothing else is read."""
    chain_elsewhere = write_folder(tmp_path / "other" / "one")[0].parent
    for form in ("dense", "adapter"):
        folder, _ = write_folder(chain_elsewhere / form, form=form)
        inside = desk.root / form
        folder.rename(inside)
        if form == "adapter":
            with pytest.raises(ReferenceRefusedError):
                desk.deploy(str(inside), form)
        else:
            with pytest.raises(ReferenceRefusedError):
                desk.deploy(str(inside), form, options={"live_swap": True})
            desk.deploy(str(inside), form)


def test_another_projects_alias_is_none(desk: Desk) -> None:
    owner = desk.ledger.accounts.create(NewUser("ada", "a@x.org", "h"), actor="t")
    project = desk.ledger.projects.create(
        name="p", description="", format="HF_TEXT_GENERATION", owner=owner.id, actor="t"
    )
    desk.ledger.endpoints.claim("support", project.id)
    path, _ = desk.variant("one")
    with pytest.raises(NotOnRecordError, match="no such endpoint"):
        desk.deploy(path)
    with pytest.raises(NotOnRecordError, match="no such endpoint"):
        desk.deploy("/nothing/is/learnt/of/paths")
    assert desk.deploy(path, project_id=project.id).project_id == project.id


def test_no_green_no_ship(desk: Desk) -> None:
    path, digest = desk.variant("one", verdict=None)
    with pytest.raises(GateRefusedError, match="not proved to be better"):
        desk.deploy(path)
    with pytest.raises(GateRefusedError, match="the gate says fail"):
        desk.deploy(path, verdict=verdict_of(digest, "fail"))
    (verdict,) = desk.ledger.verdicts.all(candidate=digest)
    assert verdict.outcome == "fail", "it is on record, whatever it says"
    record = desk.deploy(path, insist=True)
    assert record.insisted
    note = list(desk.ledger.audit.entries())[-1].event.note
    assert note.startswith("for support; verdict: none; gate: fail (")
    assert note.endswith("; insisted on by user:1")


def test_a_verdict_that_passes_is_enough(desk: Desk) -> None:
    path, digest = desk.variant("one", verdict=None)
    strict = Desk(desk.ledger, desk.root, gate_required=True)
    claimed = verdict_of(digest, "pass")
    with pytest.raises(GateRefusedError, match=r"a claim: pass \(.*, unsigned claim.*--sign KEY"):
        strict.deploy(path, verdict=claimed)
    unknown = verdict_of(digest, "pass", key=Ed25519PrivateKey.generate())
    with pytest.raises(GateRefusedError, match=r"signed by key [0-9a-f]{12}, which is not regist"):
        strict.deploy(path, verdict=unknown)
    changed = verdict_of(digest, "pass", key=trusted_key(desk.ledger)) | {"seed": 7}
    with pytest.raises(SignatureError, match="the signature of the verdict does not fit"):
        strict.deploy(path, verdict=changed)
    key = trusted_key(desk.ledger, "release")
    record = strict.deploy(path, verdict=verdict_of(digest, "pass", key=key))
    assert not record.insisted
    notes = [entry.event.note for entry in desk.ledger.audit.entries()]
    assert notes[-2] == "pass, signed by release"
    assert re.search(r"gate: pass \([0-9a-f]{12}\) signed by release; variant unsigned$", notes[-1])
    proved, _ = desk.variant("two")
    with pytest.raises(GateRefusedError, match="no verdict of the gate is on record"):
        strict.deploy(proved, "other")


def test_a_claim_does_not_hide_what_was_signed_and_a_revoked_key_counts_no_more(desk) -> None:
    path, digest = desk.variant("one")
    strict = Desk(desk.ledger, desk.root, gate_required=True)
    key = trusted_key(desk.ledger)
    passed = Deploy(alias="a", path=path, verdict=verdict_of(digest, "pass", key=key))
    claimed = Deploy(alias="a", path=path, verdict=verdict_of(digest, "pass", seed=2))
    for wanted in (passed, claimed):
        check(wanted, desk.ledger, strict.rules, actor="t")
    (registered,) = desk.ledger.signing_keys.all()
    desk.ledger.signing_keys.revoke(registered.id, actor="t")
    with pytest.raises(GateRefusedError, match="a claim"):
        strict.deploy(path)
    record = strict.deploy(path, insist=True)
    assert record.insisted
    note = list(desk.ledger.audit.entries())[-1].event.note
    assert note.endswith(", unsigned claim; variant unsigned; insisted on by user:1")


@pytest.mark.abuse(91)
def test_a_variant_says_who_signed_it_and_a_wrong_key_is_refused(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZTOM_ACTOR", "local:ada")
    path, digest = desk.variant("one")
    folder = Path(path)
    assert sign_variant(folder, digest) is not None
    strict = Desk(desk.ledger, desk.root)
    strict.rules = replace(desk.rules, signed_only=True)
    with pytest.raises(SignatureError, match=r"wrong key: got key \w+, which is not registered"):
        strict.deploy(path)
    signed_by = desk.deploy(path).signed_by
    assert signed_by is not None
    assert signed_by.endswith("which is not registered (local:ada)")
    public = public_key_of(signing_key(tmp_path / "signing.key"))
    own = replace(strict.rules, own_key=public)
    wanted = Deploy(alias="own", path=path)
    assert check(wanted, desk.ledger, own, actor="t").clearance.signer == "this server"
    key = desk.ledger.signing_keys.register("release", public, actor="t")
    checked = check(wanted, desk.ledger, strict.rules, actor="t")
    assert checked.clearance.signer == "release"
    assert "; variant signed by release" in new_deployment(wanted, checked, actor="t").note
    desk.ledger.signing_keys.revoke(key.id, actor="t")
    with pytest.raises(SignatureError, match="a key that was revoked: got release"):
        desk.deploy(path, "other")
    unsigned, _ = desk.variant("two")
    with pytest.raises(SignatureError, match="two is unsigned"):
        strict.deploy(unsigned, "other")
    assert desk.deploy(unsigned, "other").signed_by is None
    (Path(unsigned) / SIGNATURE).write_bytes((folder / SIGNATURE).read_bytes())
    with pytest.raises(SignatureError, match="does not fit"):
        desk.deploy(unsigned, "third")


def test_what_a_search_of_this_server_gated_counts(desk: Desk) -> None:
    path, digest = desk.variant("one", gate="pass")
    strict = Desk(desk.ledger, desk.root, gate_required=True)
    with pytest.raises(GateRefusedError, match="no verdict of the gate is on record"):
        strict.deploy(path)
    new = NewStudy(
        name="s", config={}, config_digest="0", chain_digest="0", data_digests={}, seed=0
    )
    study = desk.ledger.studies.create(new)
    event = AuditEvent(actor="t", action="variant.release", subject=f"variant:{digest}")
    written = NewVariant(digest, path, recipe={}, event=event, study_id=study.id)
    desk.ledger.variants.record(written, lambda: None)
    assert not strict.deploy(path).insisted


@pytest.mark.abuse(31)
def test_a_verdict_is_of_the_variant_and_does_not_contradict_itself(desk: Desk) -> None:
    path, digest = desk.variant("one")
    with pytest.raises(ConfigError, match="of another variant"):
        desk.deploy(path, verdict=verdict_of("e" * 64))
    with pytest.raises(ValidationError, match="contradicts itself"):
        Deploy(alias="a", path=path, verdict={**verdict_of(digest), "outcome": "fail"})


@pytest.mark.abuse(95)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"findings": []}, "it says pass, its findings nothing, as there are none"),
        ({"n": 0, "clusters": 0}, "it says pass, of 0 items"),
        ({"clusters": 0}, "of 100 items in 0 clusters"),
        ({"clusters": 101}, "of 100 items in 101 clusters"),
        ({"unscored": {"candidate": 1}}, "names items that did not"),
        ({"must_pass_failures": ["a"]}, "names items that did not"),
        ({"findings": [{"rule": "harm", "outcome": "fail", "reason": ""}]}, "its findings fail"),
        ({**FLOOR, "candidate": ESTIMATE}, "a lower bound of 0.7 below the floor 0.8"),
        ({**DIFFERENCE, "difference": ESTIMATE | {"low": -0.3}}, "below the margin 0"),
    ],
)
def test_a_pass_without_findings_items_or_figures_is_refused(change, message) -> None:
    """Forged by hand, and in contradiction with itself."""
    forged = verdict_of("a" * 64, champion="b" * 64)
    (suite,) = forged["suites"]
    with pytest.raises(ValidationError, match=message):
        Deploy(alias="a", path="/x", verdict={**forged, "suites": [suite | change]})


def test_insistence_does_not_open_a_release_whose_plan_asks_for_the_gate(desk: Desk) -> None:
    _, stable = desk.serve("stable")
    path, digest = desk.variant("one")
    plan = {**FAST, "gate": "champion"}
    key = trusted_key(desk.ledger)
    passed = verdict_of(digest, "pass", key=key)
    with pytest.raises(GateRefusedError, match=f"compared with {stable[:12]}"):
        desk.deploy(path, plan=plan, verdict=passed, insist=True)
    claimed = verdict_of(digest, "pass", champion=stable, seed=2)
    with pytest.raises(GateRefusedError, match="unsigned claim"):
        desk.deploy(path, plan=plan, verdict=claimed, insist=True)
    compared = verdict_of(digest, "pass", champion=stable, seed=1, key=key)
    assert desk.deploy(path, plan=plan, verdict=compared).state is DeploymentState.STARTING


def test_swap_into_is_not_for_clients(desk: Desk) -> None:
    path, digest = desk.variant("one")
    for value in (digest, None):
        with pytest.raises(ConfigError, match="swap_into is not an option"):
            desk.deploy(path, options={"swap_into": value})


def test_name_and_options_stay_where_nothing_else_is_said(desk: Desk) -> None:
    path, digest = desk.serve("one", max_replicas=3)
    again = desk.deploy(path, "other")
    assert (again.name, again.options) == ("one", DeployOptions(max_replicas=3))
    assert again.state is DeploymentState.READY, "nothing to restart"
    desk.ledger.endpoints.deployments.clear_intent(digest, again.intent)
    anew = desk.deploy(path, "other", name="uno", options={"max_replicas": 4})
    assert (anew.name, anew.options.max_replicas) == ("uno", 4)


def test_a_live_swap_takes_an_application_that_holds_the_chain(desk: Desk) -> None:
    path, digest = desk.variant("two")
    with pytest.raises(NotOnRecordError, match="no such endpoint"):
        desk.deploy(path, live=True)
    _, plain = desk.serve("plain")
    with pytest.raises(ConfigError, match=f"swapped in live: got into plain@{plain[:12]}"):
        desk.deploy(path, live=True)
    _, host = desk.serve("host", "swapping", live_swap=True)
    record = desk.deploy(path, "swapping", live=True)
    assert record.options == DeployOptions(swap_into=host)
    assert record.intent == Intent(alias="swapping", now=True)
    desk.make_stable(digest, "two", "swapping", app="variant-host")
    third, _ = desk.variant("three")
    assert desk.deploy(third, "swapping", live=True).options.swap_into == host, "not into two"


def test_an_adapter_is_not_swapped_in(desk: Desk) -> None:
    desk.serve("host", live_swap=True)
    path, _ = desk.variant("adapter", form="adapter")
    with pytest.raises(ConfigError, match="full weights"):
        desk.deploy(path, live=True)


def test_an_engine_that_answers_for_others_too_is_not_swapped(desk: Desk) -> None:
    _, host = desk.serve("host", live_swap=True)
    desk.make_stable(host, "host", "other", app="variant-host")
    path, _ = desk.variant("two")
    with pytest.raises(ConfigError, match="the engine of support also answers for other"):
        desk.deploy(path, live=True)


def test_two_that_take_turns_in_an_engine_do_not_answer_side_by_side(desk: Desk) -> None:
    first, _ = desk.serve("one", live_swap=True)
    path, two = desk.variant("two")
    desk.deploy(path, live=True)
    table = desk.ledger.endpoints.table()
    app = next(iter(table.placements.values())).app

    def swapped(table: Any) -> Any:
        for digest in (*table.placements, two):
            where = Placement(name="v", app=app, deployment="variant", folder="/", current=two)
            table = table.with_placement(digest, where)
        return table.with_route("support", Route(stable=two))

    desk.ledger.endpoints.change_routing(swapped, actor="t", action="x", subject="y")
    deployments = desk.ledger.endpoints.deployments
    deployments.set_state(two, DeploymentState.READY, actor="t")
    deployments.clear_intent(two, deployments.get(two).intent)
    with pytest.raises(ConfigError, match="another variant answers from this one's engine"):
        desk.deploy(first, canary=5)
    with pytest.raises(ConfigError, match="got for support"):
        desk.deploy(first, "other", now=True)
    assert desk.deploy(first, now=True).intent == Intent(alias="support", now=True)


def test_of_two_that_want_the_same_traffic_the_second_is_refused(desk: Desk) -> None:
    desk.serve("zero")
    one, _ = desk.variant("one")
    two, digest = desk.variant("two")
    desk.deploy(one)
    with pytest.raises(AlreadyOnRecordError, match="is being deployed to support"):
        desk.deploy(two)
    assert desk.deploy(two, rule={"header": "x", "value": "y"}).digest == digest, "other traffic"


def test_a_release_under_way_is_ended_first(desk: Desk) -> None:
    _, stable = desk.serve("zero")
    path, digest = desk.variant("one")
    rollout = desk.ledger.endpoints.rollouts.start(
        "support", candidate="e" * 64, stable=stable, plan=parse_plan(), actor="t"
    )
    for wishes in ({}, {"now": True}, {"canary": 5}):
        with pytest.raises(AlreadyOnRecordError, match=f"under way: got {rollout.id}"):
            desk.deploy(path, **wishes)
    assert desk.deploy(path, rule={"key": "k"}).digest == digest


def test_a_candidate_needs_something_beside_it_that_is_served_or_comes(desk: Desk) -> None:
    path, _ = desk.variant("candidate")
    with pytest.raises(ConfigError, match="serves nothing that there could be a candidate beside"):
        desk.deploy(path, canary=5)
    coming, _ = desk.variant("coming")
    desk.deploy(coming)
    assert desk.deploy(path, canary=5).intent == Intent(alias="support", canary=5)


def test_a_check_writes_nothing_and_what_is_made_of_it_is_a_value(desk: Desk) -> None:
    path, digest = desk.variant("one")
    wanted = Deploy(alias="support", path=path)
    checked = check(wanted, desk.ledger, desk.rules, actor="t")
    assert list(desk.ledger.audit.entries()) == []
    new = new_deployment(wanted, checked, actor="user:1")
    assert (new.digest, new.intent, new.insisted) == (digest, intent_of(wanted), False)
    assert desk.ledger.endpoints.deployments.all() == ()
