"""What is selected for labels: a random part, and unsure requests of many kinds."""

from __future__ import annotations

import numpy as np
import pytest

from ztom.data.labelling import select
from ztom.errors import ConfigError

_RNG = np.random.default_rng(2)
_VECTORS = np.repeat(np.eye(10), 100, axis=0) + 0.01 * _RNG.standard_normal((1000, 10))
_SURE = _RNG.uniform(0.5, 1.0, 1000)


def test_parts_are_disjoint_sorted_and_as_large_as_asked():
    selection = select(_SURE, _VECTORS, random=50, chosen=100, seed=0)
    assert (len(selection.random), len(selection.chosen)) == (50, 100)
    assert not set(selection.random) & set(selection.chosen)
    assert len({*selection.chosen}) == 100
    assert all(np.diff(part).min() > 0 for part in (selection.random, selection.chosen))


def test_chosen_ones_are_unsure_and_of_many_kinds():
    sure = _SURE.copy()
    sure[:100] -= 0.4  # one kind is less sure than all others
    selection = select(sure, _VECTORS, random=0, chosen=50, seed=0)
    assert sure[selection.chosen].mean() < np.quantile(sure, 0.2)
    kinds = np.unique(selection.chosen // 100)
    assert 0 in kinds
    assert len(kinds) >= 8


def test_the_random_part_does_not_depend_on_how_sure_the_model_is():
    flipped = select(1.0 - _SURE, _VECTORS, random=50, chosen=10, seed=4)
    assert (select(_SURE, _VECTORS, random=50, chosen=10, seed=4).random == flipped.random).all()


def test_few_requests_are_all_taken():
    selection = select(_SURE[:30], _VECTORS[:30], random=20, chosen=20, seed=0)
    assert sorted([*selection.random, *selection.chosen]) == list(range(30))
    none = select(_SURE[:0], _VECTORS[:0], random=20, chosen=20, seed=0)
    assert len(none.random) == len(none.chosen) == 0


def test_impossible_selections_are_refused():
    with pytest.raises(ConfigError, match="cannot be selected"):
        select(_SURE, _VECTORS[:5], random=5, chosen=5, seed=0)
