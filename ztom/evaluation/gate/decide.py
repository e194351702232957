"""The gate: does the candidate ship? A pure function of results; nothing but a pass is a pass.

CI, the proof of a search and the rollout all ask this one. It compares the candidate with the
champion on the same items, by the rules of each suite's layer (`ztom.evaluation.gate.rules`), at
the level of each suite's alpha. Results that do not belong together are refused
(`EvaluationError`), which is no verdict at all. It does not correct for being asked again and again
on one suite with ever new candidates: a suite that has been looked at often enough wants fresh
items.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy

from ztom.errors import EvaluationError
from ztom.evaluation.gate.align import Aligned, Ints, Side, align, is_scored, scores
from ztom.evaluation.gate.measure import changed
from ztom.evaluation.gate.rules import Examined, examine, findings
from ztom.evaluation.gate.verdict import (
    Finding,
    Flip,
    GateRule,
    Outcome,
    SliceResult,
    SuiteVerdict,
    Verdict,
    worst,
)
from ztom.evaluation.runs.results import ModelRef, SuiteRun, ref_of
from ztom.evaluation.suites.suite import Suite
from ztom.statistics.proportions import Estimate, Quantity, holm
from ztom.statistics.resampling import metric
from ztom.version import __version__


def decide(
    candidate: Sequence[SuiteRun],
    champion: Sequence[SuiteRun] | None,
    suites: Sequence[Suite],
    *,
    base: Sequence[SuiteRun] | None = None,
    first: bool = False,
    seed: int = 0,
    created: str | None = None,
) -> Verdict:
    """Decide whether the candidate ships.

    Args:
        candidate: Results of the candidate, one per suite.
        champion: Results of what is shipped now; None is inconclusive unless ``first``.
        suites: Suites that both were run on.
        base: Results shown beside them where there are any; they decide nothing.
        first: Whether there is no champion yet: only floors, must-pass items and rates of probes
            decide.
        seed: Seed of every resampling and sign flip.
        created: Time for the record, ISO 8601; None leaves it out.

    Raises:
        EvaluationError: The results are not of the same items of the same suites, each side of one
            model; or there is a champion although ``first`` says that there is none.
    """
    if first and champion is not None:
        raise EvaluationError(
            "there are results of a champion although this is to be the first",
            fix="Leave one of them out.",
        )
    examined = [examine(suite, seed=seed) for suite in align(suites, candidate, champion, base)]
    judged = tuple(
        _suite_verdict(suite, findings(suite, adjusted, first=first))
        for suite, adjusted in zip(examined, _adjust(examined), strict=True)
    )
    outcome = worst(tuple(suite.outcome for suite in judged))
    return Verdict(
        outcome=outcome,
        reasons=_reasons(outcome, judged, first=first),
        suites=judged,
        candidate=candidate[0].model,
        champion=_model(champion),
        base=_model(base),
        first=first,
        seed=seed,
        versions={
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "ztom": __version__,
        },
        created=created,
    )


def _model(runs: Sequence[SuiteRun] | None) -> ModelRef | None:
    return runs[0].model if runs else None


def _adjust(examined: Sequence[Examined]) -> list[dict[GateRule, float]]:
    """Holm's correction for every test of every suite."""
    adjusted = iter(holm([p for suite in examined for p in suite.p_values.values()]))
    return [{rule: next(adjusted) for rule in suite.p_values} for suite in examined]


def _reasons(outcome: Outcome, judged: Sequence[SuiteVerdict], *, first: bool) -> tuple[str, ...]:
    """Failures, then what is open; for a pass, what was passed. Then what nobody should miss."""
    reasons = [
        f"{suite.suite.name}: {finding.reason}"
        for kind in (Outcome.FAIL, Outcome.INCONCLUSIVE)
        for suite in judged
        for finding in suite.findings
        if finding.outcome is kind
    ]
    if outcome is Outcome.PASS:
        reasons = [f"passed by every suite: {', '.join(suite.suite.name for suite in judged)}"]
    reasons += [
        f"{suite.suite.name}: {number:,} of {suite.n:,} items have an empty answer from the {who}"
        for suite in judged
        for who, number in suite.empty.items()
    ]
    if first:
        reasons.append("there is no champion yet: only floors, must-pass items and rates decided")
    return tuple(reasons)


def _suite_verdict(examined: Examined, by_rule: tuple[Finding, ...]) -> SuiteVerdict:
    aligned, measured = examined.aligned, examined.measured
    config = aligned.suite.config
    compared = measured.compared if measured else None

    def estimate(quantity: Quantity | None) -> Estimate | None:
        return quantity.estimate(config.alpha) if quantity else None

    return SuiteVerdict(
        suite=ref_of(aligned.suite),
        outcome=worst(tuple(finding.outcome for finding in by_rule)),
        findings=by_rule,
        alpha=config.alpha,
        floor=config.floor,
        margin=config.margin,
        n=len(aligned.items),
        clusters=len(set(aligned.cluster_of.tolist())),
        candidate=estimate(measured.candidate if measured else None),
        champion=estimate(compared.champion if compared else None),
        base=estimate(measured.base if measured else None),
        difference=estimate(compared.difference if compared else None),
        worse=compared.worse if compared else None,
        better=compared.better if compared else None,
        unscored={who: len(results) for who, results in examined.unscored.items()},
        empty=examined.empty,
        must_pass_failures=examined.must_pass_failures,
        rates=examined.rates,
        flipped=_flipped(aligned),
        slices=() if examined.unscored else _slices(aligned),
    )


def _flipped(aligned: Aligned) -> tuple[Flip, ...]:
    if aligned.champion is None:
        return ()
    pairs = zip(aligned.candidate.results, aligned.champion.results, strict=True)
    return tuple(
        Flip(
            id=ours.id,
            direction="worse" if ours.value < theirs.value else "better",
            champion=theirs.value,
            candidate=ours.value,
        )
        for ours, theirs in pairs
        if is_scored(ours) and is_scored(theirs) and ours.value != theirs.value
        if ours.value is not None and theirs.value is not None
    )


def _slices(aligned: Aligned) -> tuple[SliceResult, ...]:
    return tuple(_slice(aligned, name, chosen) for name, chosen in aligned.slices.items())


def _slice(aligned: Aligned, name: str, chosen: Ints) -> SliceResult:
    def value(side: Side) -> float:
        results = [side.results[index] for index in chosen]
        alone = np.arange(chosen.size)
        return float(metric(scores(aligned.suite.config, results, alone))[0])

    ours, theirs = aligned.candidate, aligned.champion
    worse, better = None, None
    if theirs is not None:
        worse, better = changed(ours.values[chosen], theirs.values[chosen])
    return SliceResult(
        name=name,
        n=chosen.size,
        candidate=value(ours),
        champion=None if theirs is None else value(theirs),
        worse=worse,
        better=better,
    )
