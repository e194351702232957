"""Two samples of one source, or of two: vectors, categories, numbers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ztom.errors import ConfigError
from ztom.statistics.two_samples import discrepancy, higher, homogeneity


def _directions(rng: np.random.Generator, count: int, *, topics: int = 12, width: int = 24):
    """Unit vectors around a few directions, as embeddings are."""
    centers = np.random.default_rng(5).standard_normal((topics, width))
    vectors = centers[rng.integers(topics, size=count)] + 0.7 * rng.standard_normal((count, width))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _few_permutations(seed, moved):
    rng = np.random.default_rng(seed)
    reference, window = _directions(rng, 150), _directions(rng, 50)
    if moved:
        other = np.random.default_rng(6).standard_normal(24)
        window[:10] = other / np.linalg.norm(other) + 0.1 * rng.standard_normal((10, 24))
    return discrepancy(reference, window, seed=seed, least=0.05)


def test_unchanged_vectors_are_rejected_as_often_as_asked():
    p_values = [_few_permutations(seed, False) for seed in range(200)]
    assert 0.02 <= np.mean(np.array(p_values) <= 0.05) <= 0.08


def test_a_new_topic_of_a_fifth_is_seen():
    assert np.mean([_few_permutations(seed, True) <= 0.05 for seed in range(40)]) >= 0.8


def test_a_p_value_is_the_seeds_alone_and_as_small_as_is_asked_for():
    rng = np.random.default_rng(0)
    reference = _directions(rng, 100)
    window = np.ones((40, 24)) / 24**0.5 + 0.01 * rng.standard_normal((40, 24))
    p_value = discrepancy(reference, window, seed=3, least=1e-3)
    assert p_value == 1 / 4001  # none of so many permutations was as far apart
    assert discrepancy(reference, window, seed=3) == discrepancy(reference, window, seed=3)


@pytest.mark.parametrize("shapes", [((1, 4), (5, 4)), ((5, 4), (5, 3))])
def test_vectors_that_cannot_be_compared_are_refused(shapes):
    with pytest.raises(ConfigError, match="cannot be compared"):
        discrepancy(*map(np.ones, shapes), seed=0)


def test_shares_of_categories():
    before = Counter(card=500, loan=300, other=200)
    assert homogeneity(before, Counter(card=51, loan=29, other=20)) > 0.5
    assert homogeneity(before, Counter(card=20, loan=30, other=50)) < 1e-6
    assert homogeneity(before, Counter(card=40, loan=25, other=15, mortgage=20)) < 1e-6
    assert homogeneity(Counter(card=5), Counter(card=9)) == 1.0


def test_rare_categories_are_joined():
    """A hundred categories of one row each say nothing about their shares."""
    before = Counter({f"a{i}": 1 for i in range(100)}, common=900)
    now = Counter({f"b{i}": 1 for i in range(10)}, common=90)
    assert homogeneity(before, now) > 0.5


def test_no_rows_are_refused():
    with pytest.raises(ConfigError, match="need rows"):
        homogeneity(Counter(), Counter(card=1))


def test_numbers_that_are_higher():
    rng = np.random.default_rng(1)
    before = rng.lognormal(0.0, 1.0, 400)
    assert higher(before, rng.lognormal(0.5, 1.0, 400)) < 1e-4
    assert higher(before, rng.lognormal(-0.5, 1.0, 400)) > 0.99
