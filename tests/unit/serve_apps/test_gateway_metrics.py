"""What is said to Prometheus, and counted for releases: right, and no more than there is to say."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.util.metrics import Metric

from serve_apps.controller.metrics import ReplicaMetrics
from serve_apps.controller.record_metrics import RecordMetrics
from serve_apps.gateway.metrics import GatewayMetrics
from serve_apps.gateway.observe import Observer
from serve_apps.variants.calls import ReplicaState
from ztom.ledger.deployments import DeploymentRecord, DeploymentState
from ztom.rollout.callers import CallerShares
from ztom.rollout.observations import StepObservations
from ztom.rollout.options import DeployOptions
from ztom.rollout.routing import Choice, Placement, RoutingTable, TrafficRole

PAGE = Path(__file__).parents[3] / "docs" / "serving.md"
DIGESTS = tuple(each * 64 for each in "0123456789abcdef")


@dataclass
class Said:
    """Stands in for a gauge of Ray's: keeps what it was told."""

    name: str
    told: list[tuple[dict[str, str], float]] = field(default_factory=list)

    def set(self, value: float, tags: dict[str, str] | None = None) -> None:
        self.told.append((tags or {}, value))


@pytest.fixture
def gauges(monkeypatch) -> dict[str, Said]:
    """By name, those that are made from now on."""
    made: dict[str, Said] = {}

    def gauge(name: str, **_: Any) -> Said:
        return made.setdefault(name, Said(name))

    for module in ("serve_apps.gateway.metrics", "serve_apps.controller.metrics"):
        monkeypatch.setattr(f"{module}.Gauge", gauge)
    return made


def placed(name: str, app: str) -> Placement:
    return Placement(name=name, app=app, deployment="d", folder=f"/{name}")


def chosen(digest: str, *, release: str | None = None, step: int = 0) -> Choice:
    where = placed("v", f"variant-{digest[:4]}")
    return Choice(digest, where, TrafficRole.STABLE, "support", release=release, step=step)


def test_only_who_has_requests_in_work_is_said_again(gauges, monkeypatch) -> None:
    monkeypatch.setattr("serve_apps.gateway.metrics._FRESH_S", 0.001)
    metrics = GatewayMetrics()
    for digest in DIGESTS:  # variants come and go
        metrics.began(chosen(digest))
        metrics.ended(chosen(digest), status=200, seconds=0.1)
    metrics.began(chosen(DIGESTS[3]))
    ongoing = gauges["ztom_ongoing_requests"].told
    assert [value for _, value in ongoing] == [1, 0] * len(DIGESTS) + [1], "nothing stays at 1"
    ongoing.clear()

    async def a_while() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(metrics.keep_fresh(), 0.1)

    asyncio.run(a_while())
    tags = {"alias": "support", "variant": f"v@{DIGESTS[3][:12]}", "role": "stable"}
    assert len(ongoing) > 1
    assert all(each == (tags, 1) for each in ongoing)


@dataclass
class Papers:
    """The ledger's part, for what is read here: a table and deployments."""

    placed: RoutingTable = field(default_factory=RoutingTable)
    records: list[DeploymentRecord] = field(default_factory=list)

    def table(self) -> RoutingTable:
        return self.placed

    @property
    def deployments(self) -> Any:
        return SimpleNamespace(all=lambda: self.records)

    def deploy(self, digest: str, app: str, **options: Any) -> None:
        self.placed = self.placed.with_placement(digest, placed(f"v{digest[0]}", app))
        record = DeploymentRecord(
            digest=digest,
            name=f"v{digest[0]}",
            address="/",
            base=None,
            options=DeployOptions(**options),
            intent=None,
            kept=None,
            project_id=None,
            state=DeploymentState.READY,
            reason=None,
            insisted=False,
            actor="a",
            created="",
        )
        self.records.append(record)


@dataclass
class Busy:
    """Applications of one replica that has generated a thousand tokens more at every look."""

    asked: Counter[str] = field(default_factory=Counter)

    def replicas(self, app: str, deployment: str) -> list[ReplicaState]:
        self.asked[app] += 1
        return [ReplicaState(1, (), 0, 0, 1000 * self.asked[app], 0, 2**20)]


@pytest.mark.parametrize("dear", range(3))
def test_what_shares_an_engine_costs_the_highest_price_given(gauges, monkeypatch, dear) -> None:
    papers = Papers()
    for number in range(3):
        options = {"price_per_hour": 7.2} if number == dear else {}
        papers.deploy(DIGESTS[number], "base", **options)
    papers.deploy(DIGESTS[3], "base", price_per_hour=3.6)
    papers.deploy(DIGESTS[4], "other")
    metrics = ReplicaMetrics(papers, Busy())
    for now in (100.0, 105.0):
        monkeypatch.setattr("serve_apps.controller.metrics.time.monotonic", lambda now=now: now)
        metrics.look()
    # five seconds of 7.2 an hour, for a thousand tokens
    assert gauges["ztom_cost_per_1000_tokens"].told == [({"app": "base"}, pytest.approx(0.01))]


def test_what_has_left_the_table_is_said_no_more(gauges) -> None:
    papers = Papers()
    for digest in DIGESTS[:2]:
        papers.deploy(digest, f"app-{digest[0]}")
    metrics = ReplicaMetrics(papers, Busy())
    ready = gauges["ztom_variant_ready"].told
    gone, stays = ({"variant": f"v{digest[0]}@{digest[:12]}"} for digest in DIGESTS[:2])
    metrics.look()
    assert sorted(ready, key=str) == [(gone, 1), (stays, 1)]
    papers.placed = papers.placed.with_placement(DIGESTS[0], None)
    for expected in ([(gone, 0), (stays, 1)], [(stays, 1)], [(stays, 1)]):
        ready.clear()
        metrics.look()
        assert sorted(ready, key=str) == expected
    assert set(metrics._tokens) == {"app-1"}


class Rows:
    """The ledger's rows of observations."""

    def __init__(self) -> None:
        self.contents: dict[tuple[str, int, str], StepObservations] = {}
        self.rollouts = self

    def observe_all(self, counted: list[tuple[str, int, str, StepObservations]]) -> frozenset[str]:
        for release, step, source, content in counted:
            self.contents[release, step, source] = content
        return frozenset()

    @property
    def requests(self) -> int:
        return sum(content.stable.requests for content in self.contents.values())


def test_steps_that_are_long_over_are_forgotten_and_what_comes_late_still_counts() -> None:
    rows, now = Rows(), 0.0
    observer = Observer(rows, lambda release: CallerShares(), clock=lambda: now)

    def count(step: int) -> None:
        choice = chosen(DIGESTS[0], release="r", step=step)
        observer.answered(choice, "ada", status=200, seconds=0.1, empty=False)

    for step in range(50):
        now += 600
        count(step)
        observer.write()
        observer.forget()
        assert len(observer._steps) <= 6, "an hour's"
    count(0)
    observer.forget()
    observer.write()
    assert rows.requests == 51
    count(0)
    observer.write()
    assert rows.requests == 52
    assert len(rows.contents) == 51, "a row is written over as long as it is known"


def test_what_could_not_be_written_is_not_forgotten() -> None:
    rows, now = Rows(), 0.0
    observer = Observer(rows, lambda release: CallerShares(), clock=lambda: now)
    choice = chosen(DIGESTS[0], release="r")
    observer.answered(choice, "ada", status=200, seconds=0.1, empty=False)
    now = 1e6
    observer.forget()
    observer.write()
    assert rows.requests == 1


def test_the_page_lists_every_series_with_its_labels() -> None:
    groups = (GatewayMetrics(), ReplicaMetrics(Papers(), Busy()), RecordMetrics(None))
    made = [value for group in groups for value in vars(group).values()]
    exported = {}
    for metric in made:
        if isinstance(metric, Metric):
            kind, info = type(metric).__name__.lower(), metric.info
            name = f"ray_{info['name']}" + ("_total" if kind == "counter" else "")
            exported[name] = (kind, info["tag_keys"])
    rows = re.findall(
        r"^\| `(ray_ztom_\w+)` \| (\w+) \| (.*?) ?\| ", PAGE.read_text(), re.MULTILINE
    )
    listed = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert exported
    assert listed == exported
