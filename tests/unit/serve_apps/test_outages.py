"""Applications that have lost every replica are deployed again, later and later, with a reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from controlled import Controlled

from serve_apps.controller.apps import AppState, AppStatus
from serve_apps.controller.outages import (
    FIRST_WAIT_S,
    LONGEST_WAIT_S,
    Outage,
    deployed_again,
    follow_outages,
    is_lost,
)
from serve_apps.controller.steps import Revive, Start, plan_steps
from ztom.ledger import Ledger
from ztom.ledger.deployments import DeploymentState

LOST = AppStatus(AppState.FAILED, "EngineError: no memory")


@pytest.fixture
def controlled(tmp_path: Path) -> Iterator[Controlled]:
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        yield Controlled(ledger, tmp_path)


@pytest.mark.parametrize(
    ("status", "lost"),
    [
        (LOST, True),
        (AppStatus(AppState.FAILED, replicas=1), False),
        (AppStatus(AppState.FAILED, coming=1), False),
        (AppStatus(AppState.STARTING), False),
        (AppStatus(AppState.RUNNING), False),  # it sleeps, and wakes when it is called
        (AppStatus(AppState.LEAVING), False),
    ],
)
def test_what_is_lost(status: AppStatus, lost: bool) -> None:
    assert is_lost(status) is lost


def test_each_wait_is_twice_the_one_before_up_to_a_minute() -> None:
    waits, outage = [], Outage(since=100.0)
    for _ in range(6):
        waits.append(outage.wait_s)
        assert not outage.is_due(100.0 + outage.wait_s - 0.1)
        assert outage.is_due(100.0 + outage.wait_s)
        outage = deployed_again(outage)
        assert not outage.is_due(1e9), "it is being started"
        (outage,) = follow_outages({"a": outage}, {"a": LOST}, 100.0).values()
    assert waits == [FIRST_WAIT_S, 10.0, 20.0, 40.0, LONGEST_WAIT_S, LONGEST_WAIT_S]


def test_what_is_known_of_outages_follows_what_is_seen() -> None:
    known = follow_outages({}, {"a": LOST, "b": AppStatus(AppState.RUNNING, replicas=1)}, 1.0)
    assert known == {"a": Outage(0, 1.0)}
    assert follow_outages(known, {"a": LOST}, 4.0) == known, "since it was first seen"
    tried = {"a": deployed_again(known["a"])}
    for status in ({}, {"a": AppStatus(AppState.LEAVING)}, {"a": AppStatus(AppState.STARTING)}):
        assert follow_outages(tried, status, 9.0) == {"a": Outage(1)}
    assert follow_outages(tried, {"a": LOST}, 9.0) == {"a": Outage(1, 9.0)}
    assert follow_outages(tried, {"a": AppStatus(AppState.RUNNING, replicas=1)}, 9.0) == {}


def test_only_an_application_that_serves_is_revived(controlled: Controlled) -> None:
    digest = controlled.serve("one")
    (record,) = controlled.endpoints.deployments.all()
    (app,) = controlled.stage.apps
    table = controlled.table
    assert plan_steps([record], table, {app: LOST}) == [Revive(app, (digest,), LOST.message)]
    assert plan_steps([record], table, {app: AppStatus(AppState.LEAVING)}) == []
    (start,) = plan_steps([record], table, {})
    assert isinstance(start, Start)


@pytest.mark.abuse(57)
def test_a_variant_that_lost_its_replicas_comes_back_and_says_so(controlled: Controlled) -> None:
    """As when Ray Serve has given it up: it lists the application, and starts nothing."""
    digest = controlled.serve("one")
    (app,) = controlled.stage.apps
    stage, deployments = controlled.stage, controlled.endpoints.deployments
    starts = stage.log.count(f"start {app}")
    stage.broken[app] = "VariantError: changed model.safetensors"
    controlled.look()
    record = deployments.get(digest)
    assert record.state is DeploymentState.READY, "its traffic stays where it is"
    assert record.reason == (
        "all of its replicas are lost; it is deployed again (try 1, after 5 s): "
        "VariantError: changed model.safetensors"
    )
    assert stage.log.count(f"start {app}") == starts, "Serve may still be at it"
    controlled.now += 5.0
    controlled.look()
    assert stage.log[-2:] == [f"delete {app}", f"start {app}"]
    controlled.now += 9.9
    controlled.look()
    assert "(try 2, after 10 s)" in (deployments.get(digest).reason or "")
    assert stage.log.count(f"start {app}") == starts + 1
    del stage.broken[app]
    controlled.now += 0.1
    controlled.look()
    assert deployments.get(digest).reason is None
    assert controlled.table.routes["support"].stable == digest
    stage.broken[app] = "EngineError: no memory"
    controlled.look()
    assert "(try 1, after 5 s)" in (deployments.get(digest).reason or ""), "it ran in between"


def test_a_folder_that_was_away_is_no_reason_any_more(controlled: Controlled) -> None:
    digest = controlled.serve("one")
    deployments = controlled.endpoints.deployments
    folder = Path(deployments.get(digest).address)
    away = folder.rename(folder.with_name("away"))
    controlled.look()
    assert (deployments.get(digest).reason or "").startswith("it cannot be started again: ")
    away.rename(folder)
    controlled.look()
    assert deployments.get(digest).reason is None


def test_another_reason_of_a_deployment_stays(controlled: Controlled) -> None:
    digest = controlled.serve("one")
    deployments = controlled.endpoints.deployments
    assert deployments.note(digest, "the plan asks for a pass")
    controlled.look()
    assert deployments.get(digest).reason == "the plan asks for a pass"
