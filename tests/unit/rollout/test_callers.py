"""No caller counts for more than their share: what one of five keys does moves no release."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from release_world import ONLY_ERRORS, World

from serve_apps.gateway.observe import Observer
from ztom.rollout.callers import ENOUGH, CallerCap, CallerShares
from ztom.rollout.observations import StepObservations
from ztom.rollout.plan import parse_plan
from ztom.rollout.routing import Choice, Placement, TrafficRole
from ztom.rollout.state import ReleaseStatus

KEYS = [f"key-{number}" for number in range(5)]
EQUAL = CallerShares(requests=dict.fromkeys(KEYS, 200))
PLAN = parse_plan(
    {
        "steps": [{"canary": 50}, {"canary": 100}],
        "min_requests": 1000,
        "min_seconds": 0,
        "checks": {**ONLY_ERRORS, "error_rate": 0.02},
    }
)
PLACE = Placement(name="v", app="v", deployment="v", folder="/")


class Rows:
    """The ledger's rows of one gateway process."""

    def __init__(self) -> None:
        self.rollouts = self
        self.content = StepObservations()

    def observe_all(
        self, counted: Sequence[tuple[str, int, str, StepObservations]]
    ) -> frozenset[str]:
        *_, self.content = counted[-1]
        return frozenset()


class Gateway:
    """Counts answers as a gateway does, and gives them to a release."""

    def __init__(self, shares: CallerShares = EQUAL) -> None:
        self.rows = Rows()
        self.observer = Observer(self.rows, lambda release: shares)
        self.world = World(PLAN)
        self.world.tick()

    def answer(self, caller: str, status: int = 200, *, canary: bool = True) -> None:
        role = TrafficRole.CANARY if canary else TrafficRole.STABLE
        choice = Choice("a" * 64, PLACE, role, alias="support", release="r")
        self.observer.answered(choice, caller, status=status, seconds=0.1, empty=False)

    def look(self) -> ReleaseStatus:
        self.observer.write()
        self.world.observations = self.rows.content
        self.world.tick()
        return self.world.state.status


@pytest.mark.abuse(100)
@pytest.mark.parametrize("status", [500, 503])
def test_ten_thousand_bad_answers_to_one_of_five_keys_move_nothing(status: int) -> None:
    gateway, rng = Gateway(), random.Random(0)
    for _ in range(10_000):
        gateway.answer(KEYS[0], status)
    assert gateway.look() is ReleaseStatus.RUNNING
    assert gateway.rows.content.candidate.requests == 1
    for _ in range(4000):
        gateway.answer(rng.choice(KEYS[1:]))
        gateway.answer(rng.choice(KEYS[1:]), canary=False)
    assert gateway.look() is ReleaseStatus.RUNNING
    counted = gateway.rows.content.candidate
    assert counted.errors == 1
    assert gateway.rows.content.left_out >= 9_999
    assert gateway.world.state.step == 1, "the step is passed"


def test_without_the_cap_it_would_be_rolled_back() -> None:
    """What is tested here can fail: a lone key's bad answers do decide, and are said to."""
    lone = CallerShares(requests={KEYS[0]: 1000})
    gateway = Gateway(lone)
    for _ in range(1000):
        gateway.answer(KEYS[0], 503)
        gateway.answer(KEYS[0], canary=False)
    assert gateway.look() is ReleaseStatus.ROLLED_BACK
    assert gateway.rows.content.left_out == 0
    assert "one key" in lone.text()
    assert "that key alone decides" in lone.text()


def test_bad_answers_to_everybody_still_roll_back() -> None:
    gateway, rng = Gateway(), random.Random(0)
    for _ in range(2000):
        gateway.answer(rng.choice(KEYS), 503 if rng.random() < 0.2 else 200)
        gateway.answer(rng.choice(KEYS), canary=False)
    assert gateway.look() is ReleaseStatus.ROLLED_BACK


@pytest.mark.abuse(100)
@pytest.mark.parametrize("status", [400, 404, 408, 413, 422, 429, 499])
def test_what_a_caller_causes_is_nobodys_error(status: int) -> None:
    gateway = Gateway()
    for _ in range(10_000):
        for key in KEYS:
            gateway.answer(key, status)
    assert gateway.look() is ReleaseStatus.RUNNING
    assert gateway.rows.content == StepObservations()


def test_two_keys_together_are_held_to_both_their_shares() -> None:
    cap, counted = CallerCap(EQUAL), Counter()
    for turn in range(5000):
        callers = [*KEYS[:2], *([KEYS[2 + turn % 3]] if turn % 50 == 0 else [])]
        counted.update(caller for caller in callers if cap.admits(caller))
    bad = counted[KEYS[0]] + counted[KEYS[1]]
    assert bad <= 0.4 * counted.total() + 2
    assert counted.total() > 150


def test_new_keys_count_for_nothing_beside_known_ones() -> None:
    cap = CallerCap(EQUAL)
    assert not any(cap.admits(f"new-{number}") for number in range(10_000))
    assert all(cap.admits(key) for key in KEYS)


def test_a_lone_key_is_accepted_and_so_is_an_endpoint_without_a_past() -> None:
    lone = CallerCap(CallerShares(requests={"ada": ENOUGH}))
    assert all(lone.admits("ada") for _ in range(1000))
    assert not lone.admits("bob")
    fresh = CallerShares(requests={"ada": ENOUGH - 1})
    assert not fresh.known
    assert "too little traffic" in fresh.text()
    alone = CallerCap(fresh)
    assert all(alone.admits("bob") for _ in range(1000))
    both = CallerCap(fresh)
    counted = Counter(key for _ in range(500) for key in ("ada", "bob", "bob") if both.admits(key))
    assert counted["bob"] <= counted["ada"] + 1


@settings(deadline=None, max_examples=60)
@given(
    weights=st.lists(st.integers(1, 50), min_size=2, max_size=6),
    order=st.lists(st.integers(0, 5), max_size=400),
)
def test_nobody_ever_has_more_than_their_share(weights: list[int], order: list[int]) -> None:
    shares = CallerShares(requests={f"k{i}": 100 * weight for i, weight in enumerate(weights)})
    cap, counted, asked = CallerCap(shares), Counter(), Counter()
    for number in order:
        caller = f"k{number % len(weights)}"
        asked[caller] += 1
        counted[caller] += cap.admits(caller)
    whole = sum(shares.requests.values())
    for caller, number in counted.items():
        share = shares.requests[caller] / whole
        others = asked.total() - asked[caller]
        assert number <= share * (number + others) + 1.0


def test_traffic_as_before_is_counted_almost_whole() -> None:
    rng, weights = random.Random(1), [50, 30, 10, 9, 1]
    shares = CallerShares(requests=dict(zip(KEYS, (100 * w for w in weights), strict=True)))
    cap = CallerCap(shares)
    counted = sum(cap.admits(rng.choices(KEYS, weights)[0]) for _ in range(5000))
    assert counted > 4500
