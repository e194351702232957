from __future__ import annotations

import numpy as np
import pytest
from search_helpers import SPACE, bowl

from ztom.search.surrogate import Surrogate


def fit(count: int, *, noise: float = 0.0) -> Surrogate:
    points = SPACE.startup_points(count, seed=5)
    rng = np.random.default_rng(0)
    errors = [bowl(point) + noise * float(rng.standard_normal()) for point in points]
    return Surrogate(SPACE, points, errors, seed=0)


def test_follows_the_surface_through_noise():
    surrogate = fit(60, noise=0.05)
    points = SPACE.startup_points(20, seed=9)
    mean, spread = surrogate.posterior(points)
    assert mean == pytest.approx([bowl(point) for point in points], abs=0.08)
    assert (spread > 0).all()
    assert (spread < 0.15).all()


def test_sensitivity_knows_which_factor_matters():
    points = SPACE.startup_points(40, seed=2)
    surrogate = Surrogate(SPACE, points, [10 * p[0] + 0.1 * p[1] for p in points], seed=0)
    first, second = surrogate.sensitivity((0.0, 0.0))
    assert first.effect == pytest.approx(2.0, rel=0.1)
    assert second.effect < 0.1
    assert first.values[0] == -0.1
    assert first.values[-1] == 0.1
    assert len(first.values) == len(first.errors) == len(first.spreads)
    assert list(first.errors) == sorted(first.errors)


def test_constant_errors_are_no_problem():
    surrogate = Surrogate(SPACE, [(0.0, 0.0), (0.1, 0.1)], [2.0, 2.0], seed=0)
    mean, spread = surrogate.posterior([(0.05, 0.0)])
    assert (mean[0], spread[0]) == (2.0, 0.0)


def test_long_studies_are_thinned_and_keep_their_best():
    surrogate = fit(700)
    mean, _ = surrogate.posterior([(0.05, -0.03)])
    assert mean[0] == pytest.approx(1.0, abs=0.02)


def test_repeats_itself():
    np.testing.assert_array_equal(
        fit(20, noise=0.1).posterior([(0.01, 0.02)])[0],
        fit(20, noise=0.1).posterior([(0.01, 0.02)])[0],
    )
