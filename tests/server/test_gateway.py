"""The gateway and what feeds it: OpenAI's API, routing, quotas, shadow, deployments, releases.

Variants are played on a stage (see `server_helpers.Stage`); everything else is real.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
from server_helpers import Actor, Server
from variant_folders import (
    FAST,
    deploy,
    ready,
    variant,
    wait_for,
    write_folder,
)

from serve_apps.endpoints.specs import app_spec
from serve_apps.endpoints.traffic import rollback
from serve_apps.gateway.quota import Quota, Quotas
from ztom.client import Client
from ztom.errors import ServerError
from ztom.ledger.deployments import NewDeployment
from ztom.rollout.intent import Intent
from ztom.rollout.options import DeployOptions

CHAT = [{"role": "user", "content": "How do I open a file?"}]


@pytest.fixture
def key(server: Server) -> str:
    return make_key(server, "ada")


def make_key(server: Server, name: str, **fields: Any) -> str:
    session = server.as_user(name)
    answer = session.post(f"{server.url}/v1/keys", json={"name": "k", **fields}, timeout=30)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key"])


@pytest.fixture
def ask(server: Server, key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
        yield client


def chat(client: openai.OpenAI, model: str = "support", **more: Any) -> Any:
    return client.chat.completions.with_raw_response.create(model=model, messages=CHAT, **more)


def said(raw: Any) -> str:
    return raw.parse().choices[0].message.content


def test_the_openai_client_whole_and_streaming(server, admin, ask) -> None:
    _, digest = deploy(server, admin, "one")
    raw = chat(ask)
    assert said(raw) == "I am one."
    assert raw.headers["x-ztom-variant"] == f"one@{digest[:12]}"
    assert raw.headers["x-ztom-role"] == "stable"
    assert raw.headers["x-request-id"] == raw.parse().id
    stream = ask.chat.completions.create(model="support", messages=CHAT, stream=True)
    assert "".join(c.choices[0].delta.content for c in stream).split() == ["I", "am", "one."]
    assert ask.completions.create(model="support", prompt="a").choices[0].text == "I am one."
    ids = [model.id for model in ask.models.list().data]
    assert ids == ["support", f"one@{digest[:12]}"]
    assert ask.models.retrieve("support").id == "support"
    assert ask.models.retrieve(f"support@{digest[:12]}").id == f"one@{digest[:12]}"


def test_the_async_openai_client(server, admin, key) -> None:
    deploy(server, admin, "one")

    async def both() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=key) as client:
            whole = await client.chat.completions.create(model="support", messages=CHAT)
            stream = await client.chat.completions.create(
                model="support", messages=CHAT, stream=True
            )
            parts = [chunk.choices[0].delta.content async for chunk in stream]
            return whole.choices[0].message.content, "".join(parts).strip()

    assert asyncio.run(both()) == ("I am one.", "I am one.")


def test_errors_have_openais_form(server, admin, ask, key) -> None:
    deploy(server, admin, "one")
    with pytest.raises(openai.NotFoundError) as missing:
        chat(ask, "nothing")
    assert missing.value.code == "model_not_found"
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="ztom_no", max_retries=0) as nobody,
        pytest.raises(openai.AuthenticationError) as unknown,
    ):
        chat(nobody)
    assert unknown.value.body["message"]
    read_only = make_key(server, "ada", scopes=["read", "write"])
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key=read_only, max_retries=0) as other,
        pytest.raises(openai.PermissionDeniedError),
    ):
        chat(other)
    headers = {"Authorization": f"Bearer {key}"}
    for content, status in ((b"{", 400), (b"[]", 400), (b'{"model": 3}', 400)):
        answer = requests.post(
            f"{server.url}/v1/chat/completions", data=content, headers=headers, timeout=30
        )
        assert (answer.status_code, answer.json()["error"]["type"]) == (
            status,
            "invalid_request_error",
        )
    wrong_method = requests.get(f"{server.url}/v1/completions", headers=headers, timeout=30)
    assert wrong_method.status_code == 405
    assert wrong_method.json()["error"]["message"]


def test_failures_of_a_variant_are_429_and_503_with_retry_after(server, admin, ask) -> None:
    _, digest = deploy(server, admin, "one", options={"timeout_s": 0.3})
    actor = server.stage.actor(digest)
    for change, status in (
        ({"overloaded": True}, 429),
        ({"fails": 10**6}, 503),
        ({"hangs": True}, 503),
    ):
        server.stage.actors[digest] = Actor(**change)
        for stream in (False, True):
            with pytest.raises(openai.APIStatusError) as caught:
                chat(ask, stream=stream)
            assert caught.value.status_code == status
            assert int(caught.value.response.headers["retry-after"]) >= 1
    server.stage.actors[digest] = actor
    assert said(chat(ask)) == "I am one."


def test_a_stream_that_breaks_off_says_so(server, admin, ask) -> None:
    _, digest = deploy(server, admin, "one")
    server.stage.actor(digest).breaks_off = True
    stream = ask.chat.completions.create(model="support", messages=CHAT, stream=True)
    with pytest.raises(openai.APIError, match="broke off"):
        list(stream)


def test_quotas_by_key(server, admin) -> None:
    deploy(server, admin, "one")
    few = make_key(server, "ada", requestsPerMinute=3)
    short = make_key(server, "ada", tokensPerMinute=10)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=few, max_retries=0) as client:
        for _ in range(3):
            chat(client)
        with pytest.raises(openai.RateLimitError) as caught:
            chat(client)
        assert 1 <= int(caught.value.response.headers["retry-after"]) <= 21
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=short, max_retries=0) as client:
        chat(client)
        chat(client)  # 12 tokens in all
        with pytest.raises(openai.RateLimitError):
            chat(client)


def test_a_revoked_key_is_let_in_no_more(server, admin, ask) -> None:
    deploy(server, admin, "one")
    chat(ask)
    session = server.as_user("ada")
    for each in session.get(f"{server.url}/v1/keys", timeout=30).json():
        session.delete(f"{server.url}/v1/keys/{each['id']}", timeout=30)

    def refused() -> bool:
        try:
            chat(ask)
        except openai.AuthenticationError:
            return True
        return False

    wait_for(refused, "the end of the key")


def test_canary_by_hand_sticky_promote_and_rollback(server, admin, ask) -> None:
    _, one = deploy(server, admin, "one")
    _, two = deploy(server, admin, "two", canary=30)

    def who(user: str) -> str:
        return chat(ask, extra_headers={"x-ztom-sticky": user}).headers["x-ztom-variant"]

    first = {f"u{i}": who(f"u{i}") for i in range(60)}
    assert {name.split("@")[0] for name in first.values()} == {"one", "two"}
    assert all(who(user) == name for user, name in list(first.items())[:10]), "callers move about"
    by_user = [chat(ask, user="ada").headers["x-ztom-variant"] for _ in range(5)]
    assert len(set(by_user)) == 1
    admin.endpoints.promote("support")
    wait_for(lambda: who("x") == f"two@{two[:12]}" and who("y") == who("x"), "the promotion")
    admin.endpoints.rollback("support")
    wait_for(lambda: all(who(u) == f"one@{one[:12]}" for u in "abc"), "the rollback")
    admin.endpoints.rollback("support")
    assert admin.endpoints.get("support")["stable"] == f"two@{two[:12]}", "and back again"


def test_rules_give_a_customer_their_own(server, admin, ask) -> None:
    deploy(server, admin, "one")
    rule = {"header": "x-customer", "value": "acme"}
    deploy(server, admin, "acme", rule=rule)
    assert said(chat(ask)) == "I am one."
    answer = chat(ask, extra_headers={"X-Customer": "acme"})
    assert said(answer) == "I am acme."
    assert answer.headers["x-ztom-role"] == "rule"
    requests.delete(
        f"{server.url}/v1/endpoints/support/rules",
        json=rule,
        headers={"Authorization": f"Bearer {admin.key}"},
        timeout=30,
    ).raise_for_status()
    wait_for(
        lambda: said(chat(ask, extra_headers={"X-Customer": "acme"})) == "I am one.", "the removal"
    )
    wait_for(lambda: "forget variant-acme" in " ".join(server.stage.log), "the variant's end")


def test_a_variant_that_is_not_proved_takes_insistence(server, admin, ask) -> None:
    folder, digest = variant(server, "hand", verdict=None)
    with pytest.raises(ServerError, match="not proved"):
        admin.endpoints.deploy("support", path=folder)
    admin.endpoints.deploy("support", path=folder, insist=True)
    ready(admin, digest)
    assert admin.endpoints.deployment(digest)["insisted"]
    notes = [entry.event.note for entry in server.services.ledger.audit_entries()]
    assert any("insisted on" in note for note in notes)


def test_a_variant_that_does_not_start_never_gets_traffic(server, admin, ask) -> None:
    deploy(server, admin, "one")
    folder, digest = variant(server, "bad")
    server.stage.broken[f"variant-bad-{digest[:12]}"] = "VariantError: changed model.safetensors"
    admin.endpoints.deploy("support", path=folder, name="bad", now=True)
    wait_for(lambda: admin.endpoints.deployment(digest)["state"] == "failed", "the failure")
    assert "changed model" in admin.endpoints.deployment(digest)["reason"]
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
    wait_for(lambda: admin.endpoints.deployment(digest)["reason"] is not None, "the reason")
    assert admin.endpoints.deployment(digest)["reason"] == "no place for it yet"
    assert admin.endpoints.get("support")["previous"] is not None, "not its endpoint"
    admin.endpoints.cancel(digest)
    assert admin.endpoints.deployment(digest)["state"] == "failed"
    admin.endpoints.deploy("support", path=folder, name="three", now=True)
    ready(admin, digest)
    assert admin.endpoints.deployment(digest)["reason"] is None
    assert said(chat(ask)) == "I am three."
    assert "variant-one" not in " ".join(server.stage.apps)


def test_other_options_that_fail_leave_those_that_work(server, admin, ask) -> None:
    folder, digest = deploy(server, admin, "one")
    endpoints = server.services.ledger.endpoints
    wrong = {"max_replicas": 7}
    app = app_spec(replace(endpoints.deployments.get(digest), options=DeployOptions(**wrong))).name
    server.stage.broken[app] = "EngineError: no memory"
    admin.endpoints.deploy("support", path=folder, now=True, options=wrong)
    wait_for(lambda: admin.endpoints.deployment(digest)["state"] == "failed", "the failure")
    assert said(chat(ask)) == "I am one."
    server.stage.apps.clear()  # as when Ray is started anew
    wait_for(lambda: f"variant-one-{digest[:12]}" in server.stage.apps, "what ran before")
    assert said(chat(ask)) == "I am one."


def test_a_variant_that_does_not_answer_never_gets_traffic(server, admin, ask) -> None:
    deploy(server, admin, "one")
    folder, digest = variant(server, "mute")
    server.stage.actor(digest).fails = 10**6
    admin.endpoints.deploy("support", path=folder, now=True)
    wait_for(lambda: admin.endpoints.deployment(digest)["state"] == "failed", "the failure")
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


def test_of_two_deploys_at_once_one_is_refused(server, admin) -> None:  # row 64
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
    time.sleep(1)
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


def swapped(server: Server, admin: Client) -> tuple[tuple[Path, str], tuple[Path, str]]:
    """Folder and digest of "one", which was stable, and of "two", swapped into its engine."""
    one = deploy(server, admin, "one", options={"live_swap": True})
    folder, digest = variant(server, "two")
    admin.endpoints.deploy("support", path=folder, name="two", live=True)
    ready(admin, digest)
    return one, (folder, digest)


def test_live_swap_promotes_and_rolls_back_in_one_application(server, admin, ask) -> None:
    (_, one), (_, two) = swapped(server, admin)
    (app,) = server.stage.apps
    assert server.stage.current[app] == two
    assert admin.endpoints.get("support")["stable"] == f"two@{two[:12]}"
    admin.endpoints.rollback("support")
    wait_for(lambda: server.stage.current[app] == one, "the swap back")
    assert admin.endpoints.get("support")["stable"] == f"one@{one[:12]}"
    folder, three = variant(server, "three")
    server.stage.actor(three).fails = 10**6
    admin.endpoints.deploy("support", path=folder, name="three", live=True)
    wait_for(lambda: admin.endpoints.deployment(three)["state"] == "failed", "the failure")
    assert admin.endpoints.get("support")["stable"] == f"one@{one[:12]}"
    assert server.stage.current[app] == one


def test_live_swap_takes_an_application_that_holds_the_chain(server, admin) -> None:
    deploy(server, admin, "one")
    folder, _ = variant(server, "two")
    with pytest.raises(ServerError, match="live_swap"):
        admin.endpoints.deploy("support", path=folder, live=True)


class Traffic:
    """Users who ask until told to stop."""

    def __init__(self, client: openai.OpenAI, threads: int = 4, model: str = "support") -> None:
        self._model = model
        self.answers: list[str] = []
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._client = client
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(threads)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self, number: int) -> None:
        count = 0
        while not self._stop.is_set():
            count += 1
            try:
                sticky = {"x-ztom-sticky": f"{number}-{count}"}
                answer = chat(self._client, self._model, extra_headers=sticky)
                self.answers.append(answer.headers["x-ztom-variant"])
            except openai.APIError as error:
                self.failures.append(f"{type(error).__name__}: {error}")


def test_a_release_goes_step_by_step_to_its_promotion(server, admin, ask) -> None:
    _, one = deploy(server, admin, "one")
    _, two = deploy(server, admin, "two", plan=FAST)
    (release,) = admin.endpoints.releases("support")
    with Traffic(ask) as traffic:
        seen = list(admin.endpoints.watch(release["id"]))
    assert not traffic.failures
    assert seen[-1]["status"] == "promoted"
    assert admin.endpoints.get("support")["stable"] == f"two@{two[:12]}"
    assert admin.endpoints.get("support")["previous"] == f"one@{one[:12]}"
    actions = [entry.event.action for entry in server.services.ledger.audit_entries()]
    assert [a for a in actions if a.startswith("rollout.")] == [
        "rollout.start",
        "rollout.started",
        "rollout.step",
        "rollout.step",
        "rollout.promoted",
    ]
    assert actions.index("rollout.started") < actions.index("route.set_traffic")
    steps = [release["state"]["step"] for release in seen]  # one may pass between two looks
    assert steps == sorted(steps)
    assert {steps[-1]} < set(steps) <= {0, 1, 2}


def test_a_canary_that_fails_is_rolled_back_by_itself(server, admin, ask) -> None:  # row 71
    _, one = deploy(server, admin, "one")
    folder, two = variant(server, "two")
    plan = {**FAST, "checks": {**FAST["checks"], "error_rate": 0.02}}
    plan["steps"] = [{"canary": 50}, {"canary": 100}]
    admin.endpoints.deploy("support", path=folder, name="two", plan=plan)
    ready(admin, two)
    server.stage.actor(two).fails = 10**6
    (release,) = admin.endpoints.releases("support")
    with Traffic(ask) as traffic:
        end = list(admin.endpoints.watch(release["id"]))[-1]
        wait_for(
            lambda: traffic.answers[-40:] == [f"one@{one[:12]}"] * 40, "an end of the failures"
        )
    assert end["status"] == "rolled_back"
    assert "error_rate" in end["state"]["reason"]
    assert admin.endpoints.get("support")["canary"] is None
    wait_for(lambda: f"delete variant-two-{two[:12]}" in server.stage.log, "the candidate's end")


def test_no_traffic_is_never_a_pass(server, admin) -> None:
    deploy(server, admin, "one")
    deploy(server, admin, "two", plan={**FAST, "max_seconds": 1})
    (release,) = admin.endpoints.releases("support")
    held = wait_for(
        lambda: (r := admin.endpoints.release(release["id"]))["status"] == "held" and r, "the hold"
    )
    assert held["state"]["step"] == 0
    assert admin.endpoints.get("support")["shadowPercent"] == 100
    with pytest.raises(ServerError, match="409"):
        admin.endpoints.deploy("support", path=variant(server, "three")[0])
    admin.endpoints.command(release["id"], "rollback")
    wait_for(
        lambda: admin.endpoints.release(release["id"])["status"] == "rolled_back", "the rollback"
    )
    assert admin.endpoints.get("support")["shadow"] is None


def test_a_change_by_hand_ends_the_release(server, admin) -> None:
    deploy(server, admin, "one")
    _, two = deploy(server, admin, "two", plan=FAST)
    (release,) = admin.endpoints.releases("support")
    admin.endpoints.traffic("support", canary=10)
    wait_for(lambda: admin.endpoints.release(release["id"])["status"] == "aborted", "the end")
    assert admin.endpoints.get("support")["canaryPercent"] == 10
    assert admin.endpoints.get("support")["canary"] == f"two@{two[:12]}"


def test_promotion_by_hand_ends_the_release(server, admin) -> None:
    deploy(server, admin, "one")
    _, two = deploy(server, admin, "two", plan=FAST)
    (release,) = admin.endpoints.releases("support")
    admin.endpoints.promote("support")
    wait_for(lambda: admin.endpoints.release(release["id"])["status"] == "promoted", "the end")
    assert admin.endpoints.get("support")["stable"] == f"two@{two[:12]}"


def test_feedback_counts_for_whom_it_is_about(server, admin, ask) -> None:
    deploy(server, admin, "one")
    feedback = {"margin": 0.05, "required": True}
    checks = {**FAST["checks"], "feedback": feedback}
    plan = {**FAST, "checks": checks, "steps": [{"canary": 50}, {"canary": 100}]}
    deploy(server, admin, "two", plan=plan)
    with Client(server.url, key=ask.api_key) as user:
        for i in range(120):
            raw = chat(ask, extra_headers={"x-ztom-sticky": f"u{i}"})
            wrong = raw.headers["x-ztom-role"] == "canary"
            user.endpoints.feedback(raw.parse().id, score=0.0 if wrong else 1.0)
        with pytest.raises(ServerError, match="409"):
            user.endpoints.feedback(raw.parse().id, label="good")
        for made_up in (
            "chatcmpl-1",
            raw.parse().id[:-1] + "z",
            raw.parse().id.replace("-s", "-c"),
        ):
            with pytest.raises(ServerError, match="404|409"):
                user.endpoints.feedback(made_up, label="bad")
        with pytest.raises(ServerError, match="422"):
            user.endpoints.feedback(raw.parse().id, label="purple")
    (release,) = admin.endpoints.releases("support")
    end = wait_for(
        lambda: (r := admin.endpoints.release(release["id"]))["status"] != "running" and r, "an end"
    )
    assert end["status"] == "rolled_back"
    assert "feedback" in end["state"]["reason"]


def test_a_shadow_gets_copies_and_users_never_notice(server, admin, ask) -> None:
    _, one = deploy(server, admin, "one")
    _, two = deploy(server, admin, "two", shadow=100)
    answers = [chat(ask) for _ in range(10)]
    streamed = ask.chat.completions.create(model="support", messages=CHAT, stream=True)
    assert len(list(streamed)) == 3
    assert {raw.headers["x-ztom-variant"] for raw in answers} == {f"one@{one[:12]}"}
    wait_for(lambda: len(server.stage.actor(two).calls) == 11, "the copies")
    assert all("stream" not in call.body for call in server.stage.actor(two).calls)


def test_a_slow_or_failing_shadow_costs_the_user_nothing(server, admin, ask) -> None:  # row 71
    """What it costs in time is measured by ``benchmarks/faults.py --only shadow``."""
    deploy(server, admin, "one")
    _, two = deploy(server, admin, "two", shadow=100, options={"timeout_s": 0.2})
    users = ask.with_options(timeout=10)
    for trouble in (Actor(fails=10**6), Actor(hangs=True), Actor(delay_s=60)):
        server.stage.actors[two] = trouble
        for _ in range(40):
            assert said(chat(users)) == "I am one."
        wait_for(lambda shadow=trouble: shadow.calls, "a copy")
    assert len(server.stage.actor(two).calls) <= 4, "copies are bounded"


def test_changes_of_the_table_lose_no_request(server, admin, ask) -> None:
    deploy(server, admin, "one")
    deploy(server, admin, "two", canary=50)
    with Traffic(ask, threads=8) as traffic:
        for percent in (10, 90, 50, 0, 100) * 4:
            admin.endpoints.traffic("support", canary=percent)
            time.sleep(0.1)
        admin.endpoints.promote("support")
        time.sleep(0.5)
        admin.endpoints.rollback("support")
        wait_for(lambda: len(traffic.answers) >= 1000, "a thousand answers", 300)
    assert traffic.failures == []


def test_the_ledger_may_be_away_for_a_while(server, admin, ask, monkeypatch) -> None:
    deploy(server, admin, "one")
    endpoints = server.services.ledger.endpoints

    def broken() -> int:
        raise ServerError("the database is away")

    monkeypatch.setattr(endpoints, "routing_version", broken)
    time.sleep(0.5)
    assert said(chat(ask)) == "I am one."


def test_an_endpoint_is_its_projects(server, admin) -> None:
    owner, stranger = server.as_user("owner"), server.as_user("stranger")
    project = server.project(owner)
    folder, digest = variant(server, "one")
    body = {"alias": "mine", "path": str(folder), "projectId": project}
    assert owner.post(f"{server.url}/v1/deployments", json=body, timeout=30).status_code == 202
    wait_for(
        lambda: owner.get(f"{server.url}/v1/endpoints/mine", timeout=30).status_code == 200,
        "the endpoint",
    )
    for method, path in (
        ("GET", "/v1/endpoints/mine"),
        ("DELETE", "/v1/endpoints/mine"),
        ("POST", "/v1/endpoints/mine/promote"),
        ("POST", "/v1/endpoints/mine/rollback"),
        ("PATCH", "/v1/endpoints/mine/traffic"),
        ("GET", f"/v1/deployments/{digest}"),
    ):
        answer = stranger.request(method, server.url + path, json={}, timeout=30)
        assert answer.status_code == 404, f"{method} {path}: {answer.status_code}"
    assert stranger.get(f"{server.url}/v1/endpoints", timeout=30).json() == []
    theirs = {"alias": "mine", "path": str(folder)}
    assert stranger.post(f"{server.url}/v1/deployments", json=theirs, timeout=30).status_code == 403
    other = server.project(stranger, "other")
    theirs["projectId"] = other
    assert stranger.post(f"{server.url}/v1/deployments", json=theirs, timeout=30).status_code == 404


def test_an_endpoint_that_is_removed_is_gone(server, admin, ask) -> None:
    _, digest = deploy(server, admin, "one")
    admin.endpoints.remove("support")
    time.sleep(0.5)
    with pytest.raises(openai.NotFoundError):
        chat(ask)
    wait_for(lambda: f"delete variant-one-{digest[:12]}" in server.stage.log, "its removal")
    with pytest.raises(ServerError, match="404"):
        admin.endpoints.get("support")


def test_what_should_run_is_started_again(server, admin, ask) -> None:  # rows 57, 66
    _, digest = deploy(server, admin, "one")
    server.stage.apps.clear()
    wait_for(lambda: server.stage.apps, "the restart")
    assert said(chat(ask)) == "I am one."


def test_other_options_start_beside_what_runs(server, admin, ask) -> None:
    folder, digest = deploy(server, admin, "one")
    with Traffic(ask) as traffic:
        admin.endpoints.deploy(
            "support", path=folder, name="one", now=True, options={"dtype": "float32"}
        )
        ready(admin, digest)
        wait_for(
            lambda: f"delete variant-one-{digest[:12]}" in server.stage.log, "the old one's end"
        )
    assert traffic.failures == []
    (app,) = server.stage.apps.values()
    assert app.args.dtype == "float32"


def test_a_file_of_endpoints_is_applied_once(server, admin, ask) -> None:
    folders = {name: variant(server, name) for name in ("one", "two", "acme", "three")}

    def spec(name: str, **more: Any) -> dict[str, Any]:
        return {"path": str(folders[name][0]), "name": name, **more}

    wanted = {
        "support": {
            "stable": spec("one"),
            "candidate": spec("two", canary=10, shadow=50),
            "rules": [spec("acme", header="x-customer", value="acme")],
        }
    }
    first = admin.endpoints.apply(wanted, dry_run=True)
    assert [change["text"][0] for change in first] == ["+", "+", "+"]
    assert admin.endpoints.deployments() == []
    admin.endpoints.apply(wanted)
    assert admin.endpoints.apply(wanted) == [], "under way"
    for name in ("one", "two", "acme"):
        ready(admin, folders[name][1])
    assert admin.endpoints.apply(wanted, dry_run=True) == []
    found = admin.endpoints.get("support")
    assert (found["canaryPercent"], found["shadowPercent"]) == (10, 50)
    assert len(found["rules"]) == 1
    wanted["support"]["candidate"]["canary"] = 25
    wanted["support"]["rules"] = []
    assert [c["action"] for c in admin.endpoints.apply(wanted)] == ["traffic", "unrule"]
    assert admin.endpoints.get("support")["canaryPercent"] == 25
    del wanted["support"]["candidate"]
    assert [c["action"] for c in admin.endpoints.apply(wanted)] == ["withdraw"]
    wanted["support"] |= {"stable": spec("three"), "rollout": FAST}
    assert [c["action"] for c in admin.endpoints.apply(wanted)] == ["deploy"]
    assert admin.endpoints.apply(wanted) == []
    ready(admin, folders["three"][1])
    assert admin.endpoints.apply(wanted) == [], "a release is under way"
    assert len(admin.endpoints.releases()) == 1
    assert admin.endpoints.apply({}) == []
    assert [c["action"] for c in admin.endpoints.apply({}, prune=True)] == ["remove"]
    with pytest.raises(ServerError, match="404"):
        admin.endpoints.get("support")


@pytest.mark.parametrize(
    "wanted",
    [
        {"support": {}},
        {"support": {"stable": {"path": "/nowhere"}, "canray": 1}},
        {"support": {"stable": {"path": "/nowhere"}}},
        {"a b": {"stable": {"path": "/nowhere"}}},
        {"support": {"stable": {"path": "x", "options": {"max_replica": 3}}}},
    ],
)
def test_files_that_are_wrong_are_refused_whole(server, admin, wanted) -> None:
    with pytest.raises(ServerError, match="422"):
        admin.endpoints.apply(wanted)
    assert admin.endpoints.deployments() == []


def test_a_file_with_one_variant_that_is_refused_changes_nothing(server, admin) -> None:
    good, _ = variant(server, "good")
    bad, _ = variant(server, "bad", verdict=None)
    files = {"aa": good, "zz": bad}
    wanted = {alias: {"stable": {"path": str(folder)}} for alias, folder in files.items()}
    with pytest.raises(ServerError, match="not proved"):
        admin.endpoints.apply(wanted)
    assert admin.endpoints.deployments() == []


def test_a_variant_under_a_second_alias_goes_on_under_the_first(server, admin, ask) -> None:
    folder, digest = deploy(server, admin, "one", alias="a")
    with Traffic(ask, model="a") as traffic:
        admin.endpoints.deploy("b", path=folder)
        ready(admin, digest)
        time.sleep(0.5)
    assert traffic.failures == []
    assert said(chat(ask, "b")) == "I am one."
    assert len(server.stage.apps) == 1


def test_swap_into_is_not_for_clients(server, admin) -> None:
    folder, digest = variant(server, "one")
    with pytest.raises(ServerError, match="swap_into"):
        admin.endpoints.deploy("support", path=folder, options={"swap_into": digest})


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
    wait_for(lambda: admin.endpoints.deployment(bad)["state"] == "failed", "the failure")
    assert "precision" in admin.endpoints.deployment(bad)["reason"]


def test_another_project_cannot_take_a_deployment_over(server, admin, ask) -> None:
    folder, digest = deploy(server, admin, "one")
    stranger = server.as_user("stranger")
    body = {"alias": "theirs", "path": str(folder), "projectId": server.project(stranger)}
    answer = stranger.post(f"{server.url}/v1/deployments", json=body, timeout=30)
    assert answer.status_code == 409
    assert admin.endpoints.deployment(digest)["projectId"] is None


def test_endpoints_of_a_project_are_for_its_members(server, admin) -> None:  # row 77
    owner = server.as_user("owner")
    project = server.project(owner)
    folder, digest = variant(server, "one")
    body = {"alias": "mine", "path": str(folder), "projectId": project}
    assert owner.post(f"{server.url}/v1/deployments", json=body, timeout=30).status_code == 202
    ready(admin, digest)
    for name, sees in (("owner", True), ("stranger", False)):
        with openai.OpenAI(
            base_url=f"{server.url}/v1", api_key=make_key(server, name), max_retries=0
        ) as client:
            assert bool(client.models.list().data) is sees
            for model in ("mine", digest, f"mine@{digest[:12]}"):
                if sees:
                    assert said(chat(client, model)) == "I am mine."
                else:
                    with pytest.raises(openai.NotFoundError):
                        chat(client, model)
    elsewhere = server.project(owner, "elsewhere")
    bound = make_key(server, "owner", projectId=elsewhere)
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key=bound, max_retries=0) as client,
        pytest.raises(openai.NotFoundError),
    ):
        chat(client, "mine")


def test_a_project_that_serves_is_not_deleted(server, admin) -> None:
    owner = server.as_user("owner")
    project = server.project(owner)
    folder, digest = variant(server, "one")
    body = {"alias": "mine", "path": str(folder), "projectId": project}
    owner.post(f"{server.url}/v1/deployments", json=body, timeout=30)
    ready(admin, digest)
    gone = {"projectIds": [project], "hardDelete": True}
    assert owner.delete(f"{server.url}/project", json=gone, timeout=30).status_code == 409
    assert owner.delete(f"{server.url}/v1/endpoints/mine", timeout=30).status_code == 204
    wait_for(lambda: not admin.endpoints.deployments(), "the end of the deployment")
    assert owner.delete(f"{server.url}/project", json=gone, timeout=30).status_code == 204
    body["projectId"] = server.project(owner)
    again = owner.post(f"{server.url}/v1/deployments", json=body, timeout=30)
    assert again.status_code == 202, "the alias is free"


def test_a_key_for_inference_reads_nothing_else(server, admin) -> None:
    key = make_key(server, "ada", scopes=["infer"])
    headers = {"Authorization": f"Bearer {key}"}
    assert requests.get(f"{server.url}/v1/models", headers=headers, timeout=30).status_code == 200
    for path in ("/project", "/v1/endpoints", "/v1/keys", "/api/auth/user"):
        answer = requests.get(server.url + path, headers=headers, timeout=30)
        assert answer.status_code == 403, path


def test_a_rollback_goes_back_once(server, admin) -> None:
    deploy(server, admin, "zero")
    _, one = deploy(server, admin, "one", now=True)
    deploy(server, admin, "two", plan=FAST)
    (release,) = admin.endpoints.releases("support")
    admin.endpoints.rollback("support")
    wait_for(lambda: admin.endpoints.release(release["id"])["endedAt"], "the end")
    assert admin.endpoints.release(release["id"])["status"] == "rolled_back"
    with pytest.raises(ServerError, match="409"):
        admin.endpoints.command(release["id"], "rollback")
    assert admin.endpoints.get("support")["stable"] == f"one@{one[:12]}"


def test_a_rollback_takes_back_what_was_promoted_a_moment_ago(server, admin) -> None:
    """The release is open until the controller's next look, and its candidate is stable by now."""
    _, one = deploy(server, admin, "one")
    _, two = deploy(server, admin, "two", now=True)
    for _ in range(2):
        rollback(server.services.ledger.endpoints, "support", actor="somebody", candidate=two)
        assert admin.endpoints.get("support")["stable"] == f"one@{one[:12]}"


def test_a_failed_swap_is_taken_back_everywhere(server, admin, ask) -> None:
    _, one = deploy(server, admin, "one", options={"live_swap": True})
    folder, two = variant(server, "two")
    server.stage.actor(two).hangs = True  # it swaps, and does not answer then
    admin.endpoints.deploy("support", path=folder, name="two", live=True)
    wait_for(lambda: admin.endpoints.deployment(two)["state"] == "failed", "the failure")
    (app,) = server.stage.apps
    wait_for(lambda: server.stage.current[app] == one, "the way back")
    assert said(chat(ask)) == "I am one."


def test_the_first_variant_can_be_swapped_back_in(server, admin, ask) -> None:
    (folder, one), (two_folder, two) = swapped(server, admin)
    admin.endpoints.deploy("support", path=folder, name="one", live=True)
    ready(admin, one)
    (app,) = server.stage.apps
    wait_for(lambda: server.stage.current[app] == one, "the swap")
    assert admin.endpoints.get("support")["stable"] == f"one@{one[:12]}"
    with pytest.raises(ServerError, match="another variant answers from this one's engine"):
        admin.endpoints.deploy("support", path=two_folder, canary=5)


def test_a_variant_that_was_swapped_out_takes_the_engine_from_nobody(server, admin, ask) -> None:
    (folder, _), (two_folder, two) = swapped(server, admin)
    by_rule = {"rule": {"header": "x-customer", "value": "acme"}}
    for alias, wishes in (("old", {}), ("old", {"now": True}), ("support", by_rule)):
        with pytest.raises(ServerError, match="another variant answers"):
            admin.endpoints.deploy(alias, path=folder, **wishes)
    admin.endpoints.deploy("other", path=two_folder)  # its turn is now
    ready(admin, two)
    with pytest.raises(ServerError, match="also answers for other"):
        admin.endpoints.rollback("support")
    assert said(chat(ask)) == said(chat(ask, "other")) == "I am two."


def test_a_wish_that_comes_too_late_leaves_the_engine_as_it_is(server, admin, ask) -> None:
    """It was sound when it was asked for; the deployment goes on without it."""
    (folder, one), (two_folder, two) = swapped(server, admin)
    deployments = server.services.ledger.endpoints.deployments
    there = deployments.get(one)
    late = NewDeployment(
        digest=one,
        name=there.name,
        address=str(folder),
        options=there.options,
        intent=Intent(alias="old", now=True),
    )
    deployments.deploy(late, actor="somebody")
    wait_for(lambda: "also answers for support" in str(deployments.get(one).reason), "the refusal")
    assert (deployments.get(one).state, deployments.get(one).intent) == ("ready", None)
    assert said(chat(ask)) == "I am two."
    assert "old" not in server.services.gateway.table.routes


def test_a_swap_is_not_undone_while_it_is_under_way(server, admin) -> None:
    """Until it is proved, the table still wants the old version."""
    _, one = deploy(server, admin, "one", options={"live_swap": True})
    folder, two = variant(server, "two")
    prove = server.stage.prove

    def slowly(spec: Any, proved: str, *rest: Any, **more: Any) -> None:
        time.sleep(0.5 if proved == two else 0)  # ten looks of the controller
        prove(spec, proved, *rest, **more)

    server.stage.prove = slowly
    admin.endpoints.deploy("support", path=folder, name="two", live=True)
    ready(admin, two)
    swaps = [line for line in server.stage.log if line.startswith("swap")]
    assert swaps == [f"swap {two[:4]}"], one


def test_a_swap_that_failed_makes_no_swap_of_what_comes_next(server, admin, ask) -> None:
    _, one = deploy(server, admin, "one", options={"live_swap": True})
    folder, two = variant(server, "two")
    server.stage.actor(two).fails = 10**6
    admin.endpoints.deploy("support", path=folder, name="two", live=True)
    wait_for(lambda: admin.endpoints.deployment(two)["state"] == "failed", "the failure")
    server.stage.actor(two).fails = 0
    admin.endpoints.deploy("support", path=folder, name="two", canary=0)
    ready(admin, two)
    placements = server.services.gateway.table.placements
    assert placements[two].app != placements[one].app
    assert server.stage.current[placements[one].app] == one
    assert said(chat(ask)) == "I am one."


def test_who_was_sent_to_a_version_that_left_does_not_wait_for_it(server, admin, ask) -> None:
    (_, one), (_, two) = swapped(server, admin)
    asked = len(server.stage.actor(one).calls)
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError):
            chat(ask, f"one@{one[:12]}", stream=stream)
    assert len(server.stage.actor(one).calls) <= asked + 3  # the stage counts a stream twice


def test_a_deployment_whose_files_are_gone_goes_on_and_says_so(server, admin, ask) -> None:
    folder, digest = deploy(server, admin, "one")
    shutil.rmtree(folder)
    wait_for(lambda: admin.endpoints.deployment(digest)["reason"], "what is wrong")
    assert admin.endpoints.deployment(digest)["state"] == "ready"
    version = admin.endpoints.get("support")["version"]
    time.sleep(0.3)  # several looks of the controller
    assert admin.endpoints.get("support")["version"] == version
    assert said(chat(ask)) == "I am one."


def test_pinned_to_a_version_that_was_swapped_out_is_refused(server, admin, ask) -> None:
    (_, one), (_, two) = swapped(server, admin)
    with pytest.raises(openai.InternalServerError) as refused:
        chat(ask, f"one@{one[:12]}")
    assert refused.value.status_code == 503


def test_a_removed_endpoint_does_not_come_back(server, admin) -> None:
    deploy(server, admin, "zero", alias="other")
    folder, digest = variant(server, "slow")
    block = threading.Event()
    prove = server.stage.prove

    def slowly(spec: Any, proved: str, *rest: Any, **more: Any) -> None:
        if proved == digest:
            block.wait(20)
        prove(spec, proved, *rest, **more)

    server.stage.prove = slowly
    admin.endpoints.deploy("support", path=folder)
    wait_for(lambda: any("start variant-support" in line for line in server.stage.log), "a start")
    admin.endpoints.remove("support")
    block.set()
    wait_for(lambda: admin.endpoints.deployment(digest)["state"] == "failed", "the end")
    time.sleep(1)
    with pytest.raises(ServerError, match="404"):
        admin.endpoints.get("support")
    assert digest not in server.services.gateway.table.placements


def test_what_one_quota_refuses_uses_up_no_other() -> None:
    quotas, user = Quotas(), ("user", Quota(requests_per_minute=60))
    small, other = ("small", Quota(requests_per_minute=1)), ("other", Quota())
    assert quotas.admit((user, small), now=0.0) == 0
    assert all(quotas.admit((user, small), now=0.0) > 0 for _ in range(100))
    assert [quotas.admit((user, other), now=0.0) == 0 for _ in range(60)] == [True] * 59 + [False]


def test_hanging_up_costs_tokens_too(server, admin) -> None:
    deploy(server, admin, "one")
    key = make_key(server, "ada", tokensPerMinute=4)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:

        def look_and_leave() -> None:
            with client.chat.completions.create(
                model="support", messages=CHAT, stream=True
            ) as stream:
                for _ in range(3):
                    next(iter(stream))

        look_and_leave()

        def refused() -> bool:
            try:
                look_and_leave()
            except openai.RateLimitError:
                return True
            return False

        wait_for(refused, "the end of the quota")


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
