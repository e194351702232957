"""The default sampler: where it asks, what it is given, and when it stops."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from search_helpers import SPACE, bowl

from ztom.search.samplers.gp import STARTUP_SCALE, GPSampler
from ztom.search.space import SearchSpace
from ztom.search.surrogate import Surrogate


def search(sampler, space, error, evaluations, *, startup=None, noise=0.0):
    """Baselines, start-up and the sampler's points; the points and why it ended."""
    rng = np.random.default_rng(5)
    given = [space.trained] * 2
    given += space.startup_points(startup or space.dimensions + 2, seed=0, scale=STARTUP_SCALE)
    points = []
    for number in range(evaluations + 2):
        point = given[number] if number < len(given) else sampler.ask(number)
        if point is None:
            return points, "converged"
        points.append(point)
        value = error(point) + noise * rng.standard_normal()
        sampler.tell(number, point, error=value, violations=())
    return points, "budget"


def test_it_finds_a_quadratic_and_stops():
    points, reason = search(GPSampler(SPACE, seed=0, tolerance=0.01), SPACE, bowl, 50)
    assert reason == "converged"
    assert len(points) < 20
    answer = Surrogate(SPACE, points, list(map(bowl, points)), seed=0).minimiser()
    assert bowl(answer) - 1.0 < 0.01 * (bowl(SPACE.trained) - 1.0)


def test_no_tolerance_never_stops():
    _, reason = search(GPSampler(SPACE, seed=0), SPACE, bowl, 20)
    assert reason == "budget"


@pytest.mark.parametrize("seed", range(3))
def test_noise_alone_is_no_gain_to_stop_at(seed):
    _, reason = search(
        GPSampler(SPACE, seed=seed, tolerance=0.01), SPACE, lambda _: 1.0, 20, noise=0.1
    )
    assert reason == "budget"


def test_no_point_is_asked_for_twice():
    """The optimum in a corner draws many draws to the same point."""

    def slope(point):
        return 1.0 + point[0] + point[1]

    points, _ = search(GPSampler(SPACE, seed=0), SPACE, slope, 16)
    assert len(set(points)) == len(points) - 1  # the two baselines
    assert min(map(slope, points)) == pytest.approx(0.8, abs=0.01)


def test_a_point_depends_on_what_was_told_and_its_number_only():
    """So a study that was killed, with trials open, goes on as it would have."""
    first, second = GPSampler(SPACE, seed=3), GPSampler(SPACE, seed=3)
    search(first, SPACE, bowl, 9)
    points, _ = search(second, SPACE, bowl, 9)
    assert [first.ask(n) for n in (11, 12, 13)] == [second.ask(n) for n in (11, 12, 13)]
    assert len({*points, *(first.ask(n) for n in (14, 15))}) == len(points) - 1 + 2


def test_guardrails_keep_it_where_they_hold():
    sampler = GPSampler(SPACE, seed=0)
    sampler.tell(0, SPACE.trained, error=bowl(SPACE.trained), violations=(-0.02,))
    late = []
    for number in range(1, 19):
        point = sampler.ask(number)
        sampler.tell(number, point, error=bowl(point), violations=(point[0] - 0.02,))
        late.append(point)
    assert sum(point[0] <= 0.021 for point in late[10:]) >= 6
    assert min(bowl(p) for p in late if p[0] <= 0.02) < bowl((0.02, -0.03)) + 0.005


def test_what_failed_is_left_alone():
    sampler = GPSampler(SPACE, seed=0)
    sampler.tell(0, SPACE.trained, error=1.2, violations=())
    failed = 0
    for number in range(1, 19):
        point = sampler.ask(number)
        broken = point[0] > 0.06
        failed += broken and number > 10
        error = None if broken else bowl(point)
        sampler.tell(number, point, error=error, violations=())
    assert failed <= 2


def test_hundreds_of_factors_are_searched():
    space = SearchSpace(tuple(map(str, range(96))), (-0.1,) * 96, (0.1,) * 96)

    def error(point):
        return 1.0 + sum((factor - 0.03) ** 2 for factor in point)

    points, _ = search(GPSampler(space, seed=0), space, error, 24, startup=20)
    assert all(before != after for before, after in pairwise(points[1:]))
    surrogate = Surrogate(space, points, list(map(error, points)), seed=0)
    assert error(surrogate.minimiser()) < error(space.trained)
