"""What a report and a terminal advise to try next."""

import pytest
from search_results import make_proof, make_result

from ztom.scoring.proof import GuardrailResult, ProofOutcome, decide_proof
from ztom.search.report.advice import advise, at_bound, stimuli_needed
from ztom.search.result import Proof, SearchResult
from ztom.statistics.bootstrap import Interval


def _advice(result: SearchResult) -> str:
    return " ".join(f"{advice.what} {advice.why}" for advice in advise(result))


def _interval(estimate: float, half: float, groups: int) -> Interval:
    return Interval(
        estimate=estimate,
        low=estimate - half,
        high=estimate + half,
        confidence=0.95,
        resamples=500,
        groups=groups,
    )


def _undecided(stimuli: int = 100, estimate: float = 0.05, half: float = 0.1) -> Proof:
    interval = _interval(estimate, half, stimuli)
    proof = make_proof(stimuli=stimuli)
    decision = decide_proof(interval, (), factors_are_zero=False)
    assert decision.outcome is ProofOutcome.INCONCLUSIVE
    return proof.model_copy(update={"decision": decision})


def test_an_undecided_proof_says_how_many_stimuli_it_would_take():
    advice = _advice(make_result(proof=_undecided()))
    assert "more holdout stimuli" in advice
    assert "about 400 stimuli instead of 100" in advice


def test_an_undecided_proof_without_a_gain_does_not_ask_for_more_stimuli():
    advice = _advice(make_result(proof=_undecided(estimate=-0.01)))
    assert "more holdout stimuli alone are unlikely" in advice


def test_a_gain_too_small_to_be_shown_is_said_to_be_so():
    advice = _advice(make_result(proof=_undecided(estimate=1e-6)))
    assert "Look for a larger gain." in advice


@pytest.mark.parametrize(
    ("estimate", "half", "groups", "needed"),
    [(0.05, 0.1, 100, 400), (0.1, 0.1, 100, 100), (0.0, 0.1, 100, None), (0.05, 0.1, 5, None)],
)
def test_stimuli_needed_grow_with_the_square_of_the_half_width(estimate, half, groups, needed):
    assert stimuli_needed(_interval(estimate, half, groups), 100) == needed


def test_only_a_factor_at_its_bound_asks_for_a_larger_limit():
    inside = make_result(factors=2, optimized_scaling_factors=(0.05, -0.09))
    outside = make_result(factors=2, optimized_scaling_factors=(0.05, -0.0999))
    assert at_bound(inside) == (False, False)
    assert at_bound(outside) == (False, True)
    assert "Raise the limit" not in _advice(inside)
    assert "Raise the limit, say from 0.1 to 0.2. 1 of 2 factors" in _advice(outside)


def test_zero_factors_ask_for_something_else():
    proof = make_proof(zero=True)
    advice = _advice(make_result(proof=proof, optimized_scaling_factors=(0.0,) * 4))
    assert "Try another error function" in advice


def test_a_failed_guardrail_is_named():
    increase = Interval(estimate=1, low=0.9, high=1.1, confidence=0.9, resamples=500, groups=50)
    rail = GuardrailResult(name="general", allowed_increase=0.1, increase=increase)
    proof = make_proof()
    decision = decide_proof(proof.decision.improvement, [rail], factors_are_zero=False)
    advice = _advice(make_result(proof=proof.model_copy(update={"decision": decision})))
    assert "these guardrails failed: general" in advice


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stop_reason": "interrupted"}, "Resume the study."),
        ({"stop_reason": "time"}, "Give it more time."),
        ({"noise_floor": 1.0}, "smaller than the noise floor"),
        ({"improvement": 1.0}, "fitted to the search set"),
    ],
)
def test_advice_follows_from_the_numbers(changes, said):
    usual = make_result(proof=make_proof())
    assert said not in _advice(usual)
    assert said in _advice(make_result(proof=make_proof(), **changes))


def test_failures_and_broken_guardrails_are_counted():
    usual = make_result()
    failed = [
        t.model_copy(update={"status": "failed", "error": None, "feasible": False})
        if t.number % 2
        else t
        for t in usual.trials
    ]
    broken = [t.model_copy(update={"feasible": False}) for t in usual.trials]
    assert "blends failed" in _advice(usual.model_copy(update={"trials": tuple(failed)}))
    assert "broke a guardrail" in _advice(usual.model_copy(update={"trials": tuple(broken)}))
