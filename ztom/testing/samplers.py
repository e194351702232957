"""What every sampler has to do, as tests to inherit.

import pytest
from ztom.testing import SamplerConformance

class TestMySampler(SamplerConformance):
@pytest.fixture
def make_sampler(self):
return lambda space, seed: MySampler(space, seed)
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from ztom.search.samplers.protocol import Sampler
from ztom.search.space import Factors, SearchSpace

#: From a space and a seed to a sampler.
MakeSampler = Callable[[SearchSpace, int], Sampler]

SPACE = SearchSpace(("one", "two"), (-0.1, -0.1), (0.1, 0.1))
_TRAINED = (0.0, 0.0)


def bowl(factors: Factors) -> float:
    """An error that is smallest, 1.0, at (0.05, -0.03)."""
    return 1.0 + 50 * ((factors[0] - 0.05) ** 2 + (factors[1] + 0.03) ** 2)


class SamplerConformance:
    """Tests of a fixture ``make_sampler``, which makes a `ztom.search.samplers.protocol.Sampler`.

    Attributes:
        seeded: Whether another seed gives other points.
        least_dimensions: The fewest factors that the sampler searches over.
    """

    seeded = True
    least_dimensions = 1

    def test_it_stays_inside_and_repeats_itself(self, make_sampler: MakeSampler) -> None:
        """The same answers in the same order give the same points: so a study is resumed."""
        points = self.drive(make_sampler(SPACE, 0), 15)
        assert points, "nothing was proposed"
        assert all(SPACE.contains(point) for point in points), points
        assert self.drive(make_sampler(SPACE, 0), 15) == points

    def test_another_seed_gives_other_points(self, make_sampler: MakeSampler) -> None:
        """Where something is random, it comes from the seed."""
        same = self.drive(make_sampler(SPACE, 0), 5) == self.drive(make_sampler(SPACE, 1), 5)
        assert same != self.seeded

    def test_points_differ(self, make_sampler: MakeSampler) -> None:
        """A point that is proposed again at once teaches nothing."""
        points = self.drive(make_sampler(SPACE, 0), 5)
        assert all(before != after for before, after in pairwise(points)), points

    def test_failed_trials_do_not_stop_it(self, make_sampler: MakeSampler) -> None:
        """A trial may end without an error to learn from."""
        sampler = make_sampler(SPACE, 0)
        sampler.tell(0, _TRAINED, error=1.5, violations=())
        for number in range(1, 8):
            point = _next(sampler, number)
            error = None if number % 2 else bowl(point)
            sampler.tell(number, point, error=error, violations=())
        assert SPACE.contains(_next(sampler, 8))
        sampler.close()

    def test_guardrails_are_taken(self, make_sampler: MakeSampler) -> None:
        """Every trial says how far each guardrail is broken; above 0 it is."""
        sampler = make_sampler(SPACE, 0)
        sampler.tell(0, _TRAINED, error=bowl(_TRAINED), violations=(-0.02, 0.0))
        for number in range(1, 6):
            point = _next(sampler, number)
            assert SPACE.contains(point)
            sampler.tell(number, point, error=bowl(point), violations=(point[0] - 0.02, 0.0))
        sampler.close()

    def test_a_few_factors(self, make_sampler: MakeSampler) -> None:
        """It works with as few factors as it can, in a space that is not symmetric."""
        count = self.least_dimensions
        space = SearchSpace(tuple(map(str, range(count))), (-0.1,) * count, (0.3,) * count)
        sampler = make_sampler(space, 0)
        sampler.tell(0, (0.0,) * count, error=1.0, violations=())
        for number in range(1, 6):
            point = _next(sampler, number)
            assert space.contains(point)
            sampler.tell(number, point, error=(point[0] - 0.2) ** 2, violations=())
        sampler.close()

    def test_a_trained_model_outside_the_bounds_is_left_out(
        self, make_sampler: MakeSampler
    ) -> None:
        """The protocol tells of factors of zero even where the space does not hold them."""
        space = SearchSpace(("one", "two"), (0.05, 0.05), (0.1, 0.1))
        sampler = make_sampler(space, 0)
        sampler.tell(0, _TRAINED, error=1.0, violations=())
        for number in range(1, 5):
            point = _next(sampler, number)
            assert space.contains(point)
            sampler.tell(number, point, error=bowl(point), violations=())
        sampler.close()

    def test_what_was_evaluated_counts_and_not_what_was_asked(
        self, make_sampler: MakeSampler
    ) -> None:
        """A library changed, say: the ledger has other factors than would be asked for now."""
        sampler = make_sampler(SPACE, 0)
        sampler.tell(0, _TRAINED, error=1.5, violations=())
        sampler.ask(1)
        sampler.tell(1, (0.05, -0.03), error=1.0, violations=())
        assert SPACE.contains(_next(sampler, 2))
        sampler.close()

    def test_open_points_differ_unless_it_is_sequential(self, make_sampler: MakeSampler) -> None:
        """Trials run side by side, and end in any order."""
        sampler = make_sampler(SPACE, 0)
        if not sampler.sequential:
            sampler.tell(0, _TRAINED, error=1.5, violations=())
            points = [_next(sampler, number) for number in (1, 2, 3)]
            assert len(set(points)) == 3, points
            for number in (3, 1, 2):
                point = points[number - 1]
                sampler.tell(number, point, error=bowl(point), violations=())
            assert SPACE.contains(_next(sampler, 4))
        sampler.close()

    def test_closing_twice_is_harmless(self, make_sampler: MakeSampler) -> None:
        """It may be closed before anything was asked, and after."""
        sampler = make_sampler(SPACE, 0)
        sampler.warm_up()
        sampler.close()
        sampler.close()
        sampler = make_sampler(SPACE, 0)
        sampler.ask(0)
        sampler.close()
        sampler.close()

    def drive(self, sampler: Sampler, count: int) -> list[Factors]:
        """Ask and tell; the trained model first, as the protocol does."""
        sampler.tell(0, _TRAINED, error=bowl(_TRAINED), violations=())
        points: list[Factors] = []
        for number in range(1, count + 1):
            point = sampler.ask(number)
            if point is None:
                break
            points.append(point)
            sampler.tell(number, point, error=bowl(point), violations=())
        sampler.close()
        return points


def _next(sampler: Sampler, number: int) -> Factors:
    point = sampler.ask(number)
    assert point is not None, f"it converged before trial {number}"
    return point
