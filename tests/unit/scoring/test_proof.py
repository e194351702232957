"""From intervals to a verdict: every branch, and never a pass without data."""

import itertools

import numpy as np
import pytest

from ztom.scoring.proof import (
    GuardrailOutcome,
    GuardrailResult,
    Outcome,
    Verdict,
    decide,
    measure_guardrail,
)
from ztom.statistics.bootstrap import Interval, paired_bootstrap
from ztom.statistics.scores import MeanScores, WholeSetScores


def _interval(low: float, high: float, *, groups: int = 100, confidence: float = 0.95) -> Interval:
    return Interval(
        estimate=(low + high) / 2,
        low=low,
        high=high,
        confidence=confidence,
        resamples=1000,
        groups=groups,
    )


def _rail(low: float, high: float, *, groups: int = 100, name: str = "general") -> GuardrailResult:
    increase = _interval(low, high, groups=groups, confidence=0.9)
    return GuardrailResult(name=name, allowed_increase=0.1, increase=increase)


GOOD, ZERO_INSIDE, BAD = _interval(0.1, 0.2), _interval(-0.1, 0.2), _interval(-0.2, -0.1)
PASS, FAIL, OPEN = _rail(-0.2, 0.1), _rail(0.11, 0.2), _rail(0.05, 0.2)


@pytest.mark.parametrize(
    ("rail", "outcome"),
    [
        (PASS, GuardrailOutcome.PASS),
        (FAIL, GuardrailOutcome.FAIL),
        (OPEN, GuardrailOutcome.INCONCLUSIVE),
        (_rail(0.1, 0.2), GuardrailOutcome.INCONCLUSIVE),
        (_rail(-0.2, 0.0, groups=4), GuardrailOutcome.INCONCLUSIVE),
        (_rail(0.2, 0.3, groups=4), GuardrailOutcome.INCONCLUSIVE),
        (_rail(-0.2, 0.0, groups=0), GuardrailOutcome.INCONCLUSIVE),
        (_rail(-0.2, 0.0, groups=5), GuardrailOutcome.PASS),
    ],
)
def test_a_guardrail_is_tested_one_sided(rail, outcome):
    assert rail.outcome is outcome
    assert rail.name in rail.reason


@pytest.mark.parametrize(
    ("improvement", "rails", "zero", "outcome", "reason"),
    [
        (GOOD, [], False, Outcome.IMPROVED, "whole interval is above zero"),
        (GOOD, [PASS, PASS], False, Outcome.IMPROVED, "whole interval is above zero"),
        (GOOD, [PASS], True, Outcome.NO_IMPROVEMENT, "factors found are all zero"),
        (GOOD, [PASS, FAIL], False, Outcome.NO_IMPROVEMENT, "only 0.1 is allowed: failed"),
        (GOOD, [OPEN, FAIL], False, Outcome.NO_IMPROVEMENT, "failed"),
        (GOOD, [PASS, OPEN], False, Outcome.INCONCLUSIVE, "not decided"),
        (ZERO_INSIDE, [], False, Outcome.INCONCLUSIVE, "the interval holds zero"),
        (ZERO_INSIDE, [FAIL], False, Outcome.NO_IMPROVEMENT, "failed"),
        (BAD, [], False, Outcome.NO_IMPROVEMENT, "nothing in the interval"),
        (BAD, [OPEN], False, Outcome.NO_IMPROVEMENT, "nothing in the interval"),
        (_interval(0.0, 0.2), [], False, Outcome.INCONCLUSIVE, "the interval holds zero"),
        (
            _interval(-0.2, 0.0),
            [],
            False,
            Outcome.NO_IMPROVEMENT,
            "nothing in the interval",
        ),
        (_interval(0.1, 0.2, groups=0), [], False, Outcome.INCONCLUSIVE, "there is no data"),
        (
            _interval(0.1, 0.2, groups=1),
            [],
            False,
            Outcome.INCONCLUSIVE,
            "only 1 independent group",
        ),
        (_interval(0.1, 0.2, groups=5), [], False, Outcome.INCONCLUSIVE, "needs at least 6"),
        (_interval(-0.2, -0.1, groups=5), [], False, Outcome.INCONCLUSIVE, "needs at least 6"),
        (_interval(0.1, 0.2, groups=6), [], False, Outcome.IMPROVED, "above zero"),
    ],
)
def test_every_branch(improvement, rails, zero, outcome, reason):
    verdict = decide(improvement, rails, factors_are_zero=zero)
    assert verdict.outcome is outcome
    assert reason in verdict.reasons[0]
    assert verdict.improvement == improvement
    assert verdict.guardrails == tuple(rails)
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict


def test_a_change_is_told_by_its_direction():
    told = [decide(each, [], factors_are_zero=False).reasons[0] for each in (GOOD, BAD)]
    assert told[0].startswith("the error on the holdout fell by 0.15 (")
    assert told[1].startswith("the error on the holdout rose by 0.15 (")
    assert all("-" not in reason.split("(")[0] for reason in told)
    assert "its error fell by" in _rail(-0.2, -0.1).reason


def test_improved_needs_everything():
    intervals = [_interval(*b, groups=g) for b in ((0.1, 0.2), (-0.1, 0.2)) for g in (0, 5, 50)]
    rails = [PASS, FAIL, OPEN, _rail(-1, 0, groups=0)]
    for improvement, first, second, zero in itertools.product(
        intervals, rails, rails, (False, True)
    ):
        verdict = decide(improvement, [first, second], factors_are_zero=zero)
        everything = (
            improvement.low > 0 and improvement.groups >= 6 and first is second is PASS and not zero
        )
        assert (verdict.outcome is Outcome.IMPROVED) == everything


def test_a_verdict_from_scores():
    generator = np.random.default_rng(0)
    groups = [f"g{i}" for i in range(60)]
    before = generator.gamma(2.0, size=60)
    scores = MeanScores(before)
    better = MeanScores(before - 0.3 + 0.1 * generator.normal(size=60))
    improvement = paired_bootstrap(scores, better, groups=groups, seed=0)
    rail = measure_guardrail("other", scores, better, groups=groups, allowed_increase=0.0, seed=0)
    assert rail.increase.estimate == pytest.approx(-improvement.estimate)
    assert rail.increase.confidence == pytest.approx(0.9)
    assert rail.increase.high - rail.increase.low < improvement.high - improvement.low
    assert decide(improvement, [rail], factors_are_zero=False).outcome is Outcome.IMPROVED
    worse = measure_guardrail("other", better, scores, groups=groups, allowed_increase=0.2, seed=0)
    assert decide(improvement, [worse], factors_are_zero=False).outcome is Outcome.NO_IMPROVEMENT


def test_one_number_for_a_whole_set_proves_nothing():
    improvement = paired_bootstrap(
        WholeSetScores(1.0, 60), WholeSetScores(0.1, 60), groups=list(map(str, range(60))), seed=0
    )
    assert decide(improvement, [], factors_are_zero=False).outcome is Outcome.INCONCLUSIVE
