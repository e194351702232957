"""The rules that are tests: floor and difference of task suites, harm to frozen ones.

**Which errors are corrected for.** A suite can fail only by a test that shows that it is worse, and
one failing suite blocks: with twenty suites and no correction, half of all candidates that are as
good as the champion would fail. So these p-values are adjusted by Holm over all suites. To pass,
every suite has to be shown to be good: a candidate that is bad in one of them passes only if that
one's test errs, with probability alpha at most, whatever the others say. There is nothing to
correct (an intersection-union test: Berger 1982), and it would only cost items.

**A frozen suite** passes unless harm is shown, which a suite of ten items can hardly do. So it is
inconclusive where the drop that was seen, significant or not, is larger than the margin.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ztom.evaluation.gate.measure import ChampionComparison, Measured
from ztom.evaluation.gate.verdict import Finding, GateRule, Outcome
from ztom.evaluation.suites.suite import Layer, SuiteConfig
from ztom.statistics.proportions import Estimate, Quantity

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Threshold:
    """A quantity that has to reach a value.

    Attributes:
        rule: Rule of the gate that wants that.
        quantity: Quantity that was measured.
        value: Value that it has to reach, in units of the metric.
    """

    rule: GateRule
    quantity: Quantity
    value: float


def p_values(config: SuiteConfig, measured: Measured) -> dict[GateRule, float]:
    """The p-value, from 0 to 1, of each test that can fail the suite."""
    values = {
        threshold.rule: threshold.quantity.p_below(threshold.value)
        for threshold in _thresholds(config, measured)
    }
    compared = measured.compared
    if config.layer is Layer.FROZEN and compared and not compared.same_model:
        values[GateRule.HARM] = compared.harm_p
    return values


def tested(
    config: SuiteConfig,
    measured: Measured,
    raw: dict[GateRule, float],
    adjusted: dict[GateRule, float],
) -> Iterator[Finding]:
    """What the tests say.

    Args:
        config: Settings of the suite.
        measured: Quantities that were measured on the suite.
        raw: P-values that `p_values` gave.
        adjusted: P-values after Holm's correction for all suites.
    """
    for threshold in _thresholds(config, measured):
        yield _reached(config, measured, threshold, (raw[threshold.rule], adjusted[threshold.rule]))
    if measured.compared is None:
        return
    if measured.compared.same_model:
        yield _same_model(config)
    elif config.layer is Layer.FROZEN:
        yield _harm(
            config, measured, measured.compared, (raw[GateRule.HARM], adjusted[GateRule.HARM])
        )


def _thresholds(config: SuiteConfig, measured: Measured) -> Iterator[Threshold]:
    if config.layer is not Layer.TASK:
        return
    if config.floor > 0.0:
        yield Threshold(GateRule.FLOOR, measured.candidate, config.floor)
    if measured.compared and not measured.compared.same_model:
        yield Threshold(GateRule.DIFFERENCE, measured.compared.difference, -config.margin)


def _same_model(config: SuiteConfig) -> Finding:
    rule = GateRule.DIFFERENCE if config.layer is Layer.TASK else GateRule.HARM
    text = "the candidate is the champion (same digest): nothing to compare"
    return Finding(rule=rule, outcome=Outcome.PASS, reason=text)


def _reached(
    config: SuiteConfig, measured: Measured, threshold: Threshold, p: tuple[float, float]
) -> Finding:
    estimate = threshold.quantity.estimate(config.alpha)
    if estimate.low >= threshold.value - _ROUNDING:
        outcome = Outcome.PASS
    else:
        outcome = Outcome.FAIL if p[1] <= config.alpha else Outcome.INCONCLUSIVE
    if threshold.rule is GateRule.FLOOR:
        text = f"{config.metric} is {estimate.value:.4g} ({_bounds(config, estimate)}); "
        text += f"its floor is {config.floor:g}: "
    else:
        text = f"{config.metric} {_moved(estimate.value)} ({_bounds(config, estimate, sign='+')}); "
        text += f"{config.margin:g} below is allowed: "
    words = {Outcome.PASS: "good enough", Outcome.FAIL: "too low", Outcome.INCONCLUSIVE: "open"}
    if p[0] <= config.alpha < p[1]:
        words[Outcome.INCONCLUSIVE] = "too low on its own, open as one of several tests"
    needed = None
    if outcome is Outcome.INCONCLUSIVE:
        level = config.alpha if estimate.value >= threshold.value else _level(config, p)
        needed = _more_than(measured.n, threshold.quantity.needed(threshold.value, level))
    return Finding(
        rule=threshold.rule,
        outcome=outcome,
        reason=text + words[outcome] + _would_decide(outcome, needed),
        p_value=p[0],
        p_adjusted=p[1],
        items_needed=needed,
    )


def _harm(
    config: SuiteConfig, measured: Measured, compared: ChampionComparison, p: tuple[float, float]
) -> Finding:
    difference = compared.difference.estimate(config.alpha)
    several = "" if p[0] == p[1] else f", {p[1]:.2g} as one of several tests"
    text = (
        f"{compared.worse:,} of {measured.n:,} items got worse and {compared.better:,} better "
        f"(p = {p[0]:.2g}{several}); {config.metric} "
        f"{_moved(difference.value)} ({_bounds(config, difference, sign='+')}): "
    )
    needed = None
    if p[1] <= config.alpha:
        outcome, word = Outcome.FAIL, "harm is shown"
    elif difference.value < -config.margin - _ROUNDING:
        outcome, word = Outcome.INCONCLUSIVE, f"more than the margin of {config.margin:g}, but open"
        needed = _more_than(measured.n, compared.difference.needed(0.0, _level(config, p)))
    else:
        outcome, word = Outcome.PASS, "no harm is shown"
    return Finding(
        rule=GateRule.HARM,
        outcome=outcome,
        reason=text + word + _would_decide(outcome, needed),
        p_value=p[0],
        p_adjusted=p[1],
        items_needed=needed,
    )


def _level(config: SuiteConfig, p: tuple[float, float]) -> float:
    """What Holm's correction leaves of alpha to a test that is to fail its suite."""
    return config.alpha * p[0] / p[1]


def _bounds(config: SuiteConfig, estimate: Estimate, *, sign: str = "") -> str:
    confidence = f"{100.0 * (1.0 - config.alpha):.4g} %"
    return f"{confidence} bounds {estimate.low:{sign}.4g} and {estimate.high:{sign}.4g}"


def _moved(difference: float) -> str:
    if abs(difference) <= _ROUNDING:
        return "is the champion's"
    side = "below" if difference < 0.0 else "above"
    return f"is {abs(difference):.4g} {side} the champion's"


def _more_than(n: int, needed: int | None) -> int | None:
    """A plan that asks for fewer items than there are was too hopeful."""
    return None if needed is None else max(n + 1, needed)


def _would_decide(outcome: Outcome, needed: int | None) -> str:
    if outcome is not Outcome.INCONCLUSIVE:
        return ""
    if needed is None:
        return "; no number of items in sight would decide it"
    return f"; about {needed:,} items would decide it"
