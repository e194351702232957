"""Who gets which variant: canaries, rules, shadows, releases, feedback and rollbacks."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack

import openai
import pytest
import requests
from gateway_calls import CHAT, chat, chats, make_key, said
from server_helpers import Actor, Server
from sqlalchemy import func, select
from variant_folders import (
    FAST,
    deploy,
    ready,
    variant,
    wait_for,
)

from serve_apps.endpoints.traffic import rollback
from ztom.client import Client
from ztom.errors import ServerError
from ztom.ledger.feedback import FeedbackRecord
from ztom.ledger.models import CallerTrafficRow
from ztom.rollout.observations import StepObservations


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
    assert admin.endpoints.get("support").stable == f"two@{two[:12]}", "and back again"


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


def test_a_release_goes_step_by_step_to_its_promotion(server, admin, ask) -> None:
    _, one = deploy(server, admin, "one")
    _, two = deploy(server, admin, "two", plan=FAST)
    (release,) = admin.endpoints.releases("support")
    with chats(ask) as traffic:
        seen = list(admin.endpoints.watch(release.id))
    assert not traffic.failures
    assert seen[-1].status == "promoted"
    assert admin.endpoints.get("support").stable == f"two@{two[:12]}"
    assert admin.endpoints.get("support").previous == f"one@{one[:12]}"
    actions = [entry.event.action for entry in server.services.ledger.audit.entries()]
    assert [a for a in actions if a.startswith("rollout.")] == [
        "rollout.start",
        "rollout.started",
        "rollout.step",
        "rollout.step",
        "rollout.promoted",
    ]
    assert actions.index("rollout.started") < actions.index("route.set_traffic")
    steps = [release.state.step for release in seen]  # one may pass between two looks
    assert steps == sorted(steps)
    assert {steps[-1]} < set(steps) <= {0, 1, 2}


@pytest.mark.abuse(71)
def test_a_canary_that_fails_is_rolled_back_by_itself(server, admin, ask) -> None:
    _, one = deploy(server, admin, "one")
    folder, two = variant(server, "two")
    plan = {**FAST, "checks": {**FAST["checks"], "error_rate": 0.02}}
    plan["steps"] = [{"canary": 50}, {"canary": 100}]
    admin.endpoints.deploy("support", path=folder, name="two", plan=plan)
    ready(admin, two, server)
    server.stage.actor(two).fails = 10**6
    (release,) = admin.endpoints.releases("support")
    with chats(ask) as traffic:
        end = list(admin.endpoints.watch(release.id))[-1]
        wait_for(
            lambda: traffic.answers[-40:] == [f"one@{one[:12]}"] * 40, "an end of the failures"
        )
    assert end.status == "rolled_back"
    assert "error_rate" in end.state.reason
    assert admin.endpoints.get("support").canary is None
    wait_for(lambda: f"delete variant-two-{two[:12]}" in server.stage.log, "the candidate's end")


@pytest.mark.abuse(100)
def test_bad_calls_of_one_key_of_five_roll_nothing_back(server, admin) -> None:
    """Whatever it writes into the sticky header, and whoever caused the errors."""
    _, one = deploy(server, admin, "one")
    keys = [make_key(server, f"user-{number}") for number in range(5)]
    with ExitStack() as stack:
        mallory, *others = (
            stack.enter_context(
                openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)
            )
            for key in keys
        )
        for client in (mallory, *others) * 21:
            chat(client)
        rollouts = server.services.ledger.endpoints.rollouts
        wait_for(lambda: _recorded(server) >= 105, "the traffic on record")
        plan = {**FAST, "checks": {**FAST["checks"], "error_rate": 0.02}, "min_requests": 100}
        plan["steps"] = [{"canary": 50}, {"canary": 100}]
        _, two = deploy(server, admin, "two", plan=plan)
        (release,) = admin.endpoints.releases("support")
        assert release.callers.startswith("5 keys brought the traffic before it")
        assert not {key for key in rollouts.callers(release.id).requests if len(key) != 16}
        server.stage.actor(two).fails = 10**6
        statuses = Counter(_status(mallory, sticky) for sticky in range(150))
        assert statuses[503] > 30, "it finds values that get the canary"
        server.stage.actor(two).fails = 0
        server.stage.actor(two).status = 400
        assert Counter(_status(mallory, sticky) for sticky in range(50))[400] > 5
        server.stage.actor(two).status = 200
        for number in range(60):
            for client in others:
                chat(client, extra_headers={"x-ztom-sticky": f"{number}"})
        look = wait_for(
            lambda: (r := admin.endpoints.release(release.id)).state.findings and r, "a look"
        )
    assert look.status == "running"
    assert _counted(server, release.id).candidate.errors <= 2
    assert _counted(server, release.id).left_out > 30
    assert admin.endpoints.get("support").stable == f"one@{one[:12]}"


def _status(client: openai.OpenAI, sticky: int) -> int:
    try:
        chat(client, extra_headers={"x-ztom-sticky": str(sticky)})
    except openai.APIStatusError as error:
        return error.status_code
    return 200


def _recorded(server: Server) -> int:
    with server.services.ledger._database.read() as session:
        return int(session.scalar(select(func.sum(CallerTrafficRow.requests))) or 0)


def _counted(server: Server, release: str) -> StepObservations:
    rows = server.services.ledger.endpoints.rollouts.observations(release, 0)
    return sum(rows[1:], rows[0])


def test_feedback_of_one_key_does_not_count_beyond_its_share(server, admin) -> None:
    rollouts = server.services.ledger.endpoints.rollouts
    deploy(server, admin, "one")
    rollouts.add_traffic({"support": dict.fromkeys("abcde", 40)})
    deploy(server, admin, "two", plan=FAST)
    (release,) = admin.endpoints.releases("support")
    user = server.services.ledger.accounts.by_email("chief@example.org").id

    def judge(caller: str, number: int, error: float) -> None:
        response = f"{caller}-{number}"
        rollouts.feedback.add(
            FeedbackRecord(response, "v", "canary", error, user, None, release.id, 0, caller)
        )

    for number in range(100):
        judge("a", number, 1.0)
    assert rollouts.feedback.sums(release.id, 0)["canary"].count == 1
    for number in range(30):
        for caller in "bcde":
            judge(caller, number, 0.0)
    assert rollouts.feedback.sums(release.id, 0)["canary"].error == 1.0
    assert rollouts.feedback.sums(release.id, 0)["canary"].count > 100


def test_no_traffic_is_never_a_pass(server, admin) -> None:
    deploy(server, admin, "one")
    deploy(server, admin, "two", plan={**FAST, "max_seconds": 1})
    (release,) = admin.endpoints.releases("support")
    held = wait_for(
        lambda: (r := admin.endpoints.release(release.id)).status == "held" and r, "the hold"
    )
    assert held.state.step == 0
    assert admin.endpoints.get("support").shadow_percent == 100
    with pytest.raises(ServerError, match="409"):
        admin.endpoints.deploy("support", path=variant(server, "three")[0])
    admin.endpoints.command(release.id, "rollback")
    wait_for(lambda: admin.endpoints.release(release.id).status == "rolled_back", "the rollback")
    assert admin.endpoints.get("support").shadow is None


def test_a_change_by_hand_ends_the_release(server, admin) -> None:
    deploy(server, admin, "one")
    _, two = deploy(server, admin, "two", plan=FAST)
    (release,) = admin.endpoints.releases("support")
    admin.endpoints.traffic("support", canary=10)
    wait_for(lambda: admin.endpoints.release(release.id).status == "aborted", "the end")
    assert admin.endpoints.get("support").canary_percent == 10
    assert admin.endpoints.get("support").canary == f"two@{two[:12]}"


def test_promotion_by_hand_ends_the_release(server, admin) -> None:
    deploy(server, admin, "one")
    _, two = deploy(server, admin, "two", plan=FAST)
    (release,) = admin.endpoints.releases("support")
    admin.endpoints.promote("support")
    wait_for(lambda: admin.endpoints.release(release.id).status == "promoted", "the end")
    assert admin.endpoints.get("support").stable == f"two@{two[:12]}"


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
        lambda: (r := admin.endpoints.release(release.id)).status != "running" and r, "an end"
    )
    assert end.status == "rolled_back"
    assert "feedback" in end.state.reason


def test_a_shadow_gets_copies_and_users_never_notice(server, admin, ask) -> None:
    _, one = deploy(server, admin, "one")
    _, two = deploy(server, admin, "two", shadow=100)
    answers = [chat(ask) for _ in range(10)]
    streamed = ask.chat.completions.create(model="support", messages=CHAT, stream=True)
    assert len(list(streamed)) == 3
    assert {raw.headers["x-ztom-variant"] for raw in answers} == {f"one@{one[:12]}"}
    wait_for(lambda: len(server.stage.actor(two).calls) == 11, "the copies")
    assert all("stream" not in call.body for call in server.stage.actor(two).calls)


@pytest.mark.abuse(71)
def test_a_slow_or_failing_shadow_costs_the_user_nothing(server, admin, ask) -> None:
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


def test_a_rollback_goes_back_once(server, admin) -> None:
    deploy(server, admin, "zero")
    _, one = deploy(server, admin, "one", now=True)
    deploy(server, admin, "two", plan=FAST)
    (release,) = admin.endpoints.releases("support")
    admin.endpoints.rollback("support")
    wait_for(lambda: admin.endpoints.release(release.id).ended_at, "the end")
    assert admin.endpoints.release(release.id).status == "rolled_back"
    with pytest.raises(ServerError, match="409"):
        admin.endpoints.command(release.id, "rollback")
    assert admin.endpoints.get("support").stable == f"one@{one[:12]}"


def test_a_rollback_takes_back_what_was_promoted_a_moment_ago(server, admin) -> None:
    """The release is open until the controller's next look, and its candidate is stable by now."""
    _, one = deploy(server, admin, "one")
    _, two = deploy(server, admin, "two", now=True)
    for _ in range(2):
        rollback(server.services.ledger.endpoints, "support", actor="somebody", candidate=two)
        assert admin.endpoints.get("support").stable == f"one@{one[:12]}"
