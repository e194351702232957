"""From intervals to what a proof says: improved, no improvement, or inconclusive.

A pure function of what was measured. Missing data never passes: with too few independent groups,
the answer is inconclusive, whatever the numbers look like.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from ztom.statistics.bootstrap import Interval, fewest_groups, paired_bootstrap
from ztom.statistics.scores import Scores


class ProofOutcome(StrEnum):
    """What the holdout says about the blend."""

    IMPROVED = "improved"
    NO_IMPROVEMENT = "no improvement"
    INCONCLUSIVE = "inconclusive"


class GuardrailOutcome(StrEnum):
    """What a guardrail's data says."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class GuardrailResult(BaseModel):
    """A guardrail's error, before and after.

    Attributes:
        name: Name of the guardrail in the configuration.
        allowed_increase: Largest rise of the error that is allowed, in units of the error.
        increase: Error after - error before; each of its bounds is a one-sided test's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    allowed_increase: float = Field(ge=0.0)
    increase: Interval

    @property
    def outcome(self) -> GuardrailOutcome:
        """Pass when the rise is certainly allowed, fail when it certainly is not."""
        if self.increase.groups < fewest_groups(self.increase.confidence):
            return GuardrailOutcome.INCONCLUSIVE
        if self.increase.high <= self.allowed_increase:
            return GuardrailOutcome.PASS
        if self.increase.low > self.allowed_increase:
            return GuardrailOutcome.FAIL
        return GuardrailOutcome.INCONCLUSIVE

    @property
    def reason(self) -> str:
        """The outcome in words."""
        rise = f"guardrail {self.name}: its error {_moved(self.increase, 'rose', 'fell')}"
        allowed = f"{self.allowed_increase:.4g} is allowed"
        if self.increase.groups < fewest_groups(self.increase.confidence):
            return f"guardrail {self.name}: {_too_few(self.increase)}"
        if self.outcome is GuardrailOutcome.PASS:
            return f"{rise}; {allowed}: passed"
        if self.outcome is GuardrailOutcome.FAIL:
            return f"{rise}; only {allowed}: failed"
        return f"{rise}; {allowed}, and the interval holds both: not decided"


class ProofDecision(BaseModel):
    """What a proof came to, why, and on what.

    Attributes:
        outcome: The decision.
        reasons: Why, in words, the deciding one first.
        improvement: Error before - error after on the holdout.
        guardrails: The guardrails' results.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    outcome: ProofOutcome
    reasons: tuple[str, ...]
    improvement: Interval
    guardrails: tuple[GuardrailResult, ...] = ()


def measure_guardrail(
    name: str,
    before: Scores,
    after: Scores,
    *,
    groups: Sequence[str],
    allowed_increase: float,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int,
) -> GuardrailResult:
    """Measure by how much a guardrail's error rose.

    Both bounds are those of one-sided tests at ``confidence``: together they are the two-sided
    interval at ``1 - 2 (1 - confidence)``, as in a test of non-inferiority.

    Args:
        name: Name of the guardrail in the configuration.
        before: Scores of the trained model on the guardrail's stimuli.
        after: Scores of the blend on the same stimuli.
        groups: The group of each stimulus.
        allowed_increase: Largest rise of the error that is allowed, in units of the error.
        resamples: Number of bootstrap resamples.
        confidence: One-sided, above 0.5.
        seed: Seeds the resampling.

    Raises:
        ScoringError: The scores cannot be compared; see `paired_bootstrap`.
    """
    increase = paired_bootstrap(
        after,
        before,
        groups=groups,
        resamples=resamples,
        confidence=1.0 - 2.0 * (1.0 - confidence),
        seed=seed,
    )
    return GuardrailResult(name=name, allowed_increase=allowed_increase, increase=increase)


def decide_proof(
    improvement: Interval,
    guardrails: Sequence[GuardrailResult],
    *,
    factors_are_zero: bool,
) -> ProofDecision:
    """Decide whether a blend has been shown to be better than the model as trained.

    Improved needs both: the whole interval above zero, and every guardrail passed. A guardrail that
    failed, an interval that lies at or below zero, and factors that change nothing are no
    improvement. Everything else, missing data included, is inconclusive.

    Args:
        improvement: Error before - error after on the holdout.
        guardrails: The guardrails' results.
        factors_are_zero: The best blend is the model as trained.
    """
    outcome, reasons = _decision(improvement, guardrails, factors_are_zero=factors_are_zero)
    return ProofDecision(
        outcome=outcome,
        reasons=tuple(reasons),
        improvement=improvement,
        guardrails=tuple(guardrails),
    )


def _decision(
    improvement: Interval, guardrails: Sequence[GuardrailResult], *, factors_are_zero: bool
) -> tuple[ProofOutcome, list[str]]:
    reasons = {
        kind: [rail.reason for rail in guardrails if rail.outcome is kind]
        for kind in GuardrailOutcome
    }
    change = f"the error on the holdout {_moved(improvement, 'fell', 'rose')}"
    if factors_are_zero:
        return ProofOutcome.NO_IMPROVEMENT, [
            "the best factors found are all zero: the model as trained stays"
        ]
    if reasons[GuardrailOutcome.FAIL]:
        return ProofOutcome.NO_IMPROVEMENT, [*reasons[GuardrailOutcome.FAIL], change]
    if improvement.groups < fewest_groups(improvement.confidence):
        return ProofOutcome.INCONCLUSIVE, [f"holdout: {_too_few(improvement)}"]
    if improvement.high <= 0.0:
        return ProofOutcome.NO_IMPROVEMENT, [f"{change}: nothing in the interval is an improvement"]
    if improvement.low <= 0.0:
        return ProofOutcome.INCONCLUSIVE, [
            f"{change}: the interval holds zero; more holdout stimuli would decide it"
        ]
    if reasons[GuardrailOutcome.INCONCLUSIVE]:
        return ProofOutcome.INCONCLUSIVE, [*reasons[GuardrailOutcome.INCONCLUSIVE], change]
    return ProofOutcome.IMPROVED, [
        f"{change}: the whole interval is above zero",
        *reasons[GuardrailOutcome.PASS],
    ]


def _moved(change: Interval, up: str, down: str) -> str:
    """A change in words, by its direction; the bounds turn with it."""
    percent = f"{100 * change.confidence:.4g} %"
    if change.estimate < 0:
        word, by, low, high = down, -change.estimate, -change.high, -change.low
    else:
        word, by, low, high = up, change.estimate, change.low, change.high
    return f"{word} by {by:.4g} ({percent} interval {low:.4g} to {high:.4g})"


def _too_few(interval: Interval) -> str:
    needed = fewest_groups(interval.confidence)
    if interval.groups == 0:
        return "there is no data"
    groups = f"{interval.groups} independent group{'s' if interval.groups > 1 else ''} of stimuli"
    return (
        f"only {groups}, where an interval at {100 * interval.confidence:.4g} % needs "
        f"at least {needed} to mean anything"
    )
