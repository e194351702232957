"""``ztom deploy`` against a real server whose variants are played on a stage."""

from __future__ import annotations

import json

import pytest
from server_commands import SHORT, STANDS_STILL, assert_said, named, write_yaml
from variant_folders import deploy, ready, trusted_key, variant, verdict_of, write_folder

from ztom.errors import GateRefusedError

#: Printed while a variant starts, where there is no terminal.
STARTING = "verifying, loading and asking the variant ...\n"


def test_the_first_variant_of_an_alias_gets_everything(server, ztom) -> None:
    folder, digest = variant(server, "one")
    ran = ztom("deploy", folder, "--alias", "support", "--name", "one")
    assert (ran.status, ran.err) == (0, STARTING)
    assert ran.out == f"{named('one', digest)}\nsupport: stable {named('one', digest)}\n"


def test_a_folder_may_be_named_from_where_one_stands(server, admin, ztom, monkeypatch) -> None:
    folder, digest = variant(server, "one")
    monkeypatch.chdir(folder.parent)
    assert ztom("deploy", "one", "--alias", "support").status == 0
    assert admin.endpoints.deployment(digest).path == str(folder)


def test_a_release_is_what_one_gets_and_how_to_follow_it_is_said(server, admin, ztom) -> None:
    _, one = deploy(server, admin, "one")
    folder, _ = variant(server, "two")
    ran = ztom("deploy", folder, "--alias", "support", "--name", "two")
    (release,) = admin.endpoints.releases()
    assert ran.status == 0, ran.err
    said = ran.out.splitlines()[-1]
    assert said.startswith(f"support: stable {named('one', one)}, ")
    assert f"release {release.id} moves it (ztom release watch support)" in said


def test_shares_by_hand(server, admin, ztom) -> None:
    _, one = deploy(server, admin, "one")
    folder, two = variant(server, "two")
    shares = ("--canary", "2.5", "--shadow", "20")
    ran = ztom("deploy", folder, "--alias", "support", "--name", "two", *shares)
    assert ran.status == 0, ran.err
    assert ran.out.splitlines()[-1] == (
        f"support: stable {named('one', one)}, canary {named('two', two)} at 2.5 %, "
        f"shadow {named('two', two)} at 20 %"
    )
    assert admin.endpoints.releases() == []


def test_a_canary_of_nothing_is_by_hand_too(server, admin, ztom) -> None:
    _, one = deploy(server, admin, "one")
    folder, two = variant(server, "two")
    ran = ztom("deploy", folder, "--alias", "support", "--name", "two", "--canary", "0")
    assert ran.status == 0, ran.err
    assert admin.endpoints.releases() == []
    found = admin.endpoints.get("support")
    assert (found.canary, found.canary_percent) == (named("two", two), 0)


def test_now_takes_all_traffic_at_once(server, admin, ztom) -> None:
    deploy(server, admin, "one")
    folder, two = variant(server, "two")
    ran = ztom("deploy", folder, "--alias", "support", "--name", "two", "--now")
    assert ran.out.splitlines()[-1] == f"support: stable {named('two', two)}"
    assert admin.endpoints.releases() == []


def test_live_swaps_into_the_engine_that_runs(server, admin, ztom) -> None:
    first, _ = variant(server, "one")
    arguments = ("--alias", "support", "--set", "live_swap=true", "--set", "max_model_len=64")
    assert ztom("deploy", first, *arguments).status == 0
    (app,) = server.stage.apps
    second, two = variant(server, "two")
    ran = ztom("deploy", second, "--alias", "support", "--name", "two", "--live")
    assert ran.status == 0, ran.err
    assert server.stage.current == {app: two}
    assert server.stage.apps[app].args.max_model_len == 64


def test_live_takes_an_engine_that_holds_the_chain(server, admin, ztom) -> None:
    deploy(server, admin, "one")
    folder, _ = variant(server, "two")
    ran = ztom("deploy", folder, "--alias", "support", "--live")
    assert (ran.status, "live_swap" in ran.err) == (3, True)


def test_a_plan_of_ones_own(server, admin, ztom, tmp_path) -> None:
    deploy(server, admin, "one")
    folder, _ = variant(server, "two")
    plan = write_yaml(tmp_path / "plan.yaml", STANDS_STILL)
    ran = ztom("deploy", folder, "--alias", "support", "--plan", plan)
    assert ran.status == 0, ran.err
    (release,) = admin.endpoints.releases()
    assert [step.percent for step in release.plan.steps] == [100, 50, 100]
    assert {step.min_requests for step in release.plan.steps} == {20}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: .*No such file"),
        ("steps: [", "line 1: not usable YAML: expected"),
        ("", "is not a mapping: got NoneType"),
        ("[{canary: 5}]", "is not a mapping: got list"),
        ("steps: [{canary: 50}, {canary: 5}]", "the release plan is wrong: .*have to rise"),
        ("stpes: []", "the release plan is wrong: stpes"),
        ("min_seconds: .nan", "has a value that cannot be sent"),
        ("checks: {2026-11-21: 1}", "has a value that cannot be sent"),
    ],
)
def test_a_plan_that_is_wrong_is_said_and_deploys_nothing(
    server, admin, ztom, tmp_path, text, message
) -> None:
    folder, _ = variant(server, "one")
    plan = tmp_path / "plan.yaml"
    if text is not None:
        plan.write_text(text)
    ran = ztom("deploy", folder, "--alias", "support", "--plan", plan)
    assert (ran.status, ran.out) == (3, "")
    assert_said(ran.err, message)
    assert admin.endpoints.deployments() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "max_replica=2"), "max_replica"),
        (("--set", "max_replicas"), "not KEY=VALUE: got max_replicas"),
        (("--set", "price_per_hour=.nan"), "cannot be sent"),
        (("--now", "--canary", "5"), "the traffic is not clear"),
        (("--canary", "5"), "serves nothing that there could be a candidate beside"),
        (("--canary", "nan"), "--canary"),
        (("--canary", "101"), "--canary"),
        (("--alias", "a b"), "alias"),
        (("--project", "nothing"), "there is no project nothing"),
    ],
)
def test_wishes_that_make_no_sense_are_refused(server, admin, ztom, arguments, message) -> None:
    folder, _ = variant(server, "one")
    ran = ztom("deploy", folder, "--alias", "support", *arguments)
    assert (ran.status, ran.out) == (3, "")
    assert_said(ran.err, message)
    assert admin.endpoints.deployments() == []


def test_a_variant_that_fails_is_said_with_its_reason(server, admin, ztom) -> None:
    _, one = deploy(server, admin, "one")
    folder, bad = variant(server, "bad")
    reason = "VariantError: changed [/model].safetensors :cat:"
    server.stage.broken[f"variant-bad-{bad[:SHORT]}"] = reason
    ran = ztom("deploy", folder, "--alias", "support", "--name", "bad", "--now")
    assert (ran.status, ran.out) == (3, f"{named('bad', bad)}\n")
    assert ran.err == f"{STARTING}EngineError: the variant does not run: {reason}\n"
    assert admin.endpoints.get("support").stable == named("one", one)
    shown = ztom("status")
    assert shown.status == 0, shown.err
    assert reason in shown.out, "brackets and colons are text"


def test_a_variant_that_is_not_proved_takes_insistence(server, admin, ztom) -> None:
    folder, digest = variant(server, "hand", verdict=None)
    ran = ztom("deploy", folder, "--alias", "support")
    assert (ran.status, ran.out) == (3, "")
    assert_said(ran.err, "ServerError: .* not proved to be better")
    assert admin.endpoints.deployments() == []
    assert ztom("deploy", folder, "--alias", "support", "--insist").status == 0
    assert admin.endpoints.deployment(digest).insisted
    (line,) = (row for row in ztom("status").out.splitlines() if "ready" in row)
    assert line.split() == [named("support", digest), "ready", "yes"]


def test_a_verdict_of_the_gate_comes_along(server, admin, ztom, tmp_path) -> None:
    folder, digest = variant(server, "hand", verdict=None)
    file = tmp_path / "verdict.json"
    assert_said(ztom("deploy", folder, "--alias", "a", "--verdict", file).err, "cannot be read")
    file.write_text(json.dumps(verdict_of(digest, "fail")))
    ran = ztom("deploy", folder, "--alias", "support", "--verdict", file)
    assert (ran.status, ran.out) == (3, "")
    assert_said(ran.err, "the gate says fail")
    file.write_text(json.dumps(verdict_of(digest, key=trusted_key(server.services.ledger))))
    assert ztom("deploy", folder, "--alias", "support", "--verdict", file).status == 0
    assert not admin.endpoints.deployment(digest).insisted


def test_one_that_runs_and_got_no_traffic_is_said(server, admin, ztom, monkeypatch) -> None:
    folder, digest = deploy(server, admin, "one")

    def refuse(*_: object, **__: object) -> bool:
        raise GateRefusedError("another variant became stable")

    monkeypatch.setattr("serve_apps.controller.reconcile.apply_intent", refuse)
    ran = ztom("deploy", folder, "--alias", "support", "--name", "one")
    assert ran.status == 3
    assert_said(ran.err, "not for the traffic .* another variant became stable")
    assert admin.endpoints.deployment(digest).state == "ready"


def test_one_need_not_wait(server, admin, ztom) -> None:
    folder, digest = variant(server, "one")
    ran = ztom("deploy", folder, "--alias", "support", "--wait", "0")
    assert (ran.status, ran.out) == (0, f"{named('support', digest)}\n")
    ready(admin, digest)


def test_waiting_ends(server, admin, ztom, monkeypatch) -> None:
    monkeypatch.setattr(server.stage, "status", dict)
    folder, digest = variant(server, "one")
    ran = ztom("deploy", folder, "--alias", "support", "--wait", "0.2")
    assert (ran.status, ran.out) == (3, f"{named('support', digest)}\n")
    assert_said(ran.err, "EngineTimeoutError: the variant is not ready yet.*ztom status")


def test_folders_outside_the_roots_are_refused(ztom, tmp_path) -> None:
    folder, _ = write_folder(tmp_path / "elsewhere")
    ran = ztom("deploy", folder, "--alias", "support")
    assert (ran.status, "outside the allowed roots" in ran.err) == (3, True)
    ran = ztom("deploy", "no-such-folder", "--alias", "support")
    assert (ran.status, ran.err.startswith("ServerError: ")) == (3, True)


def test_a_member_deploys_for_a_project(server, ztom, monkeypatch) -> None:
    session = server.as_user("ada")
    project = server.project(session)
    monkeypatch.setenv("ZTOM_API_KEY", server.token("ada"))
    folder, digest = variant(server, "one")
    assert ztom("deploy", folder, "--alias", "support").status == 3
    ran = ztom("deploy", folder, "--alias", "support", "--project", project)
    assert ran.status == 0, ran.err
    assert ran.out.endswith(f"support: stable {named('support', digest)}\n")
    assert project in ztom("status").out


def test_a_server_has_to_be_named_and_to_be_there(ztom, monkeypatch) -> None:
    away = ztom("status", "--server", "http://127.0.0.1:9")
    assert (away.status, "cannot be reached" in away.err) == (3, True)
    monkeypatch.delenv("ZTOM_SERVER")
    nowhere = ztom("status")
    assert (nowhere.status, "no server is named" in nowhere.err) == (3, True)


def test_as_json_it_is_one_document(server, admin, ztom) -> None:
    folder, digest = variant(server, "one")
    at_once = ztom("deploy", folder, "--alias", "support", "--wait", "0", "--json")
    assert (at_once.status, at_once.err) == (0, "")
    answer = json.loads(at_once.out)
    assert (answer["deployment"]["digest"], answer["endpoint"]) == (digest, None)
    ready(admin, digest)
    waited = ztom("deploy", folder, "--alias", "support", "--json")
    assert waited.status == 0, waited.err
    answer = json.loads(waited.out)
    assert answer["deployment"]["state"] == "ready"
    assert answer["endpoint"]["stable"] == named("support", digest)
    refused = ztom("deploy", "no-such-folder", "--alias", "support", "--json")
    assert (refused.status, refused.out) == (3, "")
