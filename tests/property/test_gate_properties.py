"""Properties of the gate and its statistics that hold for every input."""

import numpy as np
import pytest
from gate_helpers import make_run, make_suite
from hypothesis import given, settings
from hypothesis import strategies as st

from ztom.evaluation.gate.decide import decide
from ztom.evaluation.gate.verdict import Outcome, Verdict
from ztom.statistics.planning import items_needed_paired
from ztom.statistics.proportions import (
    PairedDifference,
    Proportion,
    holm,
    mcnemar,
    sign_flip,
)

CHANCES = st.floats(0.0, 1.0)


@st.composite
def pairs(draw, most=300):
    n = draw(st.integers(1, most))
    losses = draw(st.integers(0, n))
    return losses, draw(st.integers(0, n - losses)), n


@given(st.lists(CHANCES, max_size=12), st.randoms(use_true_random=False))
def test_holm_is_never_below_raw_keeps_the_order_and_forgets_the_order_given(p_values, random):
    adjusted = holm(p_values)
    assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))
    assert all(a <= 1.0 for a in adjusted)
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    assert sorted(adjusted) == [adjusted[i] for i in order]
    shuffled = list(range(len(p_values)))
    random.shuffle(shuffled)
    assert holm([p_values[i] for i in shuffled]) == tuple(adjusted[i] for i in shuffled)


@given(st.integers(0, 200), st.integers(0, 200))
def test_more_losses_are_more_harm_and_more_gains_less(losses, gains):
    p = mcnemar(losses, gains)
    assert 0.0 <= p <= 1.0
    assert mcnemar(losses + 1, gains) <= p <= mcnemar(losses, gains + 1)


@given(pairs(), st.floats(-0.5, 0.5), st.floats(0.0, 0.3))
def test_evidence_falls_with_the_threshold(pair, threshold, step):
    difference = PairedDifference(*pair)
    assert difference.p_above(threshold) <= difference.p_above(threshold + step) + 1e-9
    assert difference.p_below(threshold) >= difference.p_below(threshold + step) - 1e-9


@given(pairs(), st.floats(-0.5, 0.5))
def test_a_gain_instead_of_a_loss_is_evidence_for_the_candidate(pair, threshold):
    losses, gains, n = pair
    if losses:
        better = PairedDifference(losses - 1, gains + 1, n)
        assert better.p_above(threshold) <= PairedDifference(*pair).p_above(threshold) + 1e-9


@given(pairs(), st.sampled_from([0.01, 0.05, 0.2]))
def test_bounds_hold_the_estimate_and_turn_with_the_sides(pair, alpha):
    losses, gains, n = pair
    found = PairedDifference(losses, gains, n).estimate(alpha)
    other = PairedDifference(gains, losses, n).estimate(alpha)
    assert -1.0 <= found.low <= found.value <= found.high <= 1.0
    assert (other.low, other.high) == (-found.high, -found.low)


@given(st.integers(1, 500), st.data(), st.sampled_from([0.01, 0.05, 0.2]))
def test_bounds_of_a_share_hold_it_and_rise_with_it(n, data, alpha):
    right = data.draw(st.integers(0, n))
    found = Proportion(right, n).estimate(alpha)
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0
    if right < n:
        more = Proportion(right + 1, n).estimate(alpha)
        assert more.low >= found.low
        assert more.high >= found.high


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.integers(0, 2))
def test_flips_of_whole_numbers_and_of_the_same_in_other_units_agree(sums, seed):
    whole = sign_flip(np.array(sums, dtype=float), seed=seed)
    scaled = sign_flip(np.array(sums, dtype=float) / 7.0, seed=seed)
    assert 0.0 < whole <= 1.0
    assert scaled == pytest.approx(whole, abs=0.03)


@given(st.floats(-0.2, 0.2), st.floats(0.1, 0.5), st.floats(0.0, 0.2))
def test_more_power_and_less_risk_need_more_items(difference, discordance, margin):
    def needed(**options):
        found = items_needed_paired(
            difference, discordance=discordance, margin=margin, **{"alpha": 0.05, **options}
        )
        return float("inf") if found is None else found

    assert needed() <= needed(power=0.9)
    assert needed() <= needed(alpha=0.01)


VALUES = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, 0.5]), st.sampled_from([0.0, 1.0]), st.integers(0, 9)),
    min_size=30,
    max_size=60,
)


def _judge(rows, order, *, layer, clustered):
    """The verdict on rows of (candidate, champion, cluster), given in some order."""
    rows = [(f"i{i:03}", *row) for i, row in enumerate(rows)]
    rows = [rows[i] for i in order]
    suite = make_suite(
        len(rows),
        layer=layer,
        ids=[row[0] for row in rows],
        clusters=[f"c{row[3]}" for row in rows] if clustered else None,
        floor=0.4 if layer == "task" else 0.0,
    )
    ours = make_run(suite, [row[1] for row in rows])
    theirs = make_run(suite, [row[2] for row in rows], "champion")
    return decide([ours], [theirs], [suite])


@settings(max_examples=25, deadline=None)
@given(
    VALUES, st.randoms(use_true_random=False), st.sampled_from(["task", "frozen"]), st.booleans()
)
def test_the_order_of_items_changes_nothing(rows, random, layer, clustered):
    order = list(range(len(rows)))
    given = _judge(rows, order, layer=layer, clustered=clustered)
    random.shuffle(order)
    assert _judge(rows, order, layer=layer, clustered=clustered) == given
    assert Verdict.from_bytes(given.to_bytes()) == given


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=30, max_size=60), st.integers(0, 1000))
def test_mending_an_item_never_takes_a_pass_away(values, index):
    suite = make_suite(len(values), layer="frozen", margin=0.1)
    champion = [1.0] * len(values)
    mended = list(values)
    mended[index % len(values)] = 1.0
    before, after = (
        decide([make_run(suite, each)], [make_run(suite, champion, "champion")], [suite]).outcome
        for each in (values, mended)
    )
    assert after is Outcome.PASS or before is not Outcome.PASS
