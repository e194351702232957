"""Which trials are stopped early, and that few of them are better than what stopped them."""

from __future__ import annotations

import numpy as np
import pytest

from ztom.search.racing import Incumbent, RacingConfig, make_race, margin_to


def test_small_sets_do_not_race():
    assert make_race(RacingConfig(), 255, seed=0) is None
    assert make_race(RacingConfig(from_stimuli=0), 10_000, seed=0) is None
    assert make_race(RacingConfig(from_stimuli=1), 100, seed=0) is None  # less than two batches


@pytest.mark.parametrize("count", [256, 300, 560, 5000])
def test_blocks_hold_every_stimulus_once_in_an_order_of_the_seed(count):
    race = make_race(RacingConfig(), count, seed=3)
    places = [place for block in race.blocks for place in block]
    assert sorted(places) == list(range(count))
    assert places != sorted(places)
    assert len(race.blocks) <= 8
    assert all(len(block) >= 64 for block in race.blocks[:-1])
    assert race == make_race(RacingConfig(), count, seed=3)
    assert race != make_race(RacingConfig(), count, seed=4)


def test_a_standing_is_the_paired_difference_and_its_error():
    incumbent = Incumbent(7, 1.0, (1.0, 2.0, 0.0, 4.0, 3.0, 1.0, 1.0, 1.0))
    errors, places = np.array([2.0, 5.0, 2.5]), (0, 3, 4)
    now = margin_to(errors, places, incumbent, weights=np.ones(3))
    differences = np.array([1.0, 1.0, -0.5])
    assert now.difference == pytest.approx(differences.mean())
    expected = differences.std(ddof=1) / np.sqrt(3) * np.sqrt(1 - 3 / 8)
    assert now.standard_error == pytest.approx(expected)
    assert not now.is_worse(3.0)


def test_weights_are_those_of_a_ratio_of_sums():
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 40, 50).astype(float)
    base, other = rng.gamma(2.0, size=50), rng.gamma(2.0, size=50)
    whole = (tokens @ base) / tokens.sum()
    incumbent = Incumbent(0, float(whole), tuple(base))
    now = margin_to(other, range(50), incumbent, weights=tokens)
    assert whole + now.difference == pytest.approx((tokens @ other) / tokens.sum())
    assert now.standard_error == 0.0  # everything was answered


def test_worse_blends_are_stopped_and_better_ones_go_on():
    """200 blends of each kind: three standard errors stop few that are as good."""
    rng = np.random.default_rng(1)
    race = make_race(RacingConfig(), 512, seed=0)
    stopped = {shift: 0 for shift in (-0.1, 0.0, 0.5)}
    for _ in range(200):
        base = rng.gamma(2.0, size=512)
        incumbent = Incumbent(0, float(base.mean()), tuple(base))
        noise = rng.normal(0, 1.0, 512)
        for shift in stopped:
            errors = base + noise - noise.mean() + shift
            for end in range(1, len(race.blocks)):
                places = [p for block in race.blocks[:end] for p in block]
                now = margin_to(errors[places], places, incumbent, weights=np.ones(len(places)))
                if now.is_worse(race.standard_errors):
                    stopped[shift] += 1
                    break
    assert stopped[-0.1] == 0
    assert stopped[0.0] <= 4
    assert stopped[0.5] >= 195
