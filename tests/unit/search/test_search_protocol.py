from __future__ import annotations

import math

import numpy as np
import pytest
from search_helpers import SPACE, bowl, make_plan, make_trial

from ztom.errors import FactorError
from ztom.ledger import TrialKind
from ztom.search.protocol import (
    Evaluate,
    Stop,
    StudyState,
    WaitForTrials,
    choose,
    next_decision,
    noise_floor,
    trained_error,
    violations,
)
from ztom.search.space import SearchSpace

BASELINES = [make_trial(i, TrialKind.BASELINE, error=bowl((0.0, 0.0))) for i in range(2)]


def explored(count: int, *, kind: TrialKind = TrialKind.SEARCH):
    points = SPACE.startup_points(count, seed=1)
    return [make_trial(2 + i, kind, point, error=bowl(point)) for i, point in enumerate(points)]


def test_starts_with_the_trained_model_twice():
    plan = make_plan()
    expected = Evaluate(TrialKind.BASELINE, (0.0, 0.0))
    assert next_decision(plan, [], StudyState()) == expected
    running = make_trial(0, TrialKind.BASELINE, running=True)
    assert next_decision(plan, [running], StudyState()) == expected
    both = [running, make_trial(1, TrialKind.BASELINE, running=True)]
    assert next_decision(plan, both, StudyState()) == WaitForTrials()


def test_stops_when_the_trained_model_cannot_be_scored():
    failed = [make_trial(i, TrialKind.BASELINE, error=None) for i in range(2)]
    assert next_decision(make_plan(), failed, StudyState()) == Stop("baseline failed")
    one = [failed[0], BASELINES[1]]
    assert isinstance(next_decision(make_plan(), one, StudyState()), Evaluate)


def test_startup_then_search_then_confirm_then_stop():
    plan = make_plan(evaluations=4, startup=2)
    trials = list(BASELINES)
    kinds = []
    while isinstance(decision := next_decision(plan, trials, StudyState()), Evaluate):
        point = decision.factors
        if point is None:
            point = tuple(np.random.default_rng(len(trials)).uniform(-0.1, 0.1, 2))
        kinds.append(decision.kind)
        trials.append(make_trial(len(trials), decision.kind, point, error=bowl(point)))
    assert kinds[:4] == [TrialKind.STARTUP] * 2 + [TrialKind.SEARCH] * 2
    assert kinds[4:] == [TrialKind.CONFIRM] * 3
    assert decision == Stop("budget")
    assert len(trials) == plan.total


def test_startup_points_are_inside_different_and_repeatable():
    points = SPACE.startup_points(11, seed=3)
    assert points == SPACE.startup_points(11, seed=3)
    assert points != SPACE.startup_points(11, seed=4)
    assert len(set(points)) == 11
    assert all(SPACE.contains(point) for point in points)


def test_confirms_nothing_before_all_trials_ended():
    plan = make_plan(evaluations=3, startup=0)
    trials = [*BASELINES, *explored(2), make_trial(4, TrialKind.SEARCH, (0.1, 0.1), running=True)]
    assert next_decision(plan, trials, StudyState()) == WaitForTrials()


def test_convergence_ends_exploration():
    plan = make_plan(evaluations=100, startup=0)
    trials = [*BASELINES, *explored(4)]
    decision = next_decision(plan, trials, StudyState(converged=True))
    assert decision.kind is TrialKind.CONFIRM
    alone = next_decision(plan, BASELINES, StudyState(converged=True))
    assert alone == Stop("converged")


def test_interruption_comes_first():
    assert next_decision(make_plan(), [], StudyState(interrupted=True)) == Stop("interrupted")


@pytest.mark.parametrize(("elapsed", "kind"), [(5.0, "search"), (7.0, "confirm")])
def test_time_is_kept_for_confirmations(elapsed, kind):
    plan = make_plan(evaluations=100, startup=0, seconds=10.0)
    trials = [*BASELINES, *explored(3)]  # a second each
    assert next_decision(plan, trials, StudyState(elapsed_s=elapsed)).kind == kind


def test_time_that_is_up_ends_at_once():
    plan = make_plan(evaluations=100, startup=0, seconds=10.0)
    trials = [*BASELINES, *explored(3)]
    assert next_decision(plan, trials, StudyState(elapsed_s=10.0)) == Stop("time")


def test_no_more_exploration_after_a_confirmation():
    plan = make_plan(evaluations=100, startup=0)
    trials = [*BASELINES, *explored(3), make_trial(5, TrialKind.CONFIRM, (0.1, 0.1), error=1.2)]
    assert next_decision(plan, trials, StudyState()).kind is TrialKind.CONFIRM


def test_guardrails_decide_feasibility():
    plan = make_plan(max_increases=(("general", 0.1),))
    base = [make_trial(i, TrialKind.BASELINE, guardrails={"general": 1.0 + i}) for i in range(2)]
    assert violations(plan, base, {"general": 1.75}) == pytest.approx((0.15,))
    assert violations(plan, base, None) == (0.0,)
    kept = make_trial(2, TrialKind.SEARCH, (0.1, 0.0), error=0.9, guardrails={"general": 1.55})
    broken = make_trial(3, TrialKind.SEARCH, (0.0, 0.1), error=0.5, guardrails={"general": 1.7})
    assert choose(plan, [*base, kept, broken]).factors == kept.factors


def test_noise_floor_and_trained_error():
    pair = [make_trial(i, TrialKind.BASELINE, error=1.0 + i / 2) for i in range(2)]
    assert trained_error(pair) == 1.25
    assert noise_floor(pair) == 0.5
    assert noise_floor(pair[:1]) is None
    assert trained_error([]) is None


def test_nothing_better_is_the_trained_model():
    worse = make_trial(2, TrialKind.CONFIRM, (0.1, 0.0), error=5.0)
    choice = choose(make_plan(), [*BASELINES, worse])
    assert choice.factors == (0.0, 0.0)
    assert choice.error == trained_error(BASELINES)
    assert choose(make_plan(), []) is None


@pytest.mark.parametrize(
    ("lower", "upper"),
    [((0.1,), (0.1,)), ((math.nan,), (1.0,)), ((-math.inf,), (1.0,)), ((0.0, 0.0), (1.0, 1.0))],
)
def test_malformed_bounds_are_refused(lower, upper):
    with pytest.raises(FactorError):
        SearchSpace(("one",), lower, upper)


@pytest.mark.parametrize("factors", [(0.11, 0.0), (math.nan, 0.0), (math.inf, 0.0), (0.0,)])
def test_factors_outside_are_refused_and_never_repaired(factors):
    with pytest.raises(FactorError):
        SPACE.check(factors)
