"""Shares of an engine's time add up to the time for which it had work."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_apps.controller.engine_seconds import (
    ReplicaSeconds,
    apps_with_traffic,
    engine_seconds,
    owners,
)
from serve_apps.variants.calls import ReplicaState
from serve_apps.variants.meter import WorkMeter, WorkShare
from ztom.rollout.routing import Placement, Route, RoutingTable

A, B, C = (letter * 64 for letter in "abc")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_two_at_a_time_share_and_one_alone_has_all() -> None:
    clock = Clock()
    meter = WorkMeter(clock)
    clock.now += 5  # nobody asks
    first = meter.begin()
    clock.now += 2
    second = meter.begin()
    clock.now += 4
    assert meter.tell(first) == pytest.approx(2 + 4 / 2)
    meter.end(first)
    clock.now += 1
    meter.end(second)  # whose caller has gone
    assert meter.untold_s == pytest.approx(4 / 2 + 1)
    clock.now += 3
    assert (meter.busy_s, meter.up_s) == (pytest.approx(7), pytest.approx(15))


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 10)), max_size=40))
def test_shares_add_up_to_the_seconds_with_work(moves: list[tuple[int, float]]) -> None:
    clock = Clock()
    meter, there, told = WorkMeter(clock), dict[int, WorkShare](), 0.0
    for who, seconds in moves:
        clock.now += seconds
        if who not in there:
            there[who] = meter.begin()
            continue
        if who % 2:
            told += meter.tell(there[who])
        meter.end(there.pop(who))
    for share in there.values():
        meter.end(share)
    assert told + meter.untold_s == pytest.approx(meter.busy_s)


def state(replica: str, *, up_s: float, busy_s: float = 0, untold_s: float = 0) -> ReplicaState:
    return ReplicaState(1, (), 0, 0, 0, 0, 0, replica, 30.0, up_s, busy_s, untold_s)


def test_seconds_between_two_looks() -> None:
    before = {"one": ReplicaSeconds(100, 40, 2)}
    states = [state("one", up_s=105, busy_s=43, untold_s=3), state("new", up_s=2, busy_s=0.5)]
    with_traffic = engine_seconds(states, before, is_first=False, has_traffic=True)
    assert (with_traffic.busy_s, with_traffic.idle_s) == (1, pytest.approx(2 + 1.5))
    assert with_traffic.held_s == 30, "the new one had to be loaded"
    kept = engine_seconds(states[:1], before, is_first=False, has_traffic=False)
    assert (kept.idle_s, kept.held_s) == (0, 2)
    first = engine_seconds(states, {}, is_first=True, has_traffic=True)
    assert (first.busy_s, first.idle_s, first.held_s) == (0, 0, 0), "another one counted that"


def test_whose_seconds_they_are() -> None:
    def placed(app: str, project: str | None, current: str | None = None) -> Placement:
        where = {"name": "v", "app": app, "deployment": "d", "folder": "/v"}
        return Placement(**where, project=project, current=current)

    table = RoutingTable(
        routes={"support": Route(stable=A, previous=B)},
        placements={A: placed("one", "p"), B: placed("two", "p", B), C: placed("two", "q", B)},
    )
    assert apps_with_traffic(table) == {"one"}, "the other is kept for a rollback"
    assert owners(table, "two") == [(B, "p")], "the one that is in the engine"
    shared = RoutingTable(placements={A: placed("base", "p"), B: placed("base", None)})
    assert owners(shared, "base") == [(A, "p"), (B, None)]
