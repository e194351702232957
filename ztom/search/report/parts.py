"""The parts of the report that are more than a number: rows, groups of texts, named charts."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from ztom.pages.formats import name
from ztom.scoring.proof import GuardrailOutcome, GuardrailResult
from ztom.search.report import charts
from ztom.search.report.advice import LOW_STEP, at_bound
from ztom.search.result import (
    GroupStep,
    Proof,
    SearchResult,
    SensitivityEntry,
    StimulusChange,
    TrialEntry,
)
from ztom.statistics.bootstrap import fewest_groups

_MOST_TEXTS = 20
_PHASES = ("start", "sampler", "blend", "generate", "score", "overhead")
_RAIL_STATES = {
    GuardrailOutcome.PASS: "good",
    GuardrailOutcome.FAIL: "bad",
    GuardrailOutcome.INCONCLUSIVE: "open",
}


@dataclass(frozen=True)
class FactorRow:
    """One factor with its bar."""

    name: str
    value: float
    low: float
    high: float
    at_bound: bool
    bar: Markup


@dataclass(frozen=True)
class HeatCell:
    """One factor of the heat map; its strength is a share of the largest bound, 0 to 1."""

    value: float
    strength: str
    side: str
    at_bound: bool


@dataclass(frozen=True)
class HeatRow:
    """One step with the factors of its groups."""

    step: str
    cells: tuple[HeatCell, ...]


@dataclass(frozen=True)
class Curve:
    """The error along one factor."""

    entry: SensitivityEntry
    drawing: Markup


@dataclass(frozen=True)
class TextGroup:
    """Stimuli whose answers became better, or worse, the largest change first."""

    title: str
    state: str
    changes: tuple[StimulusChange, ...]
    left_out: int


@dataclass(frozen=True)
class RailRow:
    """A guardrail's result on the holdout; no drawing where an interval would mean nothing."""

    result: GuardrailResult
    state: str
    drawing: Markup | None


@dataclass(frozen=True)
class GroupStepRow:
    """A group of tensors; no drawing where nothing was to change."""

    step: GroupStep
    low: bool
    drawing: Markup | None


@dataclass(frozen=True)
class RailDuringSearch:
    """A guardrail's error as the search saw it."""

    name: str
    trained: float
    best: float


def text_groups(changes: tuple[StimulusChange, ...]) -> tuple[TextGroup, ...]:
    """The stimuli that improved and those that worsened; a group that is empty is left out."""
    better = [c for c in changes if c.error_after < c.error_before]
    worse = [c for c in changes if c.error_after > c.error_before]
    better.sort(key=lambda c: c.error_after - c.error_before)
    worse.sort(key=lambda c: c.error_before - c.error_after)
    groups = (("Most improved", "good", better), ("Most worsened", "bad", worse))
    return tuple(
        TextGroup(title, state, tuple(members[:_MOST_TEXTS]), max(len(members) - _MOST_TEXTS, 0))
        for title, state, members in groups
        if members
    )


def factor_rows(result: SearchResult) -> list[FactorRow]:
    """One row for each factor, in the chain's order."""
    return [
        FactorRow(step, value, low, high, is_at_bound, charts.factor_bar(value, low, high))
        for step, value, (low, high), is_at_bound in zip(
            result.factor_names,
            result.optimized_scaling_factors,
            result.factor_bounds,
            at_bound(result),
            strict=True,
        )
    ]


def heat_rows(result: SearchResult) -> list[HeatRow]:
    """The best factors as steps by groups; empty where a step has one factor."""
    most = max((max(-low, high) for low, high in result.factor_bounds), default=1.0)
    held = iter(at_bound(result))
    return [
        HeatRow(step, tuple(_heat_cell(value, most, next(held)) for value in values))
        for step, values in result.factor_grid
    ]


def _heat_cell(value: float, most: float, is_at_bound: bool) -> HeatCell:
    strength = min(1.0, abs(value) / most) if most > 0 else 0.0
    return HeatCell(value, f"{strength:.2f}", "plus" if value >= 0 else "minus", is_at_bound)


def curves(result: SearchResult) -> list[Curve]:
    """The factor with the largest effect first."""
    scale = charts.sensitivity_scale(result.sensitivity)
    ordered = sorted(result.sensitivity, key=lambda entry: -entry.effect)
    return [Curve(entry, charts.sensitivity_chart(entry, scale)) for entry in ordered]


def legend(result: SearchResult) -> list[tuple[Markup, str]]:
    """What occurs in the convergence chart, with its mark."""
    words = {
        "baseline": "the trained model",
        "startup": "start-up point",
        "search": "proposed by the sampler",
        "confirm": "confirms the answer",
    }
    there = {trial.kind for trial in result.trials}
    shown = [(charts.symbol(kind), word) for kind, word in words.items() if kind in there]
    if any(t.status == "finished" and not t.feasible for t in result.trials):
        shown.append((charts.symbol("infeasible"), "hollow: breaks a guardrail"))
    if any(t.status == "failed" for t in result.trials):
        shown.append((charts.symbol("failed"), "failed"))
    return shown


def beyond(result: SearchResult) -> int:
    """How many trials lie above the convergence chart."""
    blends = [trial for trial in result.trials if trial.kind != "comparison"]
    scale = charts.error_scale(blends, result.trained_model_error, result.optimized_model_error)
    return sum(t.error is not None and t.error > scale.high for t in blends)


def rail_rows(proof: Proof) -> list[RailRow]:
    """What the holdout said about each guardrail."""
    rows = []
    for rail in proof.decision.guardrails:
        drawing = None
        if rail.increase.groups >= fewest_groups(rail.increase.confidence):
            label = f"Increase of the error of guardrail {name(rail.name)}"
            drawing = charts.interval_chart(rail.increase, label, limit=rail.allowed_increase)
        rows.append(RailRow(rail, _RAIL_STATES[rail.outcome], drawing))
    return rows


def step_rows(proof: Proof) -> list[GroupStepRow]:
    """How much of the intended change each group of tensors took on."""
    rows = []
    for step in proof.steps:
        low = step.realised is not None and step.realised < LOW_STEP
        drawing = None if step.realised is None else charts.share_bar(step.realised, low=low)
        rows.append(GroupStepRow(step, low, drawing))
    return rows


def rails_during_search(result: SearchResult) -> list[RailDuringSearch]:
    """Empty without guardrails, or where the best blend's errors on them are not known."""
    best = _best_trial(result)
    baselines = [t for t in result.trials if t.kind == "baseline" and t.guardrails]
    if best is None or not baselines:
        return []
    return [
        RailDuringSearch(
            rail,
            sum(t.guardrails[rail] for t in baselines) / len(baselines),
            best.guardrails[rail],
        )
        for rail in baselines[0].guardrails
        if rail in best.guardrails
    ]


def _best_trial(result: SearchResult) -> TrialEntry | None:
    same = [
        t
        for t in result.trials
        if t.factors == result.optimized_scaling_factors and t.error is not None
    ]
    return same[-1] if same else None


def phases(result: SearchResult) -> dict[str, object] | None:
    """Seconds by phase, in the order in which they happen; None when nothing was measured."""
    known = {p: result.seconds[p] for p in _PHASES if result.seconds.get(p, 0.0) > 0}
    others = {p: s for p, s in result.seconds.items() if p not in (*_PHASES, "total") and s > 0}
    seconds = known | others
    if not seconds:
        return None
    return {"seconds": seconds, "drawing": charts.phases_chart(seconds)}
