"""The gate's rules for one suite, each of them in words.

**task**: the metric's lower bound reaches the floor, and the lower bound of candidate - champion
reaches -margin. **frozen**: no harm is shown, and what was seen is within the margin
(`ztom.evaluation.gate.hypotheses`). **behavioural**: every probe passed in all of its repeats, or
is shown to pass in ``minimum_rate`` of them (`ztom.evaluation.gate.probes`). In every layer the
items marked ``must_pass`` are right: value 1, or for a probe ``minimum_rate`` of the repeats that
were seen.

A rule fails only on proof; what is neither shown to be right nor shown to be wrong is inconclusive
and says how many items would decide it. An item without a value makes its suite inconclusive,
unless the suite fails on the others already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ztom.evaluation.gate.align import Aligned, is_scored
from ztom.evaluation.gate.hypotheses import p_values, tested
from ztom.evaluation.gate.measure import Measured, measure
from ztom.evaluation.gate.probes import all_rates, rates_of, reaches
from ztom.evaluation.gate.verdict import Finding, GateRule, Outcome, ProbeRate
from ztom.evaluation.runs.results import ItemResult
from ztom.evaluation.suites.suite import Layer
from ztom.statistics.bootstrap import fewest_groups


@dataclass(frozen=True)
class Examined:
    """A suite after measuring, before its p-values are adjusted for those of other suites.

    Attributes:
        aligned: Results of the suite.
        measured: Measured quantities; None for behavioural suites and where an item has no value.
        rates: Rate of each probe that has a value (behavioural).
        p_values: P-value of each test that can fail the suite; none where there are too few items.
    """

    aligned: Aligned
    measured: Measured | None = None
    rates: tuple[ProbeRate, ...] = ()
    p_values: dict[GateRule, float] = field(default_factory=dict)

    @property
    def unscored(self) -> dict[str, tuple[ItemResult, ...]]:
        """Results without a value, of those models that have any."""
        sides = {"candidate": self.aligned.candidate, "champion": self.aligned.champion}
        return {who: side.unscored for who, side in sides.items() if side and side.unscored}

    @property
    def empty(self) -> dict[str, int]:
        """Number of items with an empty answer, by model, of those models that gave any."""
        sides = {"candidate": self.aligned.candidate, "champion": self.aligned.champion}
        return {who: side.empty for who, side in sides.items() if side and side.empty}

    @property
    def is_enough(self) -> bool:
        """Whether anything can be decided on so many items."""
        config = self.aligned.suite.config
        few_clusters = (
            self.measured is not None
            and not self.measured.counted
            and self.measured.clusters < fewest_groups(1.0 - 2.0 * config.alpha)
        )
        return len(self.aligned.items) >= config.minimum_n and not few_clusters

    @property
    def must_pass_failures(self) -> tuple[str, ...]:
        """Ids of items that have to be right, and are not, by what the candidate said."""
        config = self.aligned.suite.config
        least = config.minimum_rate if config.layer is Layer.BEHAVIOURAL else 1.0
        return tuple(
            item.id
            for item, result in zip(self.aligned.items, self.aligned.candidate.results, strict=True)
            if item.must_pass and is_scored(result) and not reaches(result.value, least)
        )


def examine(aligned: Aligned, *, seed: int) -> Examined:
    """Measure a suite and make its tests."""
    config = aligned.suite.config
    if config.layer is Layer.BEHAVIOURAL:
        return Examined(aligned, rates=tuple(rates_of(aligned)))
    draft = Examined(aligned)
    if not aligned.items or draft.unscored:
        return draft
    draft = Examined(aligned, measure(aligned, seed=seed))
    if draft.measured is None or not draft.is_enough:
        return draft
    return Examined(aligned, draft.measured, p_values=p_values(config, draft.measured))


def findings(
    examined: Examined, adjusted: dict[GateRule, float], *, first: bool
) -> tuple[Finding, ...]:
    """What each rule says.

    Args:
        examined: Suite after measuring.
        adjusted: ``p_values`` after Holm's correction for all suites.
        first: Whether there is no champion yet.
    """
    return tuple(_findings(examined, adjusted, first=first))


def _findings(
    examined: Examined, adjusted: dict[GateRule, float], *, first: bool
) -> Iterator[Finding]:
    config, measured = examined.aligned.suite.config, examined.measured
    if any(item.must_pass for item in examined.aligned.items):
        yield _must_pass(examined)
    if examined.aligned.champion is None:
        yield _no_champion(first=first)
    if examined.unscored:
        yield _unscored(examined)
    if examined.rates:
        yield all_rates(config, examined.rates)
    if not examined.is_enough:
        yield _too_few(examined)
    elif measured is not None:
        yield from tested(config, measured, examined.p_values, adjusted)


def _must_pass(examined: Examined) -> Finding:
    failures = examined.must_pass_failures
    number = sum(item.must_pass for item in examined.aligned.items)
    if failures:
        text = f"{len(failures)} of {number} items that must pass do not: {_some(failures)}"
        return Finding(rule=GateRule.MUST_PASS, outcome=Outcome.FAIL, reason=text)
    text = f"none of the {number} items that must pass fails"
    return Finding(rule=GateRule.MUST_PASS, outcome=Outcome.PASS, reason=text)


def _no_champion(*, first: bool) -> Finding:
    if first:
        text = "there is no champion yet, says the caller: nothing was compared"
        return Finding(rule=GateRule.CHAMPION, outcome=Outcome.PASS, reason=text)
    text = "there are no results of a champion to compare with"
    return Finding(rule=GateRule.CHAMPION, outcome=Outcome.INCONCLUSIVE, reason=text)


def _unscored(examined: Examined) -> Finding:
    n = len(examined.aligned.items)
    reasons = []
    for who, results in examined.unscored.items():
        problems = [f"{result.id}: {result.problem or 'no value'}" for result in results]
        reasons.append(
            f"{len(results):,} of {n:,} items have no score with the {who} "
            f"({_some(problems, '; ')})"
        )
    return Finding(rule=GateRule.SCORED, outcome=Outcome.INCONCLUSIVE, reason="; ".join(reasons))


def _too_few(examined: Examined) -> Finding:
    config, n = examined.aligned.suite.config, len(examined.aligned.items)
    if n < config.minimum_n:
        text = f"{n:,} items: fewer than {config.minimum_n:,} decide nothing"
        needed = config.minimum_n
    else:
        clusters = examined.measured.clusters if examined.measured else 0
        fewest = fewest_groups(1.0 - 2.0 * config.alpha)
        text = f"{clusters} independent clusters: fewer than {fewest} decide nothing"
        needed = -(-n * fewest // max(1, clusters))
    return Finding(
        rule=GateRule.ENOUGH, outcome=Outcome.INCONCLUSIVE, reason=text, items_needed=needed
    )


def _some(names: Sequence[str], separator: str = ", ") -> str:
    """The first three."""
    more = [f"and {len(names) - 3:,} more"] if len(names) > 3 else []
    return separator.join([*names[:3], *more])
