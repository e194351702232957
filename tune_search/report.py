"""``report.html``: a result as one file that explains itself, without scripts or requests.

Everything that is shown is computed here or in `tune_search.charts`; the template only arranges it.
Names, prompts and answers come from outside: the template escapes all of them, and what is
invisible in them is written out (`tune_search.formats.visible`).
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from tune_search import charts, formats
from tune_search.advice import LOW_STEP, Advice, advise, at_bound
from tune_search.result import Proof, SearchResult, SensitivityEntry, StimulusChange, TrialEntry
from ztom.scoring.statistics import fewest_groups
from ztom.scoring.verdict import GuardrailOutcome, Outcome

_TEMPLATE = "report.html.jinja"
_MOST_CURVES = 12
_MOST_TEXTS = 20
_PHASES = ("start", "sampler", "blend", "generate", "score", "overhead")

_STOP_REASONS = {
    "budget": "the budget of evaluations was used up",
    "converged": "the sampler had no better point to propose",
    "time": "the time given was used up",
    "interrupted": "it was interrupted",
    "baseline failed": "the trained model could not be evaluated",
}
_GUARDRAIL_STATES = {
    GuardrailOutcome.PASS: "good",
    GuardrailOutcome.FAIL: "bad",
    GuardrailOutcome.INCONCLUSIVE: "open",
}


@dataclass(frozen=True)
class Headline:
    """The verdict in words.

    Attributes:
        state: ``good``, ``bad``, ``open`` or ``none``, for the colour.
        word: The outcome.
        sentence: What it means.
    """

    state: str
    word: str
    sentence: str


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
class RailDuringSearch:
    """A guardrail's error as the search saw it."""

    name: str
    trained: float
    best: float


def render_report(result: SearchResult) -> str:
    """The report as the text of one HTML file; the same result gives the same text."""
    proof = result.proof
    return _template().render(
        result=result,
        proof=proof,
        headline=headline(proof),
        advice=advise(result),
        convergence=charts.convergence_chart(
            result.trials,
            trained=result.trained_model_error,
            optimized=result.optimized_model_error,
        ),
        legend=_legend(result),
        beyond=_beyond(result),
        factors=_factor_rows(result),
        exact_factors=json.dumps(list(result.optimized_scaling_factors)),
        curves=_curves(result),
        shown_curves=_MOST_CURVES,
        rails=_rails_during_search(result),
        stop_reason=_STOP_REASONS.get(result.stop_reason, result.stop_reason),
        kinds=Counter(trial.kind for trial in result.trials),
        failed=sum(trial.status == "failed" for trial in result.trials),
        phases=_phases(result),
        relative=_relative(result.trained_model_error, result.improvement),
        **({} if proof is None else _proof_parts(proof)),
    )


def headline(proof: Proof | None) -> Headline:
    """The verdict in one word and one sentence."""
    if proof is None:
        return Headline(
            "none",
            "Not proved",
            "The search was run without a proof: whether the blend is better on stimuli that the "
            "search never saw is not known.",
        )
    if proof.verdict.outcome is Outcome.IMPROVED:
        sentence = "On stimuli that the search never saw, the blend's error is lower, beyond chance."
        return Headline("good", "Improved", sentence)
    if proof.verdict.outcome is Outcome.INCONCLUSIVE:
        sentence = "The holdout can neither show nor rule out that the blend is better."
        return Headline("open", "Inconclusive", sentence)
    sentence = "The blend has not been shown to be better, and the model as trained should stay."
    return Headline("bad", "No improvement", sentence)


def _proof_parts(proof: Proof) -> dict[str, object]:
    interval = proof.verdict.improvement
    rails = proof.verdict.guardrails
    pairs = list(zip(proof.errors_before, proof.errors_after, strict=True))
    return {
        "interval": interval,
        "means_something": interval.groups >= fewest_groups(interval.confidence),
        "interval_chart": charts.interval_chart(interval, "Improvement on the holdout"),
        "proof_relative": _relative(proof.trained_model_error, interval.estimate),
        "scatter": charts.scatter_chart(proof.errors_before, proof.errors_after) if pairs else "",
        "improved": sum(after < before for before, after in pairs),
        "worse": sum(after > before for before, after in pairs),
        "same": sum(after == before for before, after in pairs),
        "texts": _text_groups(proof.changes),
        "rail_rows": [
            (
                rail,
                _GUARDRAIL_STATES[rail.outcome],
                charts.interval_chart(
                    rail.increase, f"Increase of {rail.name}", limit=rail.allowed_increase
                ),
            )
            for rail in rails
        ],
        "steps": [
            (
                step,
                step.realised is not None and step.realised < LOW_STEP,
                ""
                if step.realised is None
                else charts.share_bar(step.realised, low=step.realised < LOW_STEP),
            )
            for step in proof.steps
        ],
        "low_step": LOW_STEP,
    }


def _text_groups(changes: tuple[StimulusChange, ...]) -> tuple[TextGroup, ...]:
    better = [c for c in changes if c.error_after < c.error_before]
    worse = [c for c in changes if c.error_after > c.error_before]
    better.sort(key=lambda c: c.error_after - c.error_before)
    worse.sort(key=lambda c: c.error_before - c.error_after)
    groups = (("Most improved", "good", better), ("Most worsened", "bad", worse))
    return tuple(
        TextGroup(title, state, tuple(found[:_MOST_TEXTS]), max(len(found) - _MOST_TEXTS, 0))
        for title, state, found in groups
        if found
    )


def _factor_rows(result: SearchResult) -> list[FactorRow]:
    return [
        FactorRow(name, value, low, high, held, charts.factor_bar(value, low, high))
        for name, value, (low, high), held in zip(
            result.factor_names,
            result.optimized_scaling_factors,
            result.factor_bounds,
            at_bound(result),
            strict=True,
        )
    ]


def _curves(result: SearchResult) -> list[Curve]:
    """The factor with the largest effect first."""
    scale = charts.sensitivity_scale(result.sensitivity)
    ordered = sorted(result.sensitivity, key=lambda entry: -entry.effect)
    return [Curve(entry, charts.sensitivity_chart(entry, scale)) for entry in ordered]


def _legend(result: SearchResult) -> list[tuple[Markup, str]]:
    """What occurs in the convergence chart, with its mark."""
    words = {
        "baseline": "the trained model",
        "startup": "start-up point",
        "search": "proposed by the sampler",
        "confirm": "evaluated again",
    }
    there = {trial.kind for trial in result.trials}
    shown = [(charts.symbol(kind), word) for kind, word in words.items() if kind in there]
    if any(t.status == "finished" and not t.feasible for t in result.trials):
        shown.append((charts.symbol("infeasible"), "hollow: breaks a guardrail"))
    if any(t.status == "failed" for t in result.trials):
        shown.append((charts.symbol("failed"), "failed"))
    return shown


def _beyond(result: SearchResult) -> int:
    """How many trials lie above the convergence chart."""
    scale = charts.error_scale(
        result.trials, result.trained_model_error, result.optimized_model_error
    )
    return sum(t.error is not None and t.error > scale.high for t in result.trials)


def _rails_during_search(result: SearchResult) -> list[RailDuringSearch]:
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


def _phases(result: SearchResult) -> dict[str, object] | None:
    """Seconds by phase, in the order in which they happen; None when nothing was measured."""
    known = {p: result.seconds[p] for p in _PHASES if result.seconds.get(p, 0.0) > 0}
    others = {
        p: s for p, s in result.seconds.items() if p not in (*_PHASES, "total") and s > 0
    }
    seconds = known | others
    if not seconds:
        return None
    return {"seconds": seconds, "drawing": charts.phases_chart(seconds)}


def _relative(trained: float, improvement: float) -> str:
    """An improvement as a share of the trained model's error, empty where that is zero."""
    return formats.percent(improvement / abs(trained)) if trained else ""


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=formats.number,
        signed=formats.signed,
        factor=formats.factor,
        count=formats.count,
        percent=formats.percent,
        duration=formats.duration,
        named=formats.name,
        visible=formats.visible,
        excerpt=formats.excerpt,
    )
    return environment.get_template(_TEMPLATE)


__all__ = ["Advice", "Headline", "headline", "render_report"]
