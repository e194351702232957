"""The ledger of what is served, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ztom.errors import AlreadyOnRecordError, NotOnRecordError
from ztom.ledger import Ledger
from ztom.ledger.accounts import NewUser
from ztom.ledger.deployments import DeploymentState, NewDeployment
from ztom.ledger.rollouts import FeedbackRecord, RolloutStatus

A, B = "a" * 64, "b" * 64


@pytest.fixture
def ledger(ledger_address: str) -> Iterator[Ledger]:
    with Ledger.open(ledger_address) as ledger:
        yield ledger


def new(digest: str = A, **more: object) -> NewDeployment:
    return NewDeployment(digest, "toy", "/variants/toy", more.pop("options", {}), **more)


def change(ledger: Ledger, **content: object) -> int:
    return ledger.endpoints.change_routing(
        lambda before: {**before, **content}, actor="t", action="route.x", subject="endpoint:s"
    )


def test_the_table_has_versions_and_each_change_is_audited(ledger: Ledger) -> None:
    assert ledger.endpoints.routing() == (0, {})
    assert change(ledger, a=1) == 1
    assert change(ledger, b=2) == 2
    assert change(ledger, b=2) == 2, "no change, no version"
    assert ledger.endpoints.routing() == (2, {"a": 1, "b": 2})
    assert [e.event.action for e in ledger.audit_entries()] == ["route.x", "route.x"]


def test_a_change_that_raises_leaves_everything(ledger: Ledger) -> None:
    change(ledger, a=1)

    def fails(before: object) -> dict[str, object]:
        raise NotOnRecordError("no")

    with pytest.raises(NotOnRecordError):
        ledger.endpoints.change_routing(fails, actor="t", action="x", subject="y")
    assert ledger.endpoints.routing() == (1, {"a": 1})
    assert len(list(ledger.audit_entries())) == 1


def test_of_changes_at_once_none_is_lost(ledger: Ledger) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: change(ledger, **{f"k{i}": i}), range(24)))
    version, content = ledger.endpoints.routing()
    assert version == 24
    assert content == {f"k{i}": i for i in range(24)}


def test_who_looked_at_an_older_table_is_refused(ledger: Ledger) -> None:
    change(ledger, a=1)
    with pytest.raises(AlreadyOnRecordError, match="meanwhile"):
        ledger.endpoints.change_routing(
            lambda before: {}, actor="t", action="x", subject="y", expected=0
        )


def test_of_two_deployments_at_once_one_is_refused(ledger: Ledger) -> None:
    def deploy(_: int) -> bool:
        try:
            ledger.endpoints.deployments.deploy(new(), actor="t")
        except AlreadyOnRecordError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(deploy, range(4))) == 1


def test_a_deployment_goes_from_start_to_retirement(ledger: Ledger) -> None:
    deployments = ledger.endpoints.deployments
    record = deployments.deploy(new(intent={"alias": "support"}), actor="user:1")
    assert record.state is DeploymentState.STARTING
    assert not deployments.set_state(
        A, DeploymentState.READY, actor="c", only_from=DeploymentState.FAILED
    )
    assert deployments.set_state(A, DeploymentState.READY, actor="c")
    assert not deployments.set_state(A, DeploymentState.READY, actor="c"), "said already"
    assert deployments.deploy(new(), actor="t").state is DeploymentState.READY, "nothing to restart"
    again = deployments.deploy(new(options={"dtype": "float32"}), actor="t")
    assert again.state is DeploymentState.STARTING, "other options take another start"
    assert again.kept == {"name": again.name, "address": again.address, "options": {}}
    deployments.set_state(A, DeploymentState.FAILED, actor="c", reason="no memory")
    assert deployments.get(A).reason == "no memory"
    deployments.clear_intent(A, deployments.get(A).intent)
    assert deployments.get(A).intent is None
    deployments.set_state(A, DeploymentState.RETIRED, actor="c")
    assert deployments.all() == ()
    with pytest.raises(NotOnRecordError):
        deployments.get(B)


def test_what_is_deployed_anew_keeps_what_it_was_until_it_is_ready(ledger: Ledger) -> None:
    deployments = ledger.endpoints.deployments
    deployments.deploy(new(), actor="t")
    deployments.set_state(A, DeploymentState.READY, actor="c")
    for number in (1, 2):
        deployments.deploy(new(options={"max_replicas": number}), actor="t")
        deployments.set_state(A, DeploymentState.FAILED, actor="c", reason="no memory")
        kept = deployments.get(A).kept
        assert kept is not None
        assert kept["options"] == {}, "of the last time that it was ready"
    deployments.let_go(A)
    assert deployments.get(A).kept is None, "no route names it"
    deployments.deploy(new(options={"max_replicas": 3}), actor="t")
    deployments.set_state(A, DeploymentState.READY, actor="c")
    assert deployments.get(A).kept is None


def test_an_alias_is_one_projects(ledger: Ledger) -> None:
    owner = ledger.accounts.create(NewUser("ada", "a@x.org", "h"), actor="t")
    project = ledger.projects.create(
        name="p", description="", format="HF_TEXT_GENERATION", owner=owner.id, actor="t"
    )
    ledger.endpoints.claim("support", project.id)
    ledger.endpoints.claim("support", project.id)
    with pytest.raises(NotOnRecordError):
        ledger.endpoints.claim("support", None)
    assert ledger.endpoints.project_of("support") == project.id
    with pytest.raises(NotOnRecordError):
        ledger.endpoints.project_of("other")


def begin(ledger: Ledger) -> str:
    ledger.endpoints.claim("support", None)
    rollout = ledger.endpoints.rollouts.start(
        "support", candidate=B, stable=A, plan={"steps": []}, state={}, actor="t"
    )
    return rollout.id


def test_one_release_of_an_alias_at_a_time(ledger: Ledger) -> None:
    first = begin(ledger)
    with pytest.raises(AlreadyOnRecordError, match=first):
        begin(ledger)
    ledger.endpoints.rollouts.save(first, state={"n": 1}, status=RolloutStatus.PROMOTED)
    assert ledger.endpoints.rollouts.get(first).ended is not None
    second = begin(ledger)
    assert [r.id for r in ledger.endpoints.rollouts.open()] == [second]


def test_commands_stay_until_they_are_done_and_states_are_kept(ledger: Ledger) -> None:
    rollout = begin(ledger)
    ledger.endpoints.rollouts.command(rollout, "rollback", actor="user:1")
    ledger.endpoints.rollouts.save(rollout, state={"n": 1}, status=RolloutStatus.RUNNING)
    assert ledger.endpoints.rollouts.get(rollout).command == "rollback"
    ledger.endpoints.rollouts.save(
        rollout,
        state={"n": 2},
        status=RolloutStatus.ROLLED_BACK,
        done="rollback",
        records=(("rollback", "asked for"),),
    )
    record = ledger.endpoints.rollouts.get(rollout)
    assert (record.command, record.state, record.status) == (None, {"n": 2}, "rolled_back")
    ledger.endpoints.rollouts.save(rollout, state={"n": 3}, status=RolloutStatus.RUNNING)
    assert ledger.endpoints.rollouts.get(rollout).state == {"n": 2}, "one that has ended stays"
    with pytest.raises(AlreadyOnRecordError, match="ended"):
        ledger.endpoints.rollouts.command(rollout, "promote", actor="t")
    actions = [entry.event.action for entry in ledger.audit_entries()]
    assert actions == ["rollout.start", "rollout.rollback", "rollout.rollback"]


def test_observations_are_replaced_by_their_source_and_feedback_counts_once(
    ledger: Ledger,
) -> None:
    rollout = begin(ledger)
    user = ledger.accounts.create(NewUser("ada", "a@x.org", "h"), actor="t")
    for n in (1, 2):
        ledger.endpoints.rollouts.observe(rollout, 0, "gateway-1", {"n": n})
    ledger.endpoints.rollouts.observe(rollout, 0, "gateway-2", {"n": 5})
    ledger.endpoints.rollouts.observe(rollout, 1, "gateway-1", {"n": 9})
    assert ledger.endpoints.rollouts.observations(rollout, 0) == ({"n": 2}, {"n": 5})
    for name, role, error in (("r1", "canary", 1.0), ("r2", "canary", 0.25), ("r3", "stable", 0)):
        ledger.endpoints.rollouts.add_feedback(
            FeedbackRecord(name, B, role, error, user.id, rollout_id=rollout)
        )
    with pytest.raises(AlreadyOnRecordError):
        ledger.endpoints.rollouts.add_feedback(FeedbackRecord("r1", B, "canary", 0.0, user.id))
    sums = ledger.endpoints.rollouts.feedback(rollout, 0)
    assert (sums["canary"].count, sums["canary"].error) == (2, 1.25)
    assert (sums["stable"].count, sums["stable"].error) == (1, 0.0)
    assert ledger.endpoints.rollouts.feedback(rollout, 1) == {}
