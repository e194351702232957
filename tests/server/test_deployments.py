"""Deployments: what is refused, what waits, what starts beside what runs."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gateway_calls import chat, chats, said
from stops import stops
from variant_folders import (
    FAST,
    controller_looks,
    deploy,
    ready,
    trusted_key,
    variant,
    verdict_of,
    wait_for,
    write_folder,
)

import ztom
from serve_apps.control_plane.access import Caller, Permission
from serve_apps.control_plane.routes import deployments
from serve_apps.endpoints.specs import app_spec
from ztom.errors import ServerError
from ztom.evaluation.gate.verdict import Verdict
from ztom.rollout.options import DeployOptions
from ztom.wire.deployments import Deploy


def test_a_deploy_request_makes_at_most_twelve_stops(server, admin) -> None:
    """From its route to the ledger and to the answer; see `stops`."""
    user, _ = server.services.ledger.accounts.for_login("chief")
    caller = Caller(user, None, Permission.WRITE, server.services)
    folder, digest = variant(server, "one")
    wanted = Deploy(alias="support", path=str(folder), verdict=verdict_of(digest))
    path = stops(lambda: deployments.deploy(wanted, caller, server.services))
    assert (path[0], path[-1]) == (
        "serve_apps/control_plane/routes/deployments.py",
        "ztom/wire/deployments.py",
    )
    assert path.count("ztom/ledger") == 2  # what is there is read, the decision is written
    assert len(path) <= 12, path


def test_a_variant_that_is_not_proved_takes_insistence(server, admin, ask) -> None:
    folder, digest = variant(server, "hand", verdict=None)
    with pytest.raises(ServerError, match="not proved"):
        admin.endpoints.deploy("support", path=folder)
    admin.endpoints.deploy("support", path=folder, insist=True)
    ready(admin, digest, server)
    assert admin.endpoints.deployment(digest).insisted
    notes = [entry.event.note for entry in server.services.ledger.audit.entries()]
    assert any("insisted on" in note for note in notes)


def test_a_variant_that_does_not_start_never_gets_traffic(server, admin, ask) -> None:
    deploy(server, admin, "one")
    folder, digest = variant(server, "bad")
    server.stage.broken[f"variant-bad-{digest[:12]}"] = "VariantError: changed model.safetensors"
    admin.endpoints.deploy("support", path=folder, name="bad", now=True)
    wait_for(lambda: admin.endpoints.deployment(digest).state == "failed", "the failure")
    assert "changed model" in admin.endpoints.deployment(digest).reason
    assert said(chat(ask)) == "I am one."
    assert digest not in server.services.gateway.table.placements
    wait_for(lambda: f"delete variant-bad-{digest[:12]}" in server.stage.log, "its removal")


def test_a_variant_without_a_place_waits_and_what_was_stable_before_makes_room(
    server, admin, ask
) -> None:
    for name in ("one", "two"):
        deploy(server, admin, name, now=True)
    server.stage.places = 2
    folder, digest = variant(server, "three")
    admin.endpoints.deploy("other", path=folder, name="three", now=True)
    wait_for(lambda: admin.endpoints.deployment(digest).reason is not None, "the reason")
    assert admin.endpoints.deployment(digest).reason == "no place for it yet"
    assert admin.endpoints.get("support").previous is not None, "not its endpoint"
    admin.endpoints.cancel(digest)
    assert admin.endpoints.deployment(digest).state == "failed"
    admin.endpoints.deploy("support", path=folder, name="three", now=True)
    ready(admin, digest, server)
    assert admin.endpoints.deployment(digest).reason is None
    assert said(chat(ask)) == "I am three."
    assert "variant-one" not in " ".join(server.stage.apps)


def test_other_options_that_fail_leave_those_that_work(server, admin, ask) -> None:
    folder, digest = deploy(server, admin, "one")
    endpoints = server.services.ledger.endpoints
    wrong = {"max_replicas": 7}
    app = app_spec(replace(endpoints.deployments.get(digest), options=DeployOptions(**wrong))).name
    server.stage.broken[app] = "EngineError: no memory"
    admin.endpoints.deploy("support", path=folder, now=True, options=wrong)
    wait_for(lambda: admin.endpoints.deployment(digest).state == "failed", "the failure")
    assert said(chat(ask)) == "I am one."
    server.stage.apps.clear()  # as when Ray is started anew
    wait_for(lambda: f"variant-one-{digest[:12]}" in server.stage.apps, "what ran before")
    assert said(chat(ask)) == "I am one."


def test_a_variant_that_does_not_answer_never_gets_traffic(server, admin, ask) -> None:
    deploy(server, admin, "one")
    folder, digest = variant(server, "mute")
    server.stage.actor(digest).fails = 10**6
    admin.endpoints.deploy("support", path=folder, now=True)
    wait_for(lambda: admin.endpoints.deployment(digest).state == "failed", "the failure")
    assert said(chat(ask)) == "I am one."


def test_variants_outside_the_roots_are_refused(server, admin, tmp_path) -> None:
    folder, _ = write_folder(tmp_path / "elsewhere")
    with pytest.raises(ServerError, match="outside the allowed roots"):
        admin.endpoints.deploy("support", path=folder)
    with pytest.raises(ServerError, match="path and fileId"):
        admin.endpoints.deploy("support")


@pytest.mark.parametrize(
    "wishes",
    [
        {"now": True, "canary": 5},
        {"canary": 101},
        {"canary": float("nan")},
        {"rule": {}},
        {"rule": {"header": "a"}},
        {"plan": {"steps": []}},
        {"plan": {"steps": [{"canary": 5}]}},
        {"options": {"max_replicas": 0}},
        {"options": {"trust_remote_code": True}},
        {"options": {"timeout_s": 1e9}},
    ],
)
def test_wishes_that_make_no_sense_are_refused(server, admin, wishes) -> None:
    folder, digest = variant(server, "one")
    with pytest.raises((ServerError, ValueError)):
        admin.endpoints.deploy("support", path=folder, **wishes)
    assert admin.endpoints.deployments() == []


def test_a_candidate_needs_something_beside_it(server, admin) -> None:
    folder, _ = variant(server, "one")
    with pytest.raises(ServerError, match="serves nothing"):
        admin.endpoints.deploy("support", path=folder, canary=5)


@pytest.mark.abuse(64)
def test_of_two_deploys_at_once_one_is_refused(server, admin) -> None:
    deploy(server, admin, "zero")
    folders = [variant(server, f"v{i}")[0] for i in range(4)]

    def attempt(folder: Path) -> bool:
        try:
            admin.endpoints.deploy("support", path=folder, plan=FAST)
        except ServerError as error:
            return "409" not in str(error)
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(attempt, folders)) >= 1
    wait_for(lambda: len(admin.endpoints.releases()) == 1, "the release")
    controller_looks(server, 10)
    assert len(admin.endpoints.releases()) == 1


def test_adapters_of_one_base_share_an_application(server, admin, ask) -> None:
    _, one = deploy(server, admin, "a1", alias="a", form="adapter")
    _, two = deploy(server, admin, "a2", alias="b", form="adapter")
    _, other = deploy(server, admin, "a3", alias="c", form="adapter", base="d" * 64)
    assert len(server.stage.apps) == 2
    assert said(chat(ask, "b")) == "I am a2."
    assert server.stage.actor(two).calls[-1].folder.endswith("a2")
    placements = server.services.gateway.table.placements
    assert placements[one].app == placements[two].app != placements[other].app
    admin.endpoints.remove("a")
    wait_for(lambda: f"forget {one[:4]}" in server.stage.log, "the adapter's end")
    assert said(chat(ask, "b")) == "I am a2."


@pytest.mark.abuse(57, 66)
def test_what_should_run_is_started_again(server, admin, ask) -> None:
    _, digest = deploy(server, admin, "one")
    server.stage.apps.clear()
    wait_for(lambda: server.stage.apps, "the restart")
    assert said(chat(ask)) == "I am one."


def test_other_options_start_beside_what_runs(server, admin, ask) -> None:
    folder, digest = deploy(server, admin, "one")
    with chats(ask) as traffic:
        admin.endpoints.deploy(
            "support", path=folder, name="one", now=True, options={"dtype": "float32"}
        )
        ready(admin, digest, server)
        wait_for(
            lambda: f"delete variant-one-{digest[:12]}" in server.stage.log, "the old one's end"
        )
    assert traffic.failures == []
    (app,) = server.stage.apps.values()
    assert app.args.dtype == "float32"


def test_what_ray_refuses_keeps_nobody_waiting(server, admin, ask, monkeypatch) -> None:
    start = server.stage.start

    def refuse_bad(spec: Any) -> None:
        if "bad" in spec.name:
            raise ValueError("The precision of the fractional quantity of resource ...")
        start(spec)

    monkeypatch.setattr(server.stage, "start", refuse_bad)
    folder, bad = variant(server, "bad")
    admin.endpoints.deploy("bad", path=folder, name="bad")
    deploy(server, admin, "good", alias="good")
    wait_for(lambda: admin.endpoints.deployment(bad).state == "failed", "the failure")
    assert "precision" in admin.endpoints.deployment(bad).reason


def test_a_deployment_whose_files_are_gone_goes_on_and_says_so(server, admin, ask) -> None:
    folder, digest = deploy(server, admin, "one")
    shutil.rmtree(folder)
    wait_for(lambda: admin.endpoints.deployment(digest).reason, "what is wrong")
    assert admin.endpoints.deployment(digest).state == "ready"
    version = admin.endpoints.get("support").version
    controller_looks(server, 5)
    assert admin.endpoints.get("support").version == version
    assert said(chat(ask)) == "I am one."


def test_a_removed_endpoint_does_not_come_back(server, admin) -> None:
    """It is removed while its variant is asked for a proof, which then succeeds."""
    deploy(server, admin, "zero", alias="other")
    folder, digest = variant(server, "slow")
    asked, go_on, admitted = threading.Event(), threading.Event(), threading.Event()
    stage = server.stage
    prove, status = stage.prove, stage.status

    def slowly(spec: Any, proved: str, *rest: Any, **more: Any) -> None:
        if proved == digest:
            asked.set()
            assert go_on.wait(60)
        prove(spec, proved, *rest, **more)

    def look() -> Any:
        if go_on.is_set():
            admitted.set()  # the next round begins when the one of the proof is over
        return status()

    stage.prove, stage.status = slowly, look
    admin.endpoints.deploy("support", path=folder)
    assert asked.wait(60)
    admin.endpoints.remove("support")
    go_on.set()
    assert admitted.wait(60)
    assert admin.endpoints.deployment(digest).state == "failed"
    with pytest.raises(ServerError, match="404"):
        admin.endpoints.get("support")
    version, table = server.services.ledger.endpoints.routing()
    assert digest not in table.placements
    wait_for(lambda: server.services.gateway._keeper.version >= version, "the gateway's look")
    assert digest not in server.services.gateway.table.placements


def test_an_adapter_whose_base_is_elsewhere_is_refused(server, admin, tmp_path) -> None:
    folder, _ = write_folder(tmp_path / "elsewhere" / "x", form="adapter")
    inside = Path(server.services.config.pointer_roots[0]) / "x"
    shutil.copytree(folder, inside)
    with pytest.raises(ServerError, match="outside the allowed roots"):
        admin.endpoints.deploy("support", path=inside)
    whole, _ = write_folder(tmp_path / "elsewhere" / "y")
    inside = Path(server.services.config.pointer_roots[0]) / "y"
    shutil.copytree(whole, inside)
    with pytest.raises(ServerError, match="outside the allowed roots"):
        admin.endpoints.deploy("support", path=inside, options={"live_swap": True})
    admin.endpoints.deploy("support", path=inside)


def test_the_front_door_deploys(server, admin, monkeypatch) -> None:
    folder, digest = variant(server, "one", verdict=None)
    key = trusted_key(server.services.ledger)
    verdict = Verdict.model_validate(verdict_of(digest, key=key))
    deployed = ztom.deploy(
        folder, "support", server=server.url, key=admin.key, verdict=verdict, options=None
    )
    assert deployed.digest == digest
    ready(admin, digest)
    assert admin.verdicts.all(candidate=digest)[0].outcome == "pass"
    monkeypatch.setenv("ZTOM_SERVER", server.url)
    monkeypatch.setenv("ZTOM_API_KEY", admin.key)
    with pytest.raises(ServerError, match="nothing"):
        ztom.deploy(Path(folder) / "nothing", "support", now=True)
