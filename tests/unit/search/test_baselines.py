"""Checkpoints alone and the average in a search: outside the budget, on record, compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from search_helpers import ScriptedSampler, bowl, make_plan, make_trial, new_study, open_ledger
from search_results import make_result

from ztom.ledger import Ledger, TrialKind, TrialOutcome, TrialStatus
from ztom.scoring.proof import GuardrailResult
from ztom.search.baselines import ComparedModel
from ztom.search.conductor import Conductor
from ztom.search.existing import (
    BestExisting,
    Standing,
    best_checkpoint,
    best_on_search,
    compare_on_holdout,
    existing_models,
)
from ztom.search.outcome import SearchOutcome, build_outcome
from ztom.search.protocol import Plan, choose
from ztom.search.result import SearchResult, read_result
from ztom.search.space import Factors, SearchSpace
from ztom.search.step_gains import step_gains
from ztom.search.surrogate import Surrogate
from ztom.statistics.bootstrap import Interval
from ztom.statistics.scores import MeanScores

BASE, MIDDLE, MEAN = (-1.0, -1.0), (0.0, -1.0), (-1 / 3, -2 / 3)
MODELS = (
    ComparedModel("base", "checkpoint", BASE),
    ComparedModel("one", "checkpoint", MIDDLE),
    ComparedModel("two", "trained", (0.0, 0.0)),
    ComparedModel("average", "average", MEAN),
)
POINTS = [(0.02, 0.01), (-0.03, 0.05), (0.06, -0.02), (0.01, -0.08)]
WIDE = SearchSpace(("one", "two"), (-1.0, -1.0), (1.0, 1.0))
C = TrialKind.COMPARISON


def searched(
    ledger: Ledger, study: int, plan: Plan, sampler: ScriptedSampler, *, most: int = 100,
    broken: Sequence[Factors] = (),
) -> Conductor:  # fmt: skip
    conductor = Conductor(plan, ledger, study, sampler=sampler, on_event=lambda event: None)
    for _ in range(most):
        assignment = conductor.next()
        if assignment is None:
            break
        failed = assignment.factors in broken
        outcome = TrialOutcome(reason="NaN") if failed else TrialOutcome(error=error(assignment))
        conductor.complete(assignment.number, outcome)
    return conductor


def error(assignment) -> float:
    """Of checkpoints a number of their own, of all else the bowl."""
    known = {BASE: 0.9, MIDDLE: 1.3, MEAN: 1.1}
    return known.get(assignment.factors, bowl(assignment.factors))


def outcome_of(plan: Plan, conductor: Conductor) -> SearchOutcome:
    return build_outcome(plan, 1, conductor.trials, stop_reason="budget", seconds={})


def test_they_come_after_the_trained_model_outside_budget_and_bounds(tmp_path) -> None:
    plan, sampler = make_plan(models=MODELS), ScriptedSampler(POINTS)
    with open_ledger(tmp_path) as ledger:
        conductor = searched(ledger, new_study(ledger), plan, sampler)
    kinds = [trial.kind for trial in conductor.trials]
    assert kinds[:5] == [TrialKind.BASELINE] * 2 + [C] * 3
    assert [t.factors for t in conductor.trials[2:5]] == [BASE, MIDDLE, MEAN]
    explored = kinds.count(TrialKind.STARTUP) + kinds.count(TrialKind.SEARCH)
    assert (explored, plan.total) == (plan.evaluations, len(kinds))
    numbers = [number for number, _, _ in sampler.told]
    assert numbers == [0, 1, *range(5, len(kinds))]
    outcome = outcome_of(plan, conductor)
    assert (outcome.number_of_inferences, outcome.baseline_inferences) == (len(kinds) - 3, 3)


def test_what_lies_out_of_bounds_changes_nothing_of_the_search(tmp_path) -> None:
    with open_ledger(tmp_path) as ledger:
        plain = searched(ledger, new_study(ledger), make_plan(), ScriptedSampler(POINTS))
        plan = make_plan(models=MODELS)
        more = searched(ledger, new_study(ledger, "more"), plan, ScriptedSampler(POINTS))
    without = [t for t in more.trials if t.kind is not C]
    assert [t.factors for t in without] == [t.factors for t in plain.trials]
    before, after = outcome_of(make_plan(), plain), outcome_of(plan, more)
    assert after.sensitivity == before.sensitivity
    assert after.optimized_scaling_factors == before.optimized_scaling_factors
    assert after.optimized_model_error > 0.9  # the base alone is better, and is no blend of it


def test_inside_the_bounds_they_are_start_up_points_and_can_be_the_answer(tmp_path) -> None:
    plan, sampler = make_plan(models=MODELS, space=WIDE), ScriptedSampler(POINTS)
    with open_ledger(tmp_path) as ledger:
        conductor = searched(ledger, new_study(ledger), plan, sampler)
    assert [number for number, _, _ in sampler.told] == list(range(len(conductor.trials)))
    repeats = [t for t in conductor.trials if t.factors == BASE]
    assert [t.kind for t in repeats] == [C]  # once: a deterministic engine is not asked twice
    best = choose(plan, conductor.trials)
    assert best is not None
    assert (best.factors, best.error) == (BASE, 0.9)


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 6, 9])
def test_killed_anywhere_it_goes_on_and_evaluates_none_twice(tmp_path, most: int) -> None:
    plan = make_plan(models=MODELS)
    with open_ledger(tmp_path) as ledger:
        whole = searched(ledger, new_study(ledger), plan, ScriptedSampler(POINTS))
        study = new_study(ledger, "killed")
        searched(ledger, study, plan, ScriptedSampler(POINTS), most=most)
        resumed = searched(ledger, study, plan, ScriptedSampler(POINTS))
    expected = [(t.kind, t.factors, t.outcome.error) for t in whole.trials]
    assert [(t.kind, t.factors, t.outcome.error) for t in resumed.trials] == expected


def test_a_study_of_an_earlier_version_gets_them_when_it_goes_on(tmp_path) -> None:
    with open_ledger(tmp_path) as ledger:
        study = new_study(ledger)
        searched(ledger, study, make_plan(), ScriptedSampler(POINTS))
        resumed = searched(ledger, study, make_plan(models=MODELS), ScriptedSampler(POINTS))
        assert resumed.is_over
    assert [t.factors for t in resumed.trials if t.kind is C] == [BASE, MIDDLE, MEAN]
    assert [t.kind for t in resumed.trials].index(C) == len(resumed.trials) - 3


def test_a_checkpoint_that_fails_ends_nothing_and_says_why(tmp_path) -> None:
    plan = make_plan(models=MODELS)
    with open_ledger(tmp_path) as ledger:
        conductor = searched(
            ledger, new_study(ledger), plan, ScriptedSampler(POINTS), broken=[BASE]
        )
    assert conductor.stop_reason == "budget"
    assert conductor.trials[2].status is TrialStatus.FAILED
    existing = outcome_of(plan, conductor).existing
    assert [(m.name, m.search_error, m.reason) for m in existing] == [
        ("base", None, "NaN"),
        ("one", 1.3, None),
        ("two", pytest.approx(bowl((0.0, 0.0))), None),
        ("average", 1.1, None),
    ]
    best = best_on_search(existing)
    assert best is not None
    assert best.name == "two"  # the average is no checkpoint


def test_a_checkpoint_that_breaks_a_guardrail_is_not_the_best() -> None:
    plan = make_plan(models=MODELS, max_increases=(("general", 0.1),))
    rails = {"base": 2.0, "one": 1.05}
    trials = [make_trial(i, TrialKind.BASELINE, guardrails={"general": 1.0}) for i in range(2)]
    for number, (name, rail) in enumerate(rails.items(), start=2):
        factors = next(m.factors for m in MODELS if m.name == name)
        trials.append(make_trial(number, C, factors, error=0.5, guardrails={"general": rail}))
    models = existing_models(plan, trials)
    assert [m.keeps_guardrails for m in models] == [False, True, True, True]
    best = best_checkpoint(models)
    assert best is not None
    assert best.name == "one"


def compared(
    theirs: float, ours: float, *, stimuli: int = 60, rail: float | None = None, same: bool = False
) -> BestExisting:
    noise = np.random.default_rng(0).normal(0, 0.2, (2, stimuli))
    rails = []
    if rail is not None:
        rise = Interval(
            estimate=rail, low=rail, high=rail, confidence=0.9, resamples=9, groups=stimuli
        )
        rails = [GuardrailResult(name="general", allowed_increase=0.1, increase=rise)]
    return compare_on_holdout(
        BestExisting(name="00-base", kind="checkpoint", search_error=theirs, reason="none yet"),
        MeanScores(theirs + noise[0]),
        MeanScores(ours + noise[1]),
        groups=[str(i) for i in range(stimuli)],
        guardrails=rails,
        is_answer=same,
        seed=0,
    )


def test_only_a_blend_that_is_worse_beyond_chance_says_use_the_checkpoint() -> None:
    worse = compared(2.809, 3.029)
    assert worse.outcome is Standing.WORSE
    assert worse.advice == "checkpoint 00-base alone is better: use it"
    assert worse.improvement is not None
    assert worse.improvement.high < 0
    assert worse.reason.startswith(
        "the blend's error on the holdout is higher than checkpoint 00-base's by 0.2"
    )
    for better, expected in (
        (compared(2.809, 2.748 - 0.1), Standing.BETTER),
        (compared(2.809, 2.82), Standing.NOT_DISTINGUISHABLE),
        (compared(2.809, 3.5, stimuli=3), Standing.NOT_DISTINGUISHABLE),
        (compared(2.809, 2.809, same=True), Standing.NOT_DISTINGUISHABLE),
    ):
        assert (better.outcome, better.advice) == (expected, None)
    assert "3 independent groups" in compared(2.8, 3.5, stimuli=3).reason
    assert compared(2.8, 2.8, same=True).reason == "the search came to checkpoint 00-base itself"


def test_a_checkpoint_that_fails_a_guardrail_is_not_advised() -> None:
    assert compared(2.8, 3.1, rail=0.05).advice is not None
    assert compared(2.8, 3.1, rail=0.5).advice is None
    assert compared(2.8, 3.1, rail=0.5).outcome is Standing.WORSE


def test_without_a_holdout_nothing_is_claimed() -> None:
    trials = [make_trial(i, TrialKind.BASELINE) for i in range(2)]
    trials.append(make_trial(2, C, BASE, error=0.5))
    best = best_on_search(existing_models(make_plan(models=MODELS), trials))
    assert best is not None
    assert (best.name, best.search_error) == ("base", 0.5)
    assert (best.outcome, best.improvement, best.advice) == (None, None, None)


def test_a_steps_gain_is_what_is_lost_without_it() -> None:
    points = [*WIDE.startup_points(40, seed=0), (0.0, 0.0)]
    errors = [3 + (a - 0.5) ** 2 + 0.0 * b for a, b in points]
    surrogate = Surrogate(WIDE, points, errors, seed=0)
    first, second = step_gains(surrogate, (0.5, 0.25), ("base -> one", "one -> two"))
    assert first.name == "base -> one"
    assert first.gain == pytest.approx(0.25, abs=0.02)
    assert first.share == pytest.approx(1.0, abs=0.05)
    assert second.gain == pytest.approx(0.0, abs=0.02)
    nothing = step_gains(surrogate, (0.0, 0.0), ("base -> one", "one -> two"))
    assert [(g.gain, g.share) for g in nothing] == [(0.0, None), (0.0, None)]


def test_results_that_were_written_before_are_read_and_new_ones_come_back() -> None:
    content = make_result().model_dump(mode="json")
    new = ("existing", "best_existing", "step_gains", "step_warnings", "baseline_inferences")
    old = read_result({k: v for k, v in content.items() if k not in new}, source="old")
    assert (old.existing, old.best_existing, old.advice) == ((), None, None)
    result = make_result(best_existing=compared(2.8, 3.1), baseline_inferences=6)
    again = SearchResult.model_validate_json(result.model_dump_json())
    assert again == result
    assert again.advice == "checkpoint 00-base alone is better: use it"
