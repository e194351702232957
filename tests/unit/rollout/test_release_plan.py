"""What a release counts, and plans as people write them."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from release_world import CANARY_100, NOTHING, ONLY_ERRORS, SHORT, rows

from ztom.errors import ConfigError
from ztom.rollout.observations import (
    BOUNDARIES_S,
    BOUNDARY_RATIO,
    ArmCounts,
    Comparison,
    LatencyHistogram,
    StepObservations,
    boundary_at_or_above,
    bucket_of,
)
from ztom.rollout.plan import ReleaseCheck, ReleasePlan, parse_plan
from ztom.rollout.release import decide
from ztom.rollout.state import (
    ReleaseContext,
    ReleaseState,
    Traffic,
)

# Observations


def test_latencies_fall_into_their_buckets():
    assert BOUNDARIES_S[0] == pytest.approx(0.001)
    assert BOUNDARIES_S[-1] == pytest.approx(1000.0)
    for index, boundary in enumerate(BOUNDARIES_S):
        assert bucket_of(boundary) == index
        assert bucket_of(boundary * 1.0001) == index + 1
        assert boundary_at_or_above(boundary * 0.9999) == index
    assert boundary_at_or_above(1e9) == len(BOUNDARIES_S) - 1
    for wrong in (-0.1, math.nan):
        with pytest.raises(ConfigError, match="latency"):
            bucket_of(wrong)


@given(st.lists(st.floats(0.002, 900.0), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 1]))
def test_quantiles_are_as_exact_as_the_buckets(latencies, share):
    exact = float(np.quantile(latencies, share, method="inverted_cdf"))
    found = LatencyHistogram.of(latencies).quantile_s(share)
    assert exact / BOUNDARY_RATIO * 0.999 <= found <= exact * BOUNDARY_RATIO * 1.001


def test_quantiles_beyond_the_boundaries():
    assert LatencyHistogram().quantile_s(0.95) is None
    assert LatencyHistogram.of([1e-5] * 3).quantile_s(0.5) == BOUNDARIES_S[0]
    assert LatencyHistogram.of([5000.0] * 3).quantile_s(0.5) == BOUNDARIES_S[-1]


def test_the_tail_and_what_came_in_since():
    early, late = LatencyHistogram.of([0.1, 0.3, 2.0]), LatencyHistogram.of([0.3, 5.0])
    both = early + late
    assert both.since(early) == late
    assert early.since(both) == LatencyHistogram()
    above = both.above(boundary_at_or_above(1.0))
    assert (above.n, above.total) == (5, 2.0)
    assert both.above(bucket_of(0.3)).total == 2.0
    assert both.above(bucket_of(0.3) - 1).total == 4.0


def test_counts_that_cannot_be_are_refused():
    for wrong in (
        {"requests": 1, "errors": 1, "empty": 1},
        {"requests": -1},
        {"requests": True},
        {"requests": 1, "errors": 1, "latency": LatencyHistogram.of([1.0])},
        {"feedback": 1, "feedback_error": 1.5},
        {"feedback": 1, "feedback_error": math.nan},
        {"feedback_error": 0.1},
        {"latency": {"counts": [0, 1]}},
        {"retries": 1},
    ):
        with pytest.raises(ValidationError):
            ArmCounts.model_validate(wrong)
    with pytest.raises(ValidationError):
        Comparison(n=2, disagreement=2.5)


@given(st.lists(rows(), min_size=1, max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_rows_add_up_to_the_same_decision_in_any_order_and_through_json(parts, shuffler):
    shuffled = list(parts)
    shuffler.shuffle(shuffled)
    stored = [StepObservations.model_validate(json.loads(p.model_dump_json())) for p in shuffled]
    one, other = sum(parts, NOTHING), sum(stored, NOTHING)
    assert one == other
    state, traffic = ReleaseState(step=1, seconds=100.0, started=True), Traffic(canary_percent=25)
    decisions = [
        decide(ReleaseContext(plan=SHORT, observations=each, traffic=traffic), state)
        for each in (one, other)
    ]
    assert decisions[0] == decisions[1]


# Plans


def test_the_default_plan():
    plan = parse_plan()
    assert [str(step) for step in plan.steps] == [
        "shadow at 100 %",
        *(f"canary at {percent} %" for percent in (5, 25, 50, 100)),
    ]
    assert {step.min_requests for step in plan.steps} == {100}
    assert ReleaseCheck.FEEDBACK not in plan.steps[0].tests
    assert ReleaseCheck.DISAGREEMENT in plan.steps[0].tests
    assert ReleaseCheck.DISAGREEMENT not in plan.steps[1].tests
    assert plan.tests == 20
    assert plan.fail_alpha == pytest.approx(plan.alpha / 20)
    assert plan.pass_alpha == plan.alpha


def test_short_forms_and_what_is_said_once_for_all():
    plan = parse_plan(
        {
            "alpha": 0.01,
            "min_requests": 50,
            "checks": {"error_rate": 0.01, "latency": None},
            "steps": [
                {"shadow": 100},
                {"canary": 5.5, "min_requests": 200, "checks": {"empty": 0.2}},
                {"kind": "canary", "percent": 100, "checks": {"feedback": {"required": True}}},
            ],
        }
    )
    assert [step.min_requests for step in plan.steps] == [50, 200, 50]
    assert [step.checks.error_rate for step in plan.steps] == [0.01] * 3
    assert [step.checks.latency for step in plan.steps] == [None] * 3
    assert [step.checks.empty for step in plan.steps] == [0.03, 0.2, 0.03]
    assert plan.steps[1].percent == 5.5
    assert plan.steps[2].checks.feedback.required
    assert ReleasePlan.model_validate_json(plan.model_dump_json()) == plan
    assert parse_plan(plan.model_dump(mode="json")) == plan


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"steps": []}, "steps: "),
        ({"steps": 5}, "steps: "),
        ("canary", "the plan: has to be keys and values"),
        ({"steps": [5, CANARY_100]}, "steps.1: "),
        ({"steps": [{"canary": 5}, {"canary": 50}]}, "ends with a canary at 100 %"),
        ({"steps": [{"shadow": 100}]}, "ends with a canary at 100 %"),
        ({"steps": [CANARY_100]}, "no stable traffic"),
        ({"steps": [{"canary": 25}, {"canary": 5}, CANARY_100]}, "have to rise"),
        ({"steps": [{"canary": 25}, {"canary": 25}, CANARY_100]}, "have to rise"),
        ({"steps": [{"canary": 5}, {"shadow": 100}, CANARY_100]}, "shadow steps come first"),
        ({"steps": [{"canary": math.nan}, CANARY_100]}, "steps.1.percent"),
        ({"steps": [{"canary": 0}, CANARY_100]}, "steps.1.percent"),
        ({"steps": [{"canary": True}, CANARY_100]}, "steps.1.percent"),
        ({"steps": [{"canary": "5 %"}, CANARY_100]}, "steps.1.percent"),
        ({"steps": [{"canary": 5, "shadow": 5}, CANARY_100]}, 'one of {"shadow": PERCENT}'),
        ({"steps": [{"min_requests": 5}, CANARY_100]}, 'one of {"shadow": PERCENT}'),
        ({"steps": [{"canary": 5, "min_request": 5}, CANARY_100]}, "steps.1.min_request: "),
        ({"steps": [{"canary": 5, "min_requests": 0}, CANARY_100]}, "steps.1.min_requests"),
        ({"steps": [{"canary": 5, "min_seconds": 9e9}, CANARY_100]}, "is more than max_seconds"),
        ({"steps": [{"canary": 5, "checks": {"p95": 1}}, CANARY_100]}, "steps.1.checks.p95"),
        ({"steps": [{"canary": 5, "checks": 3}, CANARY_100]}, "steps.1.checks"),
        ({"checks": {"error_rate": 1.0}}, "steps.1.checks.error_rate"),
        ({"checks": {"latency": {"max_ratio": 0.9}}}, "max_ratio"),
        ({"checks": [1]}, "checks are not a mapping"),
        ({"checks": {**ONLY_ERRORS, "error_rate": None}}, "no check that is on"),
        ({"alpha": 0}, "alpha"),
        ({"alpha": math.nan}, "alpha"),
        ({"min_secs": 3}, "min_secs"),
    ],
)
def test_a_wrong_plan_is_refused_with_what_and_where(value, told):
    with pytest.raises(ConfigError) as caught:
        parse_plan(value)
    assert told in caught.value.reason
    assert "canary at 100" in caught.value.expected
    assert '{"shadow": 100}' in caught.value.fix
