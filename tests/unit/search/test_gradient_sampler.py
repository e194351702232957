"""The sampler ``gradient`` on functions whose derivatives are known."""

from __future__ import annotations

import numpy as np
import pytest
from search_helpers import make_plan, new_study, open_ledger

from ztom.errors import ConfigError, SearchError
from ztom.ledger import TrialKind, TrialOutcome, TrialStatus
from ztom.search.conductor import Conductor
from ztom.search.outcome import build_outcome
from ztom.search.samplers.build import build_sampler, startup_count
from ztom.search.samplers.gradient import GradientSampler
from ztom.search.samplers.protocol import SamplerConfig, TakesGradients
from ztom.search.space import Factors, SearchSpace

CENTRE = np.array([0.05, -0.03])


def valley(factors: Factors, scale: float = 50.0) -> tuple[float, Factors]:
    """Smallest, 1.0, at `CENTRE`, and steeper along the second factor."""
    away = np.array(factors) - CENTRE
    curvature = scale * np.array([1.0, 9.0])
    return 1.0 + float(curvature @ away**2), tuple((2 * curvature * away).tolist())


def rail(factors: Factors) -> tuple[float, Factors]:
    """A guardrail's error; with 0.02 allowed, the first factor has to stay below 0.02."""
    return 3.0 + factors[0], (1.0, 0.0)


def make(space: SearchSpace | None = None, **options: object) -> GradientSampler:
    sampler = build_sampler(
        SamplerConfig(name="gradient", **options), space or make_plan().space, seed=0
    )
    assert isinstance(sampler, GradientSampler)
    return sampler


def answer(sampler, number: int, factors: Factors, function=valley, *, rails=()) -> float:
    error, gradient = function(factors)
    excess = [(rail(factors)[0] - 3.0 - 0.02, rail(factors)[1]) for _ in rails]
    sampler.take_gradients(number, gradient, tuple(slope for _, slope in excess))
    sampler.tell(number, factors, error=error, violations=tuple(value for value, _ in excess))
    return error


def drive(sampler, function=valley, *, rails=(), most: int = 100) -> list[Factors]:
    sampler.tell(0, (0.0, 0.0), error=function((0.0, 0.0))[0], violations=(-0.02,) * len(rails))
    points: list[Factors] = []
    while len(points) < most and (point := sampler.ask(len(points) + 1)) is not None:
        points.append(point)
        answer(sampler, len(points), point, function, rails=rails)
    return points


def test_it_begins_at_the_trained_model_and_finds_the_bottom_in_a_few_gradients():
    points = drive(make())
    assert points[0] == (0.0, 0.0)
    assert len(points) <= 10
    assert min(valley(p)[0] for p in points) < 1.0 + 1e-5


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_unit_of_the_error_does_not_matter(scale: float):
    points = drive(make(), lambda f: (scale * valley(f)[0], tuple(scale * g for g in valley(f)[1])))
    np.testing.assert_allclose(points, drive(make()), atol=1e-9)


def test_it_stays_inside_the_bounds_and_ends_on_them():
    space = SearchSpace(("one", "two"), (-0.1, -0.1), (0.03, 0.1))
    points = drive(make(space))
    assert all(space.contains(point) for point in points)
    best = min(points, key=lambda p: valley(p)[0])
    assert best == pytest.approx((0.03, -0.03), abs=1e-4)


def test_it_begins_at_the_best_of_the_models_that_are_there_already():
    sampler = make()
    for number, point in enumerate([(0.0, 0.0), (-0.1, 0.1), (0.04, 0.0), (0.05, -0.5)]):
        sampler.tell(number, point, error=valley(point)[0], violations=())
    assert sampler.ask(4) == pytest.approx((0.04, 0.0))


def test_it_begins_at_the_nearest_point_where_zero_is_outside():
    space = SearchSpace(("one", "two"), (0.02, -0.1), (0.1, 0.1))
    assert make(space).ask(1) == (0.02, 0.0)


def test_guardrails_are_constraints_and_a_margin_is_kept():
    points = drive(make(), rails=("rail",))
    best = min((p for p in points if p[0] <= 0.02), key=lambda p: valley(p)[0])
    assert best == pytest.approx((0.02 * 0.95, -0.03), abs=2e-3)
    assert len(points) <= 20


def test_a_flat_error_is_converged_at_once():
    assert drive(make(), lambda f: (1.0, (0.0, 0.0))) == [(0.0, 0.0)]


def test_it_turns_back_from_a_point_that_fails():
    sampler = make()
    sampler.tell(0, (0.0, 0.0), error=valley((0.0, 0.0))[0], violations=())
    best, number = 9.0, 0
    while (point := sampler.ask(number := number + 1)) is not None and number < 60:
        if point[0] > 0.06:
            sampler.tell(number, point, error=None, violations=())
        else:
            best = min(best, answer(sampler, number, point))
    assert number < 40
    assert best < 1.01


def test_asking_twice_without_an_answer_is_an_error():
    sampler = make()
    sampler.ask(1)
    with pytest.raises(SearchError, match="trial 1"):
        sampler.ask(2)


def test_no_startup_points_and_an_option_of_its_own():
    assert startup_count(SamplerConfig(name="gradient"), make_plan().space, 50) == 0
    assert SamplerConfig(name="gradient", mode="reverse").mode == "reverse"
    assert "mode" not in SamplerConfig(name="gp").model_dump()
    with pytest.raises((ConfigError, ValueError), match="mode is an option of the sampler grad"):
        SamplerConfig(name="gp", mode="reverse")


def run(conductor: Conductor, *, most: int = 1000) -> None:
    for _ in range(most):
        assignment = conductor.next()
        if assignment is None:
            return
        conductor.complete(assignment.number, outcome_of(assignment.factors, assignment))


def outcome_of(factors: Factors, assignment) -> TrialOutcome:
    error, gradient = valley(factors)
    level, slope = rail(factors)
    if not assignment.derivatives:
        return TrialOutcome(error=error + 1e-3, guardrails={"rail": level + 1e-3})
    return TrialOutcome(
        error=error,
        guardrails={"rail": level},
        gradient=gradient,
        guardrail_gradients={"rail": slope},
    )


def conductor_of(ledger, study: int, **plan) -> Conductor:
    sampler = make()
    assert isinstance(sampler, TakesGradients)
    rails = (("rail", 0.02),)
    return Conductor(
        make_plan(gradients=True, startup=0, evaluations=50, max_increases=rails, **plan),
        ledger,
        study,
        sampler=sampler,
        on_event=lambda event: None,
    )


def test_killed_anywhere_it_goes_on_with_the_same_trials(tmp_path):
    with open_ledger(tmp_path) as ledger:
        whole = new_study(ledger, "whole")
        run(conductor_of(ledger, whole))
        expected = [(t.kind, t.factors) for t in ledger.studies.trials(whole)]
        study = new_study(ledger, "killed")
        for finished in range(1, len(expected)):
            conductor = conductor_of(ledger, study)
            while sum(t.told is not None for t in conductor.trials) < finished:
                assignment = conductor.next()
                conductor.complete(assignment.number, outcome_of(assignment.factors, assignment))
            conductor.next()  # written down, never answered
        conductor = conductor_of(ledger, study)
        run(conductor)
    assert conductor.stop_reason == "converged"
    assert [(t.kind, t.factors) for t in conductor.trials] == expected


def test_gradients_are_counted_apart_and_the_best_points_are_confirmed(tmp_path):
    with open_ledger(tmp_path) as ledger:
        conductor = conductor_of(ledger, new_study(ledger))
        run(conductor)
        trials = ledger.studies.trials(1)
    plan = make_plan(gradients=True, max_increases=(("rail", 0.02),))
    outcome = build_outcome(plan, 1, trials, stop_reason="converged", seconds={})
    searched = [t for t in trials if t.kind is TrialKind.SEARCH]
    assert all(len(t.outcome.gradient) == 2 for t in searched)
    assert all(set(t.outcome.guardrail_gradients) == {"rail"} for t in searched)
    assert outcome.gradient_evaluations == len(searched)
    assert outcome.number_of_inferences == len(trials) - len(searched) <= 5
    confirmed = [t.factors for t in trials if t.kind is TrialKind.CONFIRM]
    assert 1 <= len(confirmed) <= 3
    feasible = [t for t in searched if t.number in outcome.feasible]
    assert confirmed == [
        t.factors for t in sorted(feasible, key=lambda t: t.outcome.error)[: len(confirmed)]
    ]
    assert outcome.optimized_scaling_factors == confirmed[0]
    assert outcome.optimized_scaling_factors == pytest.approx((0.019, -0.03), abs=2e-3)


def test_a_failed_gradient_is_a_trial_that_counts(tmp_path):
    with open_ledger(tmp_path) as ledger:
        conductor = conductor_of(ledger, new_study(ledger))
        while (assignment := conductor.next()) is not None:
            fails = assignment.number == 3
            outcome = outcome_of(assignment.factors, assignment)
            conductor.complete(
                assignment.number, TrialOutcome(reason="overflow") if fails else outcome
            )
        trials = ledger.studies.trials(1)
    assert trials[3].status is TrialStatus.FAILED
    assert conductor.stop_reason == "converged"
    best = min(t.outcome.error for t in trials if t.outcome.error is not None)
    assert best < valley((0.0, 0.0))[0]
