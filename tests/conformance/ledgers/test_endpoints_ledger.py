"""The ledger of what is served, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.orm import Session as OrmSession

from ztom.errors import AlreadyOnRecordError, LedgerError, NotOnRecordError
from ztom.ledger import Ledger
from ztom.ledger.accounts import NewUser
from ztom.ledger.database import open_database, parse_address
from ztom.ledger.deployments import DeploymentState, NewDeployment, ServedAs
from ztom.ledger.feedback import FeedbackRecord
from ztom.ledger.models import (
    DeploymentRow,
    EndpointRow,
    ObservationRow,
    RolloutRow,
    RoutingRow,
)
from ztom.rollout.intent import Intent
from ztom.rollout.observations import ArmCounts, LatencyHistogram, StepObservations
from ztom.rollout.options import DeployOptions
from ztom.rollout.plan import ReleaseGate, parse_plan
from ztom.rollout.routing import Placement, RoutingTable
from ztom.rollout.state import Command, ReleaseState, ReleaseStatus

A, B = "a" * 64, "b" * 64


@pytest.fixture
def ledger(ledger_address: str) -> Iterator[Ledger]:
    with Ledger.open(ledger_address) as ledger:
        yield ledger


def new(digest: str = A, intent: Intent | None = None, **options: object) -> NewDeployment:
    return NewDeployment(digest, "toy", "/variants/toy", DeployOptions(**options), intent=intent)


def place(name: str) -> Placement:
    return Placement(name=name, app=name, deployment="variant", folder=f"/variants/{name}")


def table_of(**names: str) -> RoutingTable:
    """A table in which variants run, by their digest's one character."""
    return RoutingTable(placements={key * 64: place(name) for key, name in names.items()})


def change(ledger: Ledger, **names: str) -> int:
    def placed(table: RoutingTable) -> RoutingTable:
        for key, name in names.items():
            table = table.with_placement(key * 64, place(name))
        return table

    return ledger.endpoints.change_routing(
        placed, actor="t", action="route.x", subject="endpoint:s"
    )


def test_the_table_has_versions_and_each_change_is_audited(ledger: Ledger) -> None:
    assert ledger.endpoints.routing() == (0, RoutingTable())
    assert change(ledger, a="one") == 1
    assert change(ledger, b="two") == 2
    assert change(ledger, b="two") == 2, "no change, no version"
    assert ledger.endpoints.routing() == (2, table_of(a="one", b="two"))
    assert ledger.endpoints.table() == table_of(a="one", b="two")
    assert [e.event.action for e in ledger.audit.entries()] == ["route.x", "route.x"]


def test_a_change_that_raises_leaves_everything(ledger: Ledger) -> None:
    change(ledger, a="one")

    def fails(before: RoutingTable) -> RoutingTable:
        raise NotOnRecordError("no")

    with pytest.raises(NotOnRecordError):
        ledger.endpoints.change_routing(fails, actor="t", action="x", subject="y")
    assert ledger.endpoints.routing() == (1, table_of(a="one"))
    assert len(list(ledger.audit.entries())) == 1


def add(ledger: Ledger, number: int) -> int:
    return ledger.endpoints.change_routing(
        lambda table: table.with_placement(f"{number:064x}", place(f"k{number}")),
        actor="t",
        action="route.x",
        subject="endpoint:s",
    )


def test_of_changes_at_once_none_is_lost(ledger: Ledger) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: add(ledger, i), range(24)))
    version, table = ledger.endpoints.routing()
    assert version == 24
    assert {where.name for where in table.placements.values()} == {f"k{i}" for i in range(24)}
    assert list(table.placements) == [f"{i:064x}" for i in range(24)]


def test_who_looked_at_an_older_table_is_refused(ledger: Ledger) -> None:
    change(ledger, a="one")
    with pytest.raises(AlreadyOnRecordError, match="meanwhile"):
        ledger.endpoints.change_routing(
            lambda before: RoutingTable(), actor="t", action="x", subject="y", expected=0
        )


@pytest.mark.abuse(64)
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
    record = deployments.deploy(new(intent=Intent(alias="support", now=True)), actor="user:1")
    assert record.state is DeploymentState.STARTING
    assert not deployments.set_state(
        A, DeploymentState.READY, actor="c", only_from=DeploymentState.FAILED
    )
    assert deployments.set_state(A, DeploymentState.READY, actor="c")
    assert not deployments.set_state(A, DeploymentState.READY, actor="c"), "said already"
    assert deployments.deploy(new(), actor="t").state is DeploymentState.READY, "nothing to restart"
    again = deployments.deploy(new(dtype="float32"), actor="t")
    assert again.state is DeploymentState.STARTING, "other options take another start"
    assert again.kept == ServedAs(again.name, again.address, DeployOptions())
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
        deployments.deploy(new(max_replicas=number + 1), actor="t")
        deployments.set_state(A, DeploymentState.FAILED, actor="c", reason="no memory")
        kept = deployments.get(A).kept
        assert kept is not None
        assert kept.options == DeployOptions(), "of the last time that it was ready"
    deployments.let_go(A)
    assert deployments.get(A).kept is None, "no route names it"
    deployments.deploy(new(max_replicas=4), actor="t")
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
        "support", candidate=B, stable=A, plan=parse_plan(), actor="t"
    )
    return rollout.id


def test_one_release_of_an_alias_at_a_time(ledger: Ledger) -> None:
    first = begin(ledger)
    with pytest.raises(AlreadyOnRecordError, match=first):
        begin(ledger)
    ledger.endpoints.rollouts.save(
        first, state=ReleaseState(seconds=1), status=ReleaseStatus.PROMOTED
    )
    assert ledger.endpoints.rollouts.get(first).ended is not None
    second = begin(ledger)
    assert [r.id for r in ledger.endpoints.rollouts.open()] == [second]


def test_commands_stay_until_they_are_done_and_states_are_kept(ledger: Ledger) -> None:
    rollout = begin(ledger)
    ledger.endpoints.rollouts.command(rollout, Command.ROLLBACK, actor="user:1")
    ledger.endpoints.rollouts.save(
        rollout, state=ReleaseState(seconds=1), status=ReleaseStatus.RUNNING
    )
    assert ledger.endpoints.rollouts.get(rollout).command == "rollback"
    ledger.endpoints.rollouts.save(
        rollout,
        state=ReleaseState(seconds=2),
        status=ReleaseStatus.ROLLED_BACK,
        done=Command.ROLLBACK,
        records=(("rollback", "asked for"),),
    )
    record = ledger.endpoints.rollouts.get(rollout)
    assert (record.command, record.state.seconds, record.status) == (None, 2, "rolled_back")
    ledger.endpoints.rollouts.save(
        rollout, state=ReleaseState(seconds=3), status=ReleaseStatus.RUNNING
    )
    assert ledger.endpoints.rollouts.get(rollout).state.seconds == 2, "one that has ended stays"
    with pytest.raises(AlreadyOnRecordError, match="ended"):
        ledger.endpoints.rollouts.command(rollout, Command.PROMOTE, actor="t")
    actions = [entry.event.action for entry in ledger.audit.entries()]
    assert actions == ["rollout.start", "rollout.rollback", "rollout.rollback"]


def counted(requests: int) -> StepObservations:
    latency = LatencyHistogram.of([0.1] * requests)
    return StepObservations(candidate=ArmCounts(requests=requests, latency=latency))


def test_observations_are_replaced_by_their_source_and_feedback_counts_once(
    ledger: Ledger,
) -> None:
    rollout = begin(ledger)
    user = ledger.accounts.create(NewUser("ada", "a@x.org", "h"), actor="t")
    for n in (1, 2):
        ledger.endpoints.rollouts.observe(rollout, 0, "gateway-1", counted(n))
    ledger.endpoints.rollouts.observe(rollout, 0, "gateway-2", counted(5))
    ledger.endpoints.rollouts.observe(rollout, 1, "gateway-1", counted(9))
    assert ledger.endpoints.rollouts.observations(rollout, 0) == (counted(2), counted(5))
    for name, role, error in (("r1", "canary", 1.0), ("r2", "canary", 0.25), ("r3", "stable", 0)):
        ledger.endpoints.rollouts.feedback.add(
            FeedbackRecord(name, B, role, error, user.id, rollout_id=rollout)
        )
    with pytest.raises(AlreadyOnRecordError):
        ledger.endpoints.rollouts.feedback.add(FeedbackRecord("r1", B, "canary", 0.0, user.id))
    sums = ledger.endpoints.rollouts.feedback.sums(rollout, 0)
    assert (sums["canary"].count, sums["canary"].error) == (2, 1.25)
    assert (sums["stable"].count, sums["stable"].error) == (1, 0.0)
    assert ledger.endpoints.rollouts.feedback.sums(rollout, 1) == {}


#: As earlier versions wrote them: options without defaults, the rest in full.
OLD_PLAN = {
    "gate": "pass",
    "steps": [
        {
            "kind": kind,
            "percent": percent,
            "min_requests": 100,
            "min_seconds": 60.0,
            "max_seconds": 3600.0,
            "checks": {
                "error_rate": 0.03,
                "empty": 0.03,
                "latency": {"max_ratio": 1.5, "margin": 0.05},
                "disagreement": 0.5,
                "feedback": {"margin": 0.1, "required": False},
            },
        }
        for kind, percent in (("shadow", 100.0), ("canary", 100.0))
    ],
    "alpha": 0.05,
}
OLD_ROUTE = {
    "stable": A,
    "previous": None,
    "canary": None,
    "canary_percent": 0.0,
    "shadow": None,
    "shadow_percent": 0.0,
    "rules": [{"header": "x-customer", "value": "acme", "key": None, "variant": A}],
    "release": None,
    "step": 0,
    "project": None,
}
OLD_PLACE = {
    "name": "toy",
    "app": "variant-toy",
    "deployment": "variant",
    "folder": "/variants/toy",
    "timeout_s": 120.0,
    "current": None,
    "project": None,
}


def write_old_rows(address: str) -> None:
    """The rows of a ledger of before, past everything that writes them today."""
    kept = {"name": "toy", "address": "/variants/toy", "options": {}}
    intent = {"alias": "support", "now": False, "canary": None, "shadow": 5.0, "rule": None}
    engine = open_database(parse_address(address), busy_timeout_s=10).engine
    with OrmSession(engine) as session, session.begin():
        session.add(EndpointRow(alias="support"))
        session.add(
            DeploymentRow(
                digest=A,
                name="toy",
                address="/variants/toy",
                base={"reference": "/b", "digest": B},
                options={"max_replicas": 2, "swap_into": B},
                intent={**intent, "plan": None},
                kept=kept,
                actor="t",
            )
        )
        table = {"routes": {"support": OLD_ROUTE}, "placements": {A: OLD_PLACE}}
        session.add(RoutingRow(version=7, content=table, actor="t"))
        session.flush()
        state = {"status": "held", "step": 1, "seconds": 3.5, "started": True, "settled": False}
        rollout = RolloutRow(
            id="0" * 8,
            alias="support",
            candidate=B,
            stable=A,
            plan=OLD_PLAN,
            state={**state, "reason": "why", "findings": {}, "p95": None},
            status="held",
            command="resume",
            actor="t",
        )
        session.add(rollout)
        session.flush()
        session.add(
            ObservationRow(rollout_id="0" * 8, step=1, source="g", content={"candidate": {}})
        )
    engine.dispose()


def test_rows_of_earlier_versions_are_read(ledger: Ledger, ledger_address: str) -> None:
    write_old_rows(ledger_address)
    record = ledger.endpoints.deployments.get(A)
    assert record.options == DeployOptions(max_replicas=2, swap_into=B)
    assert record.intent == Intent(alias="support", shadow=5)
    assert record.kept == ServedAs("toy", "/variants/toy", DeployOptions())
    version, table = ledger.endpoints.routing()
    assert (version, table.routes["support"].rules[0].value) == (7, "acme")
    assert table.placements[A].timeout_s == 120
    (rollout,) = ledger.endpoints.rollouts.open()
    assert (rollout.plan.gate, rollout.plan.steps[-1].percent) == (ReleaseGate.PASS, 100)
    assert rollout.plan.steps[0] == parse_plan().steps[0]
    assert (rollout.state.seconds, rollout.state.reason, rollout.status) == (3.5, "why", "held")
    assert rollout.command is Command.RESUME
    assert ledger.endpoints.rollouts.observations(rollout.id, 1) == (StepObservations(),)


def test_a_value_that_cannot_be_read_is_named(ledger: Ledger, ledger_address: str) -> None:
    write_old_rows(ledger_address)
    engine = open_database(parse_address(ledger_address), busy_timeout_s=10).engine
    with OrmSession(engine) as session, session.begin():
        session.get_one(DeploymentRow, A).options = {"max_replica": 2}
        session.get_one(RoutingRow, 7).content = {"routes": [], "placements": {}}
    engine.dispose()
    with pytest.raises(LedgerError, match="DeployOptions that cannot be read: max_replica"):
        ledger.endpoints.deployments.all()
    with pytest.raises(LedgerError, match="RoutingTable that cannot be read: routes"):
        ledger.endpoints.table()


def test_deployments_are_found_by_the_start_of_their_digest(ledger: Ledger) -> None:
    deployments = ledger.endpoints.deployments
    near = "a" * 63 + "b"
    for digest in (A, near, B):
        deployments.deploy(new(digest), actor="t")
    assert [r.digest for r in deployments.all(starting_with="a" * 8)] == [A, near]
    assert [r.digest for r in deployments.all(starting_with=near)] == [near]
    assert deployments.all(starting_with="a%") == ()
    deployments.set_state(near, DeploymentState.RETIRED, actor="t")
    assert [r.digest for r in deployments.all(starting_with="aa")] == [A]
