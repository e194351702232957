"""The rule of behavioural suites: every probe passes often enough.

A probe passes where all its repeats did, or where the lower bound of its rate (Clopper-Pearson,
`ztom.statistics.proportions`, at alpha) reaches ``minimum_rate``. It fails where the upper bound is
lower than that, and is inconclusive in between, with the repeats that would decide it. A probe
whose rate is exactly the minimum fails with a probability of alpha at most, and passes with alpha
or, where that is more, minimum_rate^repeats.

That all repeats pass is what a minimum of 1 asks for, and one failed repeat is its disproof. Lower
minima must not ask for more: 10 of 10 are no proof of 0.9 (the bound is 0.741) and pass. With one
repeat failed, 0.9 takes 46, and 0.8 takes 22. A probe that flakes at 50 % passes r repeats at 1
with probability 2^-r.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ztom.evaluation.gate.align import Aligned, is_scored
from ztom.evaluation.gate.verdict import Finding, GateRule, Outcome, ProbeRate, worst
from ztom.evaluation.runs.results import ItemResult
from ztom.evaluation.suites.suite import SuiteConfig
from ztom.statistics.proportions import Estimate, Proportion

_ROUNDING = 1e-9


def reaches(value: float | None, least: float) -> bool:
    """Whether a value is there and high enough, roundings aside."""
    return value is not None and value >= least - _ROUNDING


def rates_of(aligned: Aligned) -> Iterator[ProbeRate]:
    """The rate of each probe that has a value."""
    champion = aligned.champion.results if aligned.champion else (None,) * len(aligned.items)
    for ours, theirs in zip(aligned.candidate.results, champion, strict=True):
        if is_scored(ours):
            yield _rate(aligned.suite.config, ours, theirs)


def all_rates(config: SuiteConfig, rates: Sequence[ProbeRate]) -> Finding:
    """What the rates say together."""
    outcome = worst(tuple(rate.outcome for rate in rates))
    if outcome is Outcome.PASS:
        least = min(rates, key=lambda rate: rate.rate.value)
        text = f"each of {len(rates):,} probes passed in at least {config.minimum_rate:g} of its "
        text += f"repeats; lowest: {_told(least)}, which shows a rate above {least.rate.low:.3g}"
        return Finding(rule=GateRule.RATES, outcome=outcome, reason=text)
    chosen = [rate for rate in rates if rate.outcome is outcome]
    failed = outcome is Outcome.FAIL
    word = "passed in fewer than" if failed else "are not shown to pass in at least"
    text = f"{len(chosen):,} of {len(rates):,} probes {word} {config.minimum_rate:g} of "
    text += f"their repeats: {', '.join(_told(rate) for rate in chosen[:3])}"
    text += f" and {len(chosen) - 3:,} more" if len(chosen) > 3 else ""
    needed = [] if failed else [n for n in (_needed(config, rate) for rate in chosen) if n]
    most = max(needed, default=None)
    text += f"; about {most:,} repeats would decide it" if most else ""
    return Finding(rule=GateRule.RATES, outcome=outcome, reason=text, items_needed=most)


def _rate(config: SuiteConfig, ours: ItemResult, theirs: ItemResult | None) -> ProbeRate:
    value = ours.value or 0.0
    passed = round(value * ours.repeats)
    rate = Proportion(passed, ours.repeats).estimate(config.alpha)
    return ProbeRate(
        id=ours.id,
        outcome=_outcome(rate, config.minimum_rate),
        passed=passed,
        repeats=ours.repeats,
        rate=rate,
        champion=theirs.value if theirs and is_scored(theirs) else None,
    )


def _outcome(rate: Estimate, least: float) -> Outcome:
    """Outcome of a probe as the module says; a value of 1 is all repeats."""
    if rate.value == 1.0 or rate.low >= least - _ROUNDING:
        return Outcome.PASS
    return Outcome.FAIL if rate.high < least else Outcome.INCONCLUSIVE


def _needed(config: SuiteConfig, rate: ProbeRate) -> int | None:
    needed = Proportion(rate.passed, rate.repeats).needed(config.minimum_rate, config.alpha)
    return None if needed is None else max(rate.repeats + 1, needed)


def _told(rate: ProbeRate) -> str:
    return f"{rate.id} ({rate.passed} of {rate.repeats})"
