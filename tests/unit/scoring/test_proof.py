"""From intervals to the decision of a proof: every branch, and never a pass without data."""

import itertools

import numpy as np
import pytest

from ztom.scoring.proof import (
    GuardrailOutcome,
    GuardrailResult,
    ProofDecision,
    ProofOutcome,
    decide_proof,
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
        (GOOD, [], False, ProofOutcome.IMPROVED, "whole interval is above zero"),
        (GOOD, [PASS, PASS], False, ProofOutcome.IMPROVED, "whole interval is above zero"),
        (GOOD, [PASS], True, ProofOutcome.NO_IMPROVEMENT, "factors found are all zero"),
        (GOOD, [PASS, FAIL], False, ProofOutcome.NO_IMPROVEMENT, "only 0.1 is allowed: failed"),
        (GOOD, [OPEN, FAIL], False, ProofOutcome.NO_IMPROVEMENT, "failed"),
        (GOOD, [PASS, OPEN], False, ProofOutcome.INCONCLUSIVE, "not decided"),
        (ZERO_INSIDE, [], False, ProofOutcome.INCONCLUSIVE, "the interval holds zero"),
        (ZERO_INSIDE, [FAIL], False, ProofOutcome.NO_IMPROVEMENT, "failed"),
        (BAD, [], False, ProofOutcome.NO_IMPROVEMENT, "nothing in the interval"),
        (BAD, [OPEN], False, ProofOutcome.NO_IMPROVEMENT, "nothing in the interval"),
        (_interval(0.0, 0.2), [], False, ProofOutcome.INCONCLUSIVE, "the interval holds zero"),
        (
            _interval(-0.2, 0.0),
            [],
            False,
            ProofOutcome.NO_IMPROVEMENT,
            "nothing in the interval",
        ),
        (_interval(0.1, 0.2, groups=0), [], False, ProofOutcome.INCONCLUSIVE, "there is no data"),
        (
            _interval(0.1, 0.2, groups=1),
            [],
            False,
            ProofOutcome.INCONCLUSIVE,
            "only 1 independent group",
        ),
        (_interval(0.1, 0.2, groups=5), [], False, ProofOutcome.INCONCLUSIVE, "needs at least 6"),
        (_interval(-0.2, -0.1, groups=5), [], False, ProofOutcome.INCONCLUSIVE, "needs at least 6"),
        (_interval(0.1, 0.2, groups=6), [], False, ProofOutcome.IMPROVED, "above zero"),
    ],
)
def test_every_branch(improvement, rails, zero, outcome, reason):
    decision = decide_proof(improvement, rails, factors_are_zero=zero)
    assert decision.outcome is outcome
    assert reason in decision.reasons[0]
    assert decision.improvement == improvement
    assert decision.guardrails == tuple(rails)
    assert ProofDecision.model_validate_json(decision.model_dump_json()) == decision


def test_a_change_is_told_by_its_direction():
    told = [decide_proof(each, [], factors_are_zero=False).reasons[0] for each in (GOOD, BAD)]
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
        decision = decide_proof(improvement, [first, second], factors_are_zero=zero)
        everything = (
            improvement.low > 0 and improvement.groups >= 6 and first is second is PASS and not zero
        )
        assert (decision.outcome is ProofOutcome.IMPROVED) == everything


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
    assert (
        decide_proof(improvement, [rail], factors_are_zero=False).outcome is ProofOutcome.IMPROVED
    )
    worse = measure_guardrail("other", better, scores, groups=groups, allowed_increase=0.2, seed=0)
    assert (
        decide_proof(improvement, [worse], factors_are_zero=False).outcome
        is ProofOutcome.NO_IMPROVEMENT
    )


def test_one_number_for_a_whole_set_proves_nothing():
    improvement = paired_bootstrap(
        WholeSetScores(1.0, 60), WholeSetScores(0.1, 60), groups=list(map(str, range(60))), seed=0
    )
    assert (
        decide_proof(improvement, [], factors_are_zero=False).outcome is ProofOutcome.INCONCLUSIVE
    )
