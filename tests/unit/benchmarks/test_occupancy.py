"""The simulation of customers' traffic: small cases by hand, and what holds for any."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.occupancy import (
    Request,
    Traffic,
    adapters,
    arrivals,
    dedicated,
    live_swap,
    to_zero,
)

HOUR = Traffic(2, awake_s=600, asleep_s=600, rate=1, service_s=1, hours=1)


def test_two_customers_by_hand() -> None:
    requests = [Request(0, 0, 10), Request(2, 1, 10), Request(5, 0, 10), Request(1000, 0, 10)]
    alone = dedicated(requests, HOUR, batch=4)
    assert (alone.engines, alone.engine_s, alone.busy_s) == (2, 7200, 15 + 10 + 10)
    assert alone.waits_s == (0, 0, 0, 0), "two of one customer at once"
    zero = to_zero(requests, idle_s=100, load_s=60)
    assert zero.waits_s == (55, 60, 60, 60), "three woke an engine; one came while it loaded"
    assert zero.engine_s == pytest.approx(3 * (60 + 10 + 100))
    assert zero.engines == 2
    swapped = live_swap(requests[:2], HOUR, swap_s=1)
    assert swapped.waits_s == (1, 1), "one engine would keep the second one waiting for 9 s"
    assert swapped.engines == 2
    shared = adapters(requests, HOUR, batch=4)
    assert (shared.engines, shared.waits_s) == (1, (0, 0, 0, 0))
    assert shared.busy_s == pytest.approx(15 + 10), "the first three at once"


def test_what_holds_for_any_traffic() -> None:
    traffic = Traffic(20, awake_s=300, asleep_s=1500, rate=0.5, service_s=1, hours=3)
    requests = arrivals(traffic, np.random.default_rng(3))
    assert [request.at for request in requests] == sorted(request.at for request in requests)
    expected = 20 * traffic.hours * 3600 * 0.5 * 300 / 1800
    assert len(requests) == pytest.approx(expected, rel=0.25)
    ways = [
        dedicated(requests, traffic, batch=16),
        to_zero(requests, idle_s=120, load_s=30),
        live_swap(requests, traffic, swap_s=0.2),
        adapters(requests, traffic, batch=16),
    ]
    for way in ways:
        assert 0 < way.busy_s <= way.engine_s
        assert len(way.waits_s) == len(requests)
        assert min(way.waits_s) >= 0
    assert ways[3].engine_s < ways[2].engine_s < ways[0].engine_s
    assert ways[1].engine_s < ways[0].engine_s
