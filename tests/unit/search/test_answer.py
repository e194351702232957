"""The answer: the posterior's minimiser, and only what was evaluated."""

from __future__ import annotations

import numpy as np
import pytest
from search_helpers import SPACE, bowl

from ztom.search.answer import (
    CONFIRMATIONS,
    Evaluation,
    choose_answer,
    is_deterministic,
    next_confirmation,
)
from ztom.search.space import SearchSpace

TRAINED = bowl(SPACE.trained)
OPTIMUM = (0.05, -0.03)


def explored(count, *, noise=0.0, violation=None):
    """Two baselines and points of the whole space."""
    rng = np.random.default_rng(0)
    points = [SPACE.trained] * 2 + list(SPACE.startup_points(count, seed=1))
    return tuple(
        Evaluation(
            point,
            bowl(point) + noise * float(rng.standard_normal()),
            () if violation is None else (violation(point),),
        )
        for point in points
    )


def confirmed(evaluations, *, noise=0.0, seed=0):
    """The evaluations with their confirmations."""
    rng = np.random.default_rng(seed)
    done = 0
    while (point := next_confirmation(SPACE, 0, evaluations, done)) is not None:
        error = bowl(point) + noise * float(rng.standard_normal())
        evaluations += (Evaluation(point, error, (), is_confirmation=True),)
        done += 1
    return evaluations, done


def test_the_minimiser_is_evaluated_and_is_the_answer():
    evaluations, done = confirmed(explored(12))
    answer = choose_answer(SPACE, 0, evaluations, TRAINED)
    assert answer.is_confirmation
    assert answer in evaluations
    assert answer.factors == pytest.approx(OPTIMUM, abs=0.004)
    assert done <= CONFIRMATIONS


def test_a_deterministic_engine_is_not_asked_the_same_point_twice():
    evaluations, done = confirmed(explored(20))
    assert is_deterministic(evaluations)
    points = [e.factors for e in evaluations[1:]]
    assert len(set(points)) == len(points)
    known = (*explored(20), Evaluation(evaluations[-1].factors, evaluations[-1].error, ()))
    assert next_confirmation(SPACE, 0, known, 0) is None
    best = min(known, key=lambda e: e.error)
    assert choose_answer(SPACE, 0, known, TRAINED) == best


def test_noise_is_confirmed_by_a_repeat_and_luck_is_no_answer():
    lucky = Evaluation((0.0, 0.04), 0.85, ())  # is 1.37
    evaluations, done = confirmed((*explored(30, noise=0.05), lucky), noise=0.05)
    assert not is_deterministic(evaluations)
    assert done == CONFIRMATIONS
    assert evaluations[-1].factors in {e.factors for e in evaluations[:-1]}
    answer = choose_answer(SPACE, 0, evaluations, TRAINED)
    assert answer.is_confirmation
    assert bowl(answer.factors) - 1.0 < 0.15 * (TRAINED - 1.0)


def test_guardrails_bound_the_minimiser():
    evaluations = explored(20, violation=lambda point: point[0] - 0.02)
    point = next_confirmation(SPACE, 0, evaluations, 0)
    assert 0.01 < point[0] <= 0.02
    assert point[1] == pytest.approx(-0.03, abs=0.005)
    broken = Evaluation((0.05, -0.03), 1.0, (0.03,), is_confirmation=True)
    answer = choose_answer(SPACE, 0, (*evaluations, broken), TRAINED)
    assert answer.is_feasible


def test_nothing_feasible_leaves_nothing_to_confirm():
    evaluations = explored(8, violation=lambda point: 1.0 if any(point) else 0.0)
    assert next_confirmation(SPACE, 0, evaluations, 0) is None
    assert choose_answer(SPACE, 0, evaluations, TRAINED) is None


def test_of_a_point_the_last_evaluation_counts():
    """The first one is what it was chosen by."""
    evaluations = (
        *explored(3, noise=0.1),
        Evaluation((0.1, 0.0), 0.1, (), is_confirmation=True),
        Evaluation((0.1, 0.0), 0.9, (), is_confirmation=True),
    )
    assert choose_answer(SPACE, 0, evaluations, TRAINED).error == 0.9


def test_an_interrupted_search_answers_with_what_the_posterior_trusts():
    points = explored(30, noise=0.05)
    answer = choose_answer(SPACE, 0, points, TRAINED)
    assert answer in points
    assert bowl(answer.factors) - 1.0 < 0.3 * (TRAINED - 1.0)


def test_a_trained_model_outside_the_bounds_is_compared_with_all_the_same():
    space = SearchSpace(("one", "two"), (0.01, -0.1), (0.1, 0.1))
    inside = [Evaluation(point, bowl(point), ()) for point in space.startup_points(10, seed=0)]
    baselines = [Evaluation(space.trained, TRAINED, ())] * 2
    point = next_confirmation(space, 0, (*baselines, *inside), 0)
    assert space.contains(point)
    assert point == pytest.approx(OPTIMUM, abs=0.01)
