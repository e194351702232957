"""How often a release errs, by simulation."""

import numpy as np
from release_world import CANARY_100, ONLY_ERRORS, World, arm

from ztom.rollout.observations import (
    StepObservations,
)
from ztom.rollout.plan import parse_plan
from ztom.rollout.state import (
    ReleaseStatus,
)

ERRORS_FORM = {
    "steps": [{"canary": 25}, {"canary": 100}],
    "checks": ONLY_ERRORS,
    "min_seconds": 0,
}
ERRORS = parse_plan(ERRORS_FORM)


# How often it errs, looked at after every few requests


def simulate(plan, generator, *, candidate, stable, most, every=10):
    """A release of two sides with these error rates; returns its state and candidate's requests."""
    world = World(plan, killed_at_each_tick=False)
    world.tick()
    requests = 0
    while requests < most and not world.state.finished:
        step = plan.steps[world.state.step]
        others = round(every * (100 - step.percent) / step.percent)
        more = StepObservations(
            candidate=arm(every, errors=int(generator.binomial(every, candidate))),
            stable=arm(others, errors=int(generator.binomial(others, stable))),
        )
        requests += every
        world.tick(more)
    return world.state, requests


def test_two_that_are_the_same_are_seldom_rolled_back():
    generator = np.random.default_rng(11)
    tight = parse_plan({**ERRORS_FORM, "checks": {**ONLY_ERRORS, "error_rate": 0.0}})
    runs = [simulate(tight, generator, candidate=0.1, stable=0.1, most=500)[0] for _ in range(80)]
    assert sum(state.status is ReleaseStatus.ROLLED_BACK for state in runs) <= 0.05 * len(runs)


def test_a_worsening_by_ten_points_is_caught_at_a_canary_of_25():
    generator = np.random.default_rng(12)
    runs = [simulate(ERRORS, generator, candidate=0.12, stable=0.02, most=1500) for _ in range(60)]
    caught = [state.status is ReleaseStatus.ROLLED_BACK for state, _ in runs]
    assert sum(caught) >= 0.95 * len(runs)
    assert np.median([requests for _, requests in runs]) < 600


def test_at_the_margin_both_mistakes_stay_within_alpha():
    # A risk of 30 %, so that few runs tell; bounds for a single look err in 40 % of these.
    plan = parse_plan(
        {
            "steps": [{"canary": 5, "min_requests": 1}, CANARY_100],
            "checks": {**ONLY_ERRORS, "error_rate": 0.03},
            "min_seconds": 0,
            "alpha": 0.3,
        }
    )
    generator = np.random.default_rng(3)
    runs = [
        simulate(plan, generator, candidate=0.33, stable=0.3, most=400, every=5)[0]
        for _ in range(60)
    ]
    assert sum(state.status is ReleaseStatus.ROLLED_BACK for state in runs) <= 0.3 * len(runs)
    assert sum(state.step > 0 for state in runs) <= 0.3 * len(runs)


def test_a_bad_candidate_is_seldom_passed_and_a_good_one_mostly():
    generator = np.random.default_rng(13)
    bad = [simulate(ERRORS, generator, candidate=0.1, stable=0.02, most=1000)[0] for _ in range(40)]
    assert sum(state.step > 0 for state in bad) <= 0.05 * len(bad)
    good = [
        simulate(ERRORS, generator, candidate=0.01, stable=0.02, most=3000)[0] for _ in range(20)
    ]
    assert sum(state.status is ReleaseStatus.PROMOTED for state in good) >= 19
