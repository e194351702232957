"""``ztom deploy``, ``promote``, ``rollback``, ``status``, ``apply`` and ``release``.

The commands run in this process, from the arguments to the exit status, against a real server whose
variants are played on a stage.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from server_helpers import Server
from variant_folders import (
    FAST,
    deploy,
    ready,
    variant,
    verdict_of,
    wait_for,
    write_folder,
)

from ztom.cli.main import main
from ztom.client import Client
from ztom.client.connection import Connection
from ztom.errors import GateRefusedError

SHORT = 12
#: Twenty requests to a step that nobody makes: it goes on until it is told something.
STANDS_STILL = {**FAST, "max_seconds": 600}


@dataclass(frozen=True)
class Ran:
    """What became of a command."""

    status: int
    out: str
    err: str


Ztom = Callable[..., Ran]


class Terminal(io.StringIO):
    """Somebody who types this, and then nothing more."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def ztom(
    server: Server,
    admin: Client,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Ztom:
    """Runs a command as the administrator; nobody is at the terminal unless somebody types."""
    monkeypatch.setenv("ZTOM_SERVER", server.url)
    monkeypatch.setenv("ZTOM_API_KEY", admin.key)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setattr("ztom.cli.actions.endpoints._POLL_S", 0.05)

    def run(*arguments: object, typed: str | None = None) -> Ran:
        if arguments[0] == "deploy" and "--wait" not in arguments:
            arguments += ("--wait", "30")  # not the ten minutes of the default
        monkeypatch.setattr(sys, "argv", ["ztom", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO() if typed is None else Terminal(typed))
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        return Ran(int(caught.value.code or 0), captured.out, captured.err)

    return run


def named(name: str, digest: str) -> str:
    return f"{name}@{digest[:SHORT]}"


def write_yaml(path: Path, content: object) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def releasing(
    server: Server, admin: Client, tmp_path: Path
) -> Callable[..., tuple[Mapping[str, Any], str, str]]:
    """Begins a release of `two` over `one`: the release and both digests."""

    def begin(**plan: Any) -> tuple[Mapping[str, Any], str, str]:
        _, one = deploy(server, admin, "one")
        _, two = deploy(server, admin, "two", plan=STANDS_STILL | plan)
        (release,) = admin.endpoints.releases("support")
        return release, one, two

    return begin


def soon(work: Callable[[], object]) -> threading.Thread:
    """Somebody else does it, a little later."""
    thread = threading.Timer(0.7, work)
    thread.start()
    return thread


# deploy


def test_the_first_variant_of_an_alias_gets_everything(server, ztom) -> None:
    folder, digest = variant(server, "one")
    ran = ztom("deploy", folder, "--alias", "support", "--name", "one")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == f"{named('one', digest)}\nsupport: stable {named('one', digest)}\n"


def test_a_folder_may_be_named_from_where_one_stands(server, admin, ztom, monkeypatch) -> None:
    folder, digest = variant(server, "one")
    monkeypatch.chdir(folder.parent)
    assert ztom("deploy", "one", "--alias", "support").status == 0
    assert admin.endpoints.deployment(digest)["path"] == str(folder)


def test_a_release_is_what_one_gets_and_how_to_follow_it_is_said(server, admin, ztom) -> None:
    _, one = deploy(server, admin, "one")
    folder, _ = variant(server, "two")
    ran = ztom("deploy", folder, "--alias", "support", "--name", "two")
    (release,) = admin.endpoints.releases()
    assert ran.status == 0, ran.err
    said = ran.out.splitlines()[-1]
    assert said.startswith(f"support: stable {named('one', one)}, ")
    assert f"release {release['id']} moves it (ztom release watch support)" in said


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
    assert (found["canary"], found["canaryPercent"]) == (named("two", two), 0)


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
    assert (ran.status, "live_swap" in ran.err) == (2, True)


def test_a_plan_of_ones_own(server, admin, ztom, tmp_path) -> None:
    deploy(server, admin, "one")
    folder, _ = variant(server, "two")
    plan = write_yaml(tmp_path / "plan.yaml", STANDS_STILL)
    ran = ztom("deploy", folder, "--alias", "support", "--plan", plan)
    assert ran.status == 0, ran.err
    (release,) = admin.endpoints.releases()
    assert [step["percent"] for step in release["plan"]["steps"]] == [100, 50, 100]
    assert {step["min_requests"] for step in release["plan"]["steps"]} == {20}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: got .*No such file"),
        ("steps: [", "line 1: not usable YAML: got expected"),
        ("", "is not a mapping: got NoneType"),
        ("[{canary: 5}]", "is not a mapping: got list"),
        ("steps: [{canary: 50}, {canary: 5}]", "the release plan is wrong: .*have to rise"),
        ("stpes: []", "the release plan is wrong: got stpes"),
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
    assert (ran.status, ran.out) == (2, "")
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
        (("--project", "nothing"), "status 4"),
    ],
)
def test_wishes_that_make_no_sense_are_refused(server, admin, ztom, arguments, message) -> None:
    folder, _ = variant(server, "one")
    ran = ztom("deploy", folder, "--alias", "support", *arguments)
    assert (ran.status, ran.out) == (2, "")
    assert_said(ran.err, message)
    assert admin.endpoints.deployments() == []


def test_a_variant_that_fails_is_said_with_its_reason(server, admin, ztom) -> None:
    _, one = deploy(server, admin, "one")
    folder, bad = variant(server, "bad")
    reason = "VariantError: changed [/model].safetensors :cat:"
    server.stage.broken[f"variant-bad-{bad[:SHORT]}"] = reason
    ran = ztom("deploy", folder, "--alias", "support", "--name", "bad", "--now")
    assert (ran.status, ran.out) == (2, f"{named('bad', bad)}\n")
    assert ran.err == f"EngineError: the variant does not run: got {reason}\n"
    assert admin.endpoints.get("support")["stable"] == named("one", one)
    shown = ztom("status")
    assert shown.status == 0, shown.err
    assert reason in shown.out, "brackets and colons are text"


def test_a_variant_that_is_not_proved_takes_insistence(server, admin, ztom) -> None:
    folder, digest = variant(server, "hand", verdict=None)
    ran = ztom("deploy", folder, "--alias", "support")
    assert (ran.status, ran.out) == (2, "")
    assert_said(ran.err, "ServerError: .* not proved to be better")
    assert admin.endpoints.deployments() == []
    assert ztom("deploy", folder, "--alias", "support", "--insist").status == 0
    assert admin.endpoints.deployment(digest)["insisted"]
    (line,) = (each for each in ztom("status").out.splitlines() if "ready" in each)
    assert line.split() == [named("support", digest), "ready", "yes"]


def test_a_verdict_of_the_gate_comes_along(server, admin, ztom, tmp_path) -> None:
    folder, digest = variant(server, "hand", verdict=None)
    file = tmp_path / "verdict.json"
    assert_said(ztom("deploy", folder, "--alias", "a", "--verdict", file).err, "cannot be read")
    file.write_text(json.dumps(verdict_of(digest, "fail")))
    ran = ztom("deploy", folder, "--alias", "support", "--verdict", file)
    assert (ran.status, ran.out) == (2, "")
    assert_said(ran.err, "the gate says fail")
    file.write_text(json.dumps(verdict_of(digest)))
    assert ztom("deploy", folder, "--alias", "support", "--verdict", file).status == 0
    assert not admin.endpoints.deployment(digest)["insisted"]


def test_one_that_runs_and_got_no_traffic_is_said(server, admin, ztom, monkeypatch) -> None:
    folder, digest = deploy(server, admin, "one")

    def refuse(*_: object, **__: object) -> bool:
        raise GateRefusedError("another variant became stable")

    monkeypatch.setattr("serve_apps.controller.reconcile.apply_intent", refuse)
    ran = ztom("deploy", folder, "--alias", "support", "--name", "one")
    assert ran.status == 2
    assert_said(ran.err, "not for the traffic .* another variant became stable")
    assert admin.endpoints.deployment(digest)["state"] == "ready"


def test_one_need_not_wait(server, admin, ztom) -> None:
    folder, digest = variant(server, "one")
    ran = ztom("deploy", folder, "--alias", "support", "--wait", "0")
    assert (ran.status, ran.out) == (0, f"{named('support', digest)}\n")
    ready(admin, digest)


def test_waiting_ends(server, admin, ztom, monkeypatch) -> None:
    monkeypatch.setattr(server.stage, "status", dict)
    folder, digest = variant(server, "one")
    ran = ztom("deploy", folder, "--alias", "support", "--wait", "0.2")
    assert (ran.status, ran.out) == (2, f"{named('support', digest)}\n")
    assert_said(ran.err, "EngineTimeoutError: the variant is not ready yet.*ztom status")


def test_folders_outside_the_roots_are_refused(ztom, tmp_path) -> None:
    folder, _ = write_folder(tmp_path / "elsewhere")
    ran = ztom("deploy", folder, "--alias", "support")
    assert (ran.status, "outside the allowed roots" in ran.err) == (2, True)
    ran = ztom("deploy", "no-such-folder", "--alias", "support")
    assert (ran.status, ran.err.startswith("ServerError: ")) == (2, True)


def test_a_member_deploys_for_a_project(server, ztom, monkeypatch) -> None:
    session = server.as_user("ada")
    project = server.project(session)
    monkeypatch.setenv("ZTOM_API_KEY", server.token("ada"))
    folder, digest = variant(server, "one")
    assert ztom("deploy", folder, "--alias", "support").status == 2
    ran = ztom("deploy", folder, "--alias", "support", "--project", project)
    assert ran.status == 0, ran.err
    assert ran.out.endswith(f"support: stable {named('support', digest)}\n")
    assert project in ztom("status").out


def test_a_server_has_to_be_named_and_to_be_there(ztom, monkeypatch) -> None:
    away = ztom("status", "--server", "http://127.0.0.1:9")
    assert (away.status, "cannot be reached" in away.err) == (2, True)
    monkeypatch.delenv("ZTOM_SERVER")
    nowhere = ztom("status")
    assert (nowhere.status, "no server is named" in nowhere.err) == (2, True)


# promote, rollback, status


def test_promote_and_rollback_say_where_the_traffic_is(server, admin, ztom) -> None:
    _, one = deploy(server, admin, "one")
    _, two = deploy(server, admin, "two", canary=10)
    assert ztom("promote", "support").out == f"support: stable {named('two', two)}\n"
    assert ztom("rollback", "support").out == f"support: stable {named('one', one)}\n"
    _, three = deploy(server, admin, "three", canary=10)
    assert named("three", three) in ztom("status").out
    assert ztom("rollback", "support").out == f"support: stable {named('one', one)}\n"


def test_there_has_to_be_something_to_promote_or_to_go_back_to(server, admin, ztom) -> None:
    for command in ("promote", "rollback"):
        ran = ztom(command, "nothing")
        assert (ran.status, ran.out) == (2, "")
        assert_said(ran.err, "status 404: got .*nothing")
    deploy(server, admin, "one")
    for command in ("promote", "rollback"):
        ran = ztom(command, "support")
        assert (ran.status, ran.out) == (2, "")
        assert_said(ran.err, "ServerError: ")


def test_status_shows_endpoints_rules_deployments_and_releases(server, admin, ztom) -> None:
    empty = ztom("status")
    assert (empty.status, "endpoint" in empty.out) == (0, True)
    _, one = deploy(server, admin, "one")
    deploy(server, admin, "acme", rule={"header": "x-customer", "value": "[acme]"})
    _, two = deploy(server, admin, "two", plan=STANDS_STILL)
    (release,) = admin.endpoints.releases()
    ran = ztom("status")
    assert ran.status == 0, ran.err
    lines = [line.split() for line in ran.out.splitlines()]
    assert ["endpoint", "stable", "canary", "shadow", "previous", "release"] in lines
    (support,) = (line for line in lines if line[:1] == ["support"])
    assert support[1] == named("one", one)
    assert support[-1] == release["id"]
    assert f"{named('two', two)} 100 %" in ran.out
    assert any(line[:2] == ["x-customer:", "[acme]"] for line in lines)
    assert [named("two", two), "ready"] in lines
    assert f"release {release['id']} of support: running" in ran.out
    assert any(line[:5] == ["1", "shadow", "100", "%", "running"] for line in lines)
    assert ztom("rollback", "support").status == 0
    wait_for(lambda: admin.endpoints.releases()[0]["endedAt"], "the release's end")
    assert "of support" not in ztom("status").out, "releases that have ended are not shown"


# apply


@pytest.fixture
def wanted(server: Server) -> tuple[dict[str, Any], dict[str, str]]:
    """A file's content, with paths beside the file, and the digests that it names."""
    digests = {name: variant(server, name)[1] for name in ("one", "two", "acme")}
    spec = {name: {"path": name, "name": name} for name in digests}
    rules = [{**spec["acme"], "header": "x-customer", "value": "acme"}]
    support = {"stable": spec["one"], "candidate": {**spec["two"], "canary": 10}, "rules": rules}
    return {"endpoints": {"support": support}}, digests


@pytest.fixture
def file(server: Server, wanted: tuple[dict[str, Any], dict[str, str]]) -> Path:
    folder = Path(server.services.config.pointer_roots[0])
    return write_yaml(folder / "endpoints.yaml", wanted[0])


def test_apply_shows_the_difference_then_makes_it_once(admin, ztom, wanted, file) -> None:
    content, digests = wanted
    ran = ztom("apply", file, "--yes")
    assert (ran.status, ran.err) == (0, "")
    assert [line[0] for line in ran.out.splitlines()] == ["+", "+", "+"]
    assert all(digest[:SHORT] in ran.out for digest in digests.values())
    for digest in digests.values():
        ready(admin, digest)
    assert admin.endpoints.get("support")["canaryPercent"] == 10
    again = ztom("apply", file, "--yes")
    assert (again.status, again.out) == (0, "nothing to change\n")
    content["endpoints"]["support"]["candidate"]["canary"] = 25
    content["endpoints"]["support"]["rules"] = []
    write_yaml(file, content)
    changed = ztom("apply", file, "--yes")
    assert [line[0] for line in changed.out.splitlines()] == ["~", "-"]
    assert admin.endpoints.get("support")["canaryPercent"] == 25
    assert ztom("apply", file).out == "nothing to change\n", "nobody has to be asked for that"


def test_apply_with_nobody_to_ask_changes_nothing(admin, ztom, file) -> None:
    ran = ztom("apply", file)
    assert ran.status == 1
    assert [line[0] for line in ran.out.splitlines()] == ["+", "+", "+", "n"]
    assert ran.out.endswith("nothing was changed: say --yes to change it\n")
    assert admin.endpoints.deployments() == []


@pytest.mark.parametrize(
    ("typed", "status"), [("y\n", 0), (" Y \n", 0), ("n\n", 1), ("\n", 1), ("", 1)]
)
def test_apply_asks_whoever_is_there(admin, ztom, file, typed, status) -> None:
    ran = ztom("apply", file, typed=typed)
    assert (ran.status, ran.err) == (status, "")
    assert "change it? [y/N]" in ran.out
    assert len(admin.endpoints.deployments()) == (3 if status == 0 else 0)
    assert ran.out.endswith("nothing was changed\n") is (status == 1)


def test_apply_removes_what_the_file_does_not_name_when_told(server, admin, ztom, file) -> None:
    deploy(server, admin, "old", alias="legacy")
    assert "legacy" not in ztom("apply", file, "--yes").out
    wait_for(lambda: len(admin.endpoints.all()) == 2, "the endpoint")
    ran = ztom("apply", file, "--yes", "--prune")
    assert ran.status == 0, ran.err
    assert "- legacy" in ran.out
    assert [each["alias"] for each in admin.endpoints.all()] == ["support"]


def test_verdicts_are_beside_the_file(server, admin, ztom) -> None:
    folder, digest = variant(server, "hand", verdict=None)
    beside = folder.parent / "verdict.json"
    beside.write_text(json.dumps(verdict_of(digest)))
    stable = {"path": "hand", "verdict": "verdict.json"}
    file = write_yaml(folder.parent / "gated.yaml", {"endpoints": {"support": {"stable": stable}}})
    ran = ztom("apply", file, "--yes")
    assert (ran.status, ran.err) == (0, "")
    ready(admin, digest)
    assert [each.outcome for each in admin.verdicts.all(digest)] == ["pass"]
    beside.unlink()
    assert_said(ztom("apply", file, "--yes").err, r"verdict\.json cannot be read")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: got .*No such file"),
        ("endpoints: [", "line 1: not usable YAML: got expected"),
        ("", "is not a mapping: got NoneType"),
        ("endpoints: []", "not a file of endpoints: expected one key, endpoints"),
        ("endpoints: {}\nprune: true", "not a file of endpoints"),
        ("endpoints: {support: null}", "status 422.*support"),
        ("endpoints: {support: {stable: {path: nowhere}}}", "status 422"),
        ("endpoints: {support: {stable: {path: one, canray: 1}}}", "status 422.*canray"),
        ("endpoints: {support: {stable: {path: one, name: 2026-11-21}}}", "cannot be sent"),
    ],
)
def test_files_that_are_wrong_change_nothing(server, admin, ztom, file, text, message) -> None:
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    ran = ztom("apply", file, "--yes")
    assert (ran.status, ran.out) == (2, "")
    assert_said(ran.err, message)
    assert admin.endpoints.deployments() == []


# release


def test_releases_are_listed_newest_first(server, admin, ztom, releasing) -> None:
    release, _, two = releasing()
    assert ztom("rollback", "support").status == 0
    wait_for(lambda: admin.endpoints.releases()[0]["endedAt"], "the release's end")
    _, three = deploy(server, admin, "three", plan=STANDS_STILL)
    (other, _) = admin.endpoints.releases()
    ran = ztom("release", "list")
    head, first, second = (line.split() for line in ran.out.splitlines())
    assert head == ["release", "endpoint", "candidate", "status", "began", "reason"]
    assert first[:4] == [other["id"], "support", three[:SHORT], "running"]
    assert second[:4] == [release["id"], "support", two[:SHORT], "rolled_back"]
    assert ztom("release", "list", "support").out == ran.out
    assert len(ztom("release", "list", "other").out.splitlines()) == 1


def test_watch_ends_well_with_a_promotion(admin, ztom, releasing) -> None:
    release, _, two = releasing()
    thread = soon(lambda: admin.endpoints.command(release["id"], "promote"))
    ran = ztom("release", "watch", release["id"])
    thread.join()
    assert (ran.status, ran.err) == (0, "")
    first, *_, last = ran.out.splitlines()
    assert first == "running, step 1"
    assert last.startswith("promoted, step 1: ")
    assert admin.endpoints.get("support")["stable"] == named("two", two)
    assert ztom("release", "watch", release["id"]).out == f"{last}\n", "it has ended"


def test_watch_ends_badly_with_a_rollback(admin, ztom, releasing) -> None:
    release, one, _ = releasing()
    thread = soon(lambda: admin.endpoints.command(release["id"], "rollback"))
    ran = ztom("release", "watch", "support")
    thread.join()
    assert (ran.status, ran.err) == (1, "")
    assert ran.out.splitlines()[-1].startswith("rolled_back, step 1: ")
    assert admin.endpoints.get("support")["stable"] == named("one", one)


def test_a_release_that_is_held_is_watched_on_and_can_be_told(admin, ztom, releasing) -> None:
    release, _, _ = releasing(max_seconds=0.5)

    def resume_and_abort() -> None:
        for command in ("resume", "abort"):
            wait_for(lambda: admin.endpoints.release(release["id"])["status"] == "held", "the hold")
            admin.endpoints.command(release["id"], command)
            wait_for(
                lambda: admin.endpoints.release(release["id"])["command"] is None, "the command"
            )

    thread = soon(resume_and_abort)
    ran = ztom("release", "watch", "support")
    thread.join()
    assert ran.status == 1
    said = [line.partition(",")[0] for line in ran.out.splitlines()]
    assert "held" in said
    assert said[-1] == "aborted"


def test_on_a_terminal_the_steps_are_shown(admin, ztom, releasing, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    release, _, _ = releasing()
    thread = soon(lambda: admin.endpoints.command(release["id"], "promote"))
    ran = ztom("release", "watch", "support")
    thread.join()
    assert ran.status == 0
    assert f"release {release['id']} of support: promoted" in ran.out
    assert "2 canary 50 %" in ran.out


def test_watch_outlives_a_connection(admin, ztom, releasing, monkeypatch) -> None:
    """A server that is restarted cuts the line, or ends the stream without the release's end."""
    release, _, _ = releasing()
    cut_twice(monkeypatch, lambda: admin.endpoints.command(release["id"], "promote"))
    ran = ztom("release", "watch", "support")
    assert (ran.status, ran.err) == (0, "")
    first, *_, last = ran.out.splitlines()
    assert (first, last.partition(",")[0]) == ("running, step 1", "promoted")
    assert ran.out.count(f"{first}\n") == 1, "what is as it was is not said again"


def test_from_python_a_watch_outlives_a_connection_as_well(admin, releasing, monkeypatch) -> None:
    release, _, two = releasing()
    cut_twice(monkeypatch, lambda: admin.endpoints.command(release["id"], "promote"))
    looks = list(admin.endpoints.watch(release["id"]))
    assert (looks[0]["status"], looks[-1]["status"]) == ("running", "promoted")
    assert all(one != other for one, other in pairwise(looks)), "nothing is given twice"
    assert admin.endpoints.get("support")["stable"] == named("two", two)


def cut_twice(monkeypatch: pytest.MonkeyPatch, then: Callable[[], object]) -> None:
    """Lose the first two connections to events after their first event, then do something."""
    whole, calls = Connection._events, []

    def broken(self: Connection, address: str) -> Iterator[tuple[str, Any]]:
        calls.append(address)
        events = whole(self, address)
        if len(calls) > 2:
            yield from events
            return
        yield next(events)
        if len(calls) == 1:
            raise httpx.ReadError("cut")
        then()

    monkeypatch.setattr(Connection, "_events", broken)


@pytest.mark.parametrize("says_something", [False, True])
def test_watch_gives_up_on_a_server_that_stays_away(
    ztom, releasing, monkeypatch, says_something
) -> None:
    releasing()

    def away(self: Connection, address: str) -> Iterator[tuple[str, Any]]:
        if says_something:
            yield "release", {"status": "running", "state": {"step": 0, "reason": ""}}
        raise httpx.ConnectError("nobody")

    monkeypatch.setattr(Connection, "_events", away)
    monkeypatch.setattr("ztom.client.connection._RECONNECTS", 2)
    ran = ztom("release", "watch", "support")
    assert (ran.status, len(ran.out.splitlines())) == (2, int(says_something))
    assert_said(ran.err, "ServerError: .*release")


def test_there_has_to_be_a_release_to_watch(server, admin, ztom) -> None:
    deploy(server, admin, "one")
    for name in ("support", "0" * 8):
        ran = ztom("release", "watch", name)
        assert (ran.status, ran.out) == (2, "")
        assert ran.err == f"ConfigError: there is no such release: got {name}\n"


def test_a_release_is_told_what_to_do(admin, ztom, releasing) -> None:
    release, _, two = releasing()
    assert ztom("release", "tell", release["id"], "promote").out == "running\n"
    assert ztom("release", "watch", release["id"]).status == 0
    assert admin.endpoints.get("support")["stable"] == named("two", two)
    late = ztom("release", "tell", release["id"], "rollback")
    assert (late.status, late.out) == (2, "")
    assert_said(late.err, "status 409: got the release has ended")


@pytest.mark.parametrize(
    ("release", "command"), [(None, "stop"), ("0" * 8, "promote"), ("x", "promote"), (None, "../x")]
)
def test_a_release_is_told_nothing_unheard_of(admin, ztom, releasing, release, command) -> None:
    found, _, _ = releasing()
    ran = ztom("release", "tell", release or found["id"], command)
    assert (ran.status, ran.out) == (2, "")
    assert admin.endpoints.release(found["id"])["command"] is None


def test_the_installed_command_does_the_same(server, admin, ztom, file, tmp_path) -> None:
    """Once as a process of its own, which imports what it needs and nothing else is set up."""
    keys = {"ZTOM_SERVER": server.url, "ZTOM_API_KEY": admin.key}
    done = subprocess.run(
        [sys.executable, "-c", "from ztom.cli import main; main()", "apply", str(file)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **keys, "XDG_CONFIG_HOME": str(tmp_path)},
    )
    ran = ztom("apply", file)
    assert (done.returncode, done.stdout, done.stderr) == (ran.status, ran.out, ran.err)


def assert_said(text: str, pattern: str) -> None:
    """One message and no traceback."""
    assert "Traceback" not in text
    with pytest.raises(ValueError, match=f"(?s){pattern}"):
        raise ValueError(text)
