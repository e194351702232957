"""The paired bootstrap against SciPy's, against the truth, and at its edges."""

import numpy as np
import pytest
from scipy import stats

from ztom.errors import ScoringError
from ztom.statistics.bootstrap import (
    Interval,
    expanded_tail,
    fewest_groups,
    paired_bootstrap,
)
from ztom.statistics.scores import MacroF1Scores, MeanScores, RatioScores, WholeSetScores


def _names(n: int) -> list[str]:
    return [f"g{i}" for i in range(n)]


def _interval(before, after, groups=None, **options) -> Interval:
    groups = _names(before.per_stimulus.size) if groups is None else groups
    return paired_bootstrap(before, after, groups=groups, seed=0, **options)


def _scipy(statistic, *data, groups: int) -> tuple[float, float]:
    """SciPy's paired percentile interval at the tails that are expanded for ``groups``."""
    found = stats.bootstrap(
        data,
        statistic,
        paired=True,
        method="percentile",
        n_resamples=20_000,
        confidence_level=1 - 2 * expanded_tail(0.95, groups),
        rng=np.random.default_rng(5),
    )
    return found.confidence_interval.low, found.confidence_interval.high


def test_means_agree_with_scipy():
    generator = np.random.default_rng(0)
    before = generator.gamma(2.0, size=80)
    after = before - 0.1 + 0.3 * generator.normal(size=80)
    found = _interval(MeanScores(before), MeanScores(after), resamples=20_000)
    low, high = _scipy(
        lambda b, a, axis: np.mean(b, axis=axis) - np.mean(a, axis=axis), before, after, groups=80
    )
    width = high - low
    assert found.estimate == pytest.approx(np.mean(before - after), abs=1e-12)
    assert found.low == pytest.approx(low, abs=0.03 * width)
    assert found.high == pytest.approx(high, abs=0.03 * width)
    assert (found.groups, found.resamples, found.confidence) == (80, 20_000, 0.95)


def test_ratios_agree_with_scipy():
    generator = np.random.default_rng(1)
    tokens = generator.integers(1, 50, size=60).astype(float)
    before, after = (tokens * generator.gamma(s, size=60) for s in (3.0, 2.5))
    found = _interval(RatioScores(before, tokens), RatioScores(after, tokens), resamples=20_000)
    low, high = _scipy(
        lambda b, a, t, axis: (b.sum(axis) - a.sum(axis)) / t.sum(axis),
        before,
        after,
        tokens,
        groups=60,
    )
    assert found.low == pytest.approx(low, abs=0.03 * (high - low))
    assert found.high == pytest.approx(high, abs=0.03 * (high - low))


def _macro_f1(true: np.ndarray, predicted: np.ndarray) -> float:
    classes = np.union1d(true, predicted)
    hits = [np.sum((true == c) & (predicted == c)) for c in classes]
    seen = [np.sum(true == c) + np.sum(predicted == c) for c in classes]
    return float(np.mean([2 * h / s for h, s in zip(hits, seen, strict=True)]))


def test_macro_f1_is_recomputed_for_each_resample():
    generator = np.random.default_rng(2)
    true = generator.integers(3, size=40)
    wrong = generator.integers(3, size=40)
    before = np.where(generator.random(40) < 0.4, wrong, true)
    after = np.where(generator.random(40) < 0.1, wrong, true)
    found = _interval(MacroF1Scores(true, before, 3), MacroF1Scores(true, after, 3), resamples=3000)
    draws = np.random.default_rng(9).integers(40, size=(3000, 40))
    gains = [_macro_f1(true[d], after[d]) - _macro_f1(true[d], before[d]) for d in draws]
    tail = expanded_tail(0.95, 40)
    low, high = np.quantile(gains, [tail, 1 - tail])
    assert found.low == pytest.approx(low, abs=0.08 * (high - low))
    assert found.high == pytest.approx(high, abs=0.08 * (high - low))


def test_stimuli_of_a_group_are_drawn_together():
    generator = np.random.default_rng(3)
    per_group = generator.normal(size=20)
    before = MeanScores(np.repeat(per_group, 10))
    after = MeanScores(np.zeros(200))
    clustered = _interval(before, after, [f"g{i // 10}" for i in range(200)])
    of_groups = _interval(MeanScores(per_group), MeanScores(np.zeros(20)))
    assert clustered.groups == 20
    # Ten copies of each of twenty groups say no more than the twenty groups.
    assert clustered.low == pytest.approx(of_groups.low, abs=1e-9)
    assert clustered.high == pytest.approx(of_groups.high, abs=1e-9)
    assert _interval(before, after).high < 0.6 * clustered.high


def test_groups_of_different_sizes_weigh_by_their_stimuli():
    before = MeanScores(np.array([1.0, 1.0, 1.0, 4.0]))
    found = _interval(before, MeanScores(np.zeros(4)), ["a", "a", "a", "b"])
    assert (found.groups, found.estimate) == (2, 1.75)
    assert (found.low, found.high) == (1.0, 4.0)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(4)
    covered = 0
    for _ in range(400):
        before = MeanScores(generator.normal(loc=2.0, size=12))
        found = _interval(before, MeanScores(np.zeros(12)), resamples=1000)
        covered += found.low <= 2.0 <= found.high
    assert 0.925 <= covered / 400 <= 0.975  # the plain percentile interval covers 92 %


def test_the_seed_decides_and_the_block_size_does_not(monkeypatch):
    generator = np.random.default_rng(6)
    before, after = MeanScores(generator.normal(size=50)), MeanScores(generator.normal(size=50))
    groups = _names(50)
    first = paired_bootstrap(before, after, groups=groups, seed=1)
    assert paired_bootstrap(before, after, groups=groups, seed=1) == first
    assert paired_bootstrap(before, after, groups=groups, seed=2) != first
    monkeypatch.setattr("ztom.statistics.bootstrap._BLOCK_CELLS", 50 * 7)
    in_blocks = paired_bootstrap(before, after, groups=groups, seed=1)
    assert (in_blocks.low, in_blocks.high) == pytest.approx((first.low, first.high), abs=1e-12)


def test_nothing_to_resample_is_said():
    two = MeanScores(np.array([1.0, 2.0])), MeanScores(np.array([0.5, 1.0]))
    one_group = _interval(*two, ["a", "a"])
    assert (one_group.groups, one_group.resamples) == (1, 0)
    assert one_group.low == one_group.estimate == one_group.high == 0.75
    whole = _interval(WholeSetScores(1.0, 50), WholeSetScores(0.5, 50))
    assert (whole.groups, whole.resamples, whole.estimate) == (1, 0, 0.5)


def test_no_difference_is_an_interval_of_zero():
    scores = MeanScores(np.arange(30.0))
    found = _interval(scores, scores)
    assert (found.low, found.estimate, found.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("sizes", "options", "said"),
    [
        ((3, 2, 3), {}, "not of the same stimuli: got 3, 2 and 3"),
        ((3, 3, 2), {}, "not of the same stimuli"),
        ((0, 0, 0), {}, "there are no stimuli"),
        ((3, 3, 3), {"resamples": 99}, "too few resamples"),
        ((3, 3, 3), {"confidence": 1.0}, "confidence is out of range"),
        ((3, 3, 3), {"confidence": 0.0}, "confidence is out of range"),
    ],
)
def test_what_cannot_be_compared_is_an_error(sizes, options, said):
    before, after = MeanScores(np.zeros(sizes[0])), MeanScores(np.zeros(sizes[1]))
    with pytest.raises(ScoringError, match=said):
        _interval(before, after, _names(sizes[2]), **options)


def test_tails_expand_for_few_groups():
    assert expanded_tail(0.95, 1_000_000) == pytest.approx(0.025, abs=1e-6)
    tails = [expanded_tail(0.95, groups) for groups in (2, 5, 20, 100)]
    assert tails == sorted(tails)
    # By hand: t(0.975, 4) = 2.7764, times sqrt(5/4) = 3.1042, and Phi(-3.1042) = 0.000954.
    assert tails[1] == pytest.approx(0.000954, abs=1e-6)


@pytest.mark.parametrize(("confidence", "groups"), [(0.9, 5), (0.95, 6), (0.99, 8), (0.5, 2)])
def test_fewest_groups(confidence, groups):
    assert fewest_groups(confidence) == groups


def test_an_interval_survives_json_and_refuses_nonsense():
    found = _interval(MeanScores(np.arange(9.0)), MeanScores(np.zeros(9)))
    assert Interval.model_validate_json(found.model_dump_json()) == found
    with pytest.raises(ValueError, match="finite"):
        Interval(estimate=float("nan"), low=0, high=0, confidence=0.95, resamples=0, groups=0)
