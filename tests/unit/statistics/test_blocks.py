"""Scores in blocks are those of the whole set, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from ztom.errors import ScoringError
from ztom.statistics.blocks import joined, stimulus_weights
from ztom.statistics.scores import (
    MacroF1Scores,
    MeanScores,
    RatioScores,
    Scores,
    WeightedScores,
    WholeSetScores,
)

PLACES = ((4, 0, 2), (5, 1, 3))
RNG = np.random.default_rng(0)
ERRORS, SUMS, TOKENS = RNG.gamma(2.0, size=6), RNG.gamma(5.0, size=6), np.arange(1.0, 7.0)


def mean(places) -> Scores:
    return MeanScores(ERRORS[list(places)])


def ratio(places) -> Scores:
    return RatioScores(SUMS[list(places)], TOKENS[list(places)])


def weighted(places) -> Scores:
    return WeightedScores((mean(places), ratio(places)), (0.3, 2.0))


@pytest.mark.parametrize("make", [mean, ratio, weighted])
def test_blocks_joined_are_the_whole(make):
    whole = make(range(6))
    together = joined([make(places) for places in PLACES], PLACES)
    assert np.array_equal(together.per_stimulus, whole.per_stimulus)
    assert np.array_equal(together.aggregate(), whole.aggregate())


@pytest.mark.parametrize("make", [mean, ratio])
def test_the_aggregate_is_the_mean_under_the_weights(make):
    scores = make(range(6))
    weights = stimulus_weights(scores)
    assert np.average(scores.per_stimulus, weights=weights) == pytest.approx(scores.aggregate()[0])


def test_only_sums_with_the_same_weights_have_weights():
    assert (
        stimulus_weights(WeightedScores((mean(range(6)), mean(range(6))), (1.0, 2.0))) is not None
    )
    assert stimulus_weights(weighted(range(6))) is None
    assert stimulus_weights(WholeSetScores(1.0, 6)) is None
    classes = np.array([0, 1])
    assert stimulus_weights(MacroF1Scores(classes, classes, 2)) is None


def test_what_is_known_of_the_whole_alone_is_refused():
    whole = WholeSetScores(1.0, 3)
    with pytest.raises(ScoringError, match="cannot be put together"):
        joined([whole, whole], PLACES)
