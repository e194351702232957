"""The CUSUM of labelled answers: false alarms, delays, and what the reference's size does."""

from __future__ import annotations

import numpy as np
import pytest

from ztom.errors import ConfigError
from ztom.statistics.cusum import CusumDesign, characteristics, threshold

_RUNS, _WEEKS, _LABELS = 4000, 24, 100


def _alarms(reference: int, *, decay: float, seed: int) -> np.ndarray:
    """Week of the first alarm of each run, infinite without one; each run has its own reference."""
    rng = np.random.default_rng(seed)
    wrong = rng.binomial(reference, 0.1, _RUNS)
    shares = 0.1 + decay * np.arange(1, _WEEKS + 1)
    answers = rng.binomial(_LABELS, shares, (_RUNS, _WEEKS))
    first = np.full(_RUNS, np.inf)
    for run in range(_RUNS):
        design = CusumDesign(int(wrong[run]), reference)
        limit, statistic = threshold(design, [_LABELS] * _WEEKS), 0.0
        for week in range(_WEEKS):
            statistic = design.step(statistic, wrong=int(answers[run, week]), total=_LABELS)
            if statistic > limit:
                first[run] = week + 1
                break
    return first


def test_false_alarms_stay_below_alpha():
    assert 0.02 < np.isfinite(_alarms(1000, decay=0.0, seed=1)).mean() <= 0.05


def test_a_point_a_week_is_seen_within_nine_weeks():
    first = _alarms(1000, decay=0.01, seed=2)
    assert np.median(first) <= 7
    assert np.quantile(first, 0.9) <= 9


def test_taking_the_reference_for_the_truth_would_alarm_twice_as_often():
    """The threshold of a reference of a million, used with one of 1,000: what is avoided."""
    naive = threshold(CusumDesign(100_000, 1_000_000), [_LABELS] * _WEEKS)
    design = CusumDesign(100, 1000)
    assert threshold(design, [_LABELS] * _WEEKS) > naive
    false = characteristics(design, [_LABELS] * _WEEKS, decay=0.01, limit=naive).false_alarms
    assert false > 0.09
    smaller = CusumDesign(30, 300)
    false = characteristics(smaller, [_LABELS] * _WEEKS, decay=0.01, limit=naive).false_alarms
    assert false > 0.18


def test_what_it_says_of_itself_is_what_happens():
    promises = characteristics(CusumDesign(100, 1000), [_LABELS] * _WEEKS, decay=0.01)
    assert promises.false_alarms == pytest.approx(0.05, abs=0.006)
    assert (promises.median_delay, promises.late_delay) == (7, 9)
    fewer = characteristics(CusumDesign(100, 1000), [20] * _WEEKS, decay=0.01)
    assert fewer.median_delay > promises.median_delay
    assert fewer.false_alarms == pytest.approx(0.05, abs=0.006)


def test_the_same_seed_gives_the_same_threshold():
    design = CusumDesign(100, 1000)
    first = threshold(design, [_LABELS] * _WEEKS)
    assert threshold(CusumDesign(100, 1000), [_LABELS] * _WEEKS) == first
    assert threshold(CusumDesign(100, 1000, seed=1), [_LABELS] * _WEEKS) != first


def test_without_labels_nothing_moves():
    design = CusumDesign(100, 1000)
    assert design.step(1.5, wrong=0, total=0) == 1.5


@pytest.mark.parametrize(
    ("wrong", "total", "rise", "words"),
    [(0, 0, 0.05, "needs labels"), (5, 4, 0.05, "needs labels"), (9, 10, 0.6, "can rise by this")],
)
def test_impossible_designs_are_refused(wrong, total, rise, words):
    with pytest.raises(ConfigError, match=words):
        CusumDesign(wrong, total, rise=rise)


def test_labels_are_needed_for_each_window():
    with pytest.raises(ConfigError, match="each window of the horizon"):
        threshold(CusumDesign(100, 1000), [100] * 3)
