"""Levels and bounds of the gate's tests, by simulation."""

import itertools

import numpy as np
import pytest
from gate_helpers import make_suite, right
from gate_judging import finding, judge
from scipy import stats

from ztom.evaluation.gate.verdict import GateRule
from ztom.statistics.planning import items_needed, items_needed_paired
from ztom.statistics.proportions import (
    PairedDifference,
    holm,
    sign_flip,
)

# Statistics


@pytest.mark.parametrize("margin", [0.02, 0.1])
@pytest.mark.parametrize("gains", [0.0, 0.01, 0.1, 0.3])
def test_the_paired_test_keeps_its_level(margin, gains):
    """All outcomes of 60 items, of a candidate that is worse by exactly the margin."""
    n, losses = 60, gains + margin
    outcomes = [(b, c) for b, c in itertools.product(range(n + 1), repeat=2) if b + c <= n]
    passed = [
        [b, c, n - b - c] for b, c in outcomes if PairedDifference(b, c, n).p_above(-margin) <= 0.05
    ]
    chances = stats.multinomial.pmf(passed, n, [losses, gains, 1.0 - losses - gains])
    assert chances.sum() <= 0.05


def test_bounds_of_a_difference_are_where_its_tests_turn():
    for losses, gains, n in ((0, 0, 30), (3, 1, 50), (40, 55, 500), (30, 0, 30), (0, 30, 30)):
        difference = PairedDifference(losses, gains, n)
        found = difference.estimate(0.05)
        assert -1.0 <= found.low <= found.value <= found.high <= 1.0
        if found.low > -1.0:
            assert difference.p_above(found.low) == pytest.approx(0.05, abs=1e-4)
        if found.high < 1.0:
            assert difference.p_below(found.high) == pytest.approx(0.05, abs=1e-4)


def test_nothing_changed_leaves_what_may_have_stayed_unseen():
    assert PairedDifference(0, 0, 149).estimate(0.05).low == pytest.approx(0.05 ** (1 / 149) - 1)


def test_items_needed_see_the_difference_as_often_as_planned():
    rng = np.random.default_rng(0)
    n = items_needed_paired(0.0, discordance=0.1, margin=0.03, alpha=0.05)
    drawn = rng.multinomial(n, [0.05, 0.05, 0.9], size=400)
    passed = [PairedDifference(b, c, n).p_above(-0.03) <= 0.05 for b, c, _ in drawn.tolist()]
    assert np.mean(passed) == pytest.approx(0.8, abs=0.07)


def test_items_needed_where_hardly_anything_changes_pass_without_a_change():
    assert PairedDifference(0, 1, 100).needed(-0.02, 0.05) == 149
    assert PairedDifference(0, 0, 149).p_above(-0.02) <= 0.05


def test_items_needed_at_the_threshold_itself_are_not_in_sight():
    assert items_needed_paired(-0.02, discordance=0.1, margin=0.02, alpha=0.05) is None
    assert items_needed(1e-4, spread=0.5, spread_at_threshold=0.5, alpha=0.05, limit=9) is None
    suite = make_suite(100, layer="task", floor=0.7)
    found = judge(suite, right(100, wrong=range(30)), first=True)
    assert finding(found, GateRule.FLOOR).items_needed is None
    assert "no number of items in sight" in found.reasons[0]


def test_sign_flips_without_any_change_or_of_a_gain_show_no_harm():
    assert sign_flip(np.zeros(5), seed=0) == 1.0
    assert sign_flip(np.array([1.0, 2.0, 3.0]), seed=0) == 1.0
    assert sign_flip(np.array([-1.5, -2.5, -3.5]), seed=0) == pytest.approx(1 / 8, abs=0.01)


def test_holm_of_nothing_is_nothing():
    assert holm([]) == ()
