"""The rule of behavioural suites: every probe passes often enough.

The observed share of a probe's repeats has to be ``minimum_rate``: that is a rule about what was
seen, and one repeat shows little about the rest. So the verdict says with each rate what the data
exclude (Clopper-Pearson, `ztom.evaluation.statistics`), and a rate that is too low is a failure
where that is beyond chance, and inconclusive where it is not. With a minimum of 1, one failed
repeat is proof. A probe that flakes at 50 % passes r repeats at 1 with probability 2^-r.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ztom.evaluation.aligned import Aligned, is_scored
from ztom.evaluation.results import ItemResult
from ztom.evaluation.statistics import Proportion
from ztom.evaluation.suite import SuiteConfig
from ztom.evaluation.verdict import Finding, Outcome, ProbeRate, Rule, worst

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
    low = [rate for rate in rates if rate.outcome is not Outcome.PASS]
    outcome = worst(tuple(rate.outcome for rate in rates))
    if not low:
        least = min(rates, key=lambda rate: rate.rate.value)
        told = f"each of {len(rates):,} probes passed in at least {config.minimum_rate:g} of its "
        told += f"repeats; lowest: {_told(least)}, which shows a rate above {least.rate.low:.3g}"
        return Finding(rule=Rule.RATES, outcome=outcome, reason=told)
    told = f"{len(low):,} of {len(rates):,} probes passed in fewer than {config.minimum_rate:g} of "
    told += f"their repeats: {', '.join(_told(rate) for rate in low[:3])}"
    told += f" and {len(low) - 3:,} more" if len(low) > 3 else ""
    needed = [_needed(config, rate) for rate in low if rate.outcome is Outcome.INCONCLUSIVE]
    most = None if outcome is Outcome.FAIL else max((n for n in needed if n), default=None)
    told += f"; about {most:,} repeats would decide it" if most else ""
    return Finding(rule=Rule.RATES, outcome=outcome, reason=told, items_needed=most)


def _rate(config: SuiteConfig, ours: ItemResult, theirs: ItemResult | None) -> ProbeRate:
    value = ours.value or 0.0
    passed = round(value * ours.repeats)
    rate = Proportion(passed, ours.repeats).estimate(config.alpha)
    if reaches(value, config.minimum_rate):
        outcome = Outcome.PASS
    else:
        shown = rate.high < config.minimum_rate
        outcome = Outcome.FAIL if shown else Outcome.INCONCLUSIVE
    return ProbeRate(
        id=ours.id,
        outcome=outcome,
        passed=passed,
        repeats=ours.repeats,
        rate=rate,
        champion=theirs.value if theirs and is_scored(theirs) else None,
    )


def _needed(config: SuiteConfig, rate: ProbeRate) -> int | None:
    needed = Proportion(rate.passed, rate.repeats).needed(config.minimum_rate, config.alpha)
    return None if needed is None else max(rate.repeats + 1, needed)


def _told(rate: ProbeRate) -> str:
    return f"{rate.id} ({rate.passed} of {rate.repeats})"
