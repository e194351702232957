"""What every sampler has to do, and what only some do."""

from __future__ import annotations

import threading

import pytest
from search_helpers import SPACE, bowl

from ztom.errors import ConfigError, SearchError
from ztom.search.samplers.build import build_sampler, startup_count
from ztom.search.samplers.protocol import Sampler, SamplerConfig
from ztom.search.space import SearchSpace
from ztom.testing import SamplerConformance

NAMES = ["gp", "tpe", "cmaes", "random", "cobyla", "cobyqa"]
SEQUENTIAL = ["cobyla", "cobyqa"]


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def make(name: str, *, seed: int = 0, space: SearchSpace = SPACE) -> Sampler:
    return build_sampler(SamplerConfig(name=name), space, seed=seed)


def drive(sampler: Sampler, count: int, *, error=bowl, violation=None) -> list:
    """Ask and tell; a baseline first, as the protocol does."""
    guards = () if violation is None else (violation((0.0, 0.0)),)
    sampler.tell(0, (0.0, 0.0), error=error((0.0, 0.0)), violations=guards)
    points = []
    for number in range(1, count + 1):
        point = sampler.ask(number)
        if point is None:
            break
        points.append(point)
        guards = () if violation is None else (violation(point),)
        sampler.tell(number, point, error=error(point), violations=guards)
    sampler.close()
    return points


class Conformance(SamplerConformance):
    @pytest.fixture
    def make_sampler(self, name):
        return lambda space, seed: make(name, seed=seed, space=space)


@pytest.mark.parametrize("name", ["gp", "tpe", "random"])
class TestSeeded(Conformance):
    pass


@pytest.mark.parametrize("name", ["cmaes"])
class TestTwoFactorsAndMore(Conformance):
    least_dimensions = 2


@pytest.mark.parametrize("name", SEQUENTIAL)
class TestSequential(Conformance):
    seeded = False


@pytest.mark.parametrize(
    ("name", "evaluations", "close"),
    [("gp", 15, 0.002), ("cobyqa", 40, 0.002), ("cobyla", 40, 0.01), ("cmaes", 60, 0.02)],
)
def test_finds_the_smallest_error(name, evaluations, close):
    points = drive(make(name), evaluations)
    assert min(map(bowl, points)) < 1.0 + close


@pytest.mark.parametrize("name", ["gp", "cobyqa", "cobyla", "tpe", "cmaes"])
def test_learns_what_a_guardrail_forbids(name):
    """The optimum at 0.05 is forbidden: the first factor has to stay below 0.02."""

    def violation(point):
        return point[0] - 0.02

    points = drive(make(name), 40, violation=violation)
    late = points[len(points) // 2 :]
    feasible = [point for point in points if violation(point) <= 1e-6]
    assert min(map(bowl, feasible)) < 1.10
    assert sum(violation(point) <= 0.005 for point in late) > len(late) / 2


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_converges_and_says_so(name):
    points = drive(make(name), 500)
    assert len(points) < 300


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_threads_end(name):
    before = threading.active_count()
    sampler = make(name)
    sampler.ask(0)
    assert threading.active_count() == before + 1
    sampler.close()
    sampler.close()
    assert threading.active_count() == before
    assert sampler.ask(1) is None


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_asking_twice_without_an_answer_is_an_error(name):
    sampler = make(name)
    sampler.ask(0)
    with pytest.raises(SearchError, match="trial 0"):
        sampler.ask(1)
    sampler.close()


def test_a_single_factor_is_refused_by_name_where_it_cannot_be():
    space = SearchSpace(("only",), (-0.1,), (0.3,))
    with pytest.raises(ConfigError, match="two factors"):
        make("cmaes", space=space)


def test_only_those_that_ask_back_are_sequential(name):
    sampler = make(name)
    assert sampler.sequential == (name in SEQUENTIAL)
    sampler.close()


@pytest.mark.parametrize(
    ("name", "evaluations", "expected"),
    [("gp", 50, 4), ("gp", 5, 1), ("gp", 1, 0), ("cobyla", 50, 0), ("tpe", 50, 10)],
)
def test_startup_suits_the_sampler(name, evaluations, expected):
    assert startup_count(SamplerConfig(name=name), SPACE, evaluations) == expected
    assert startup_count(SamplerConfig(name=name, startup=3), SPACE, evaluations) == min(
        3, evaluations
    )
