"""``report.html``: a result as one file that explains itself, without scripts or requests.

Everything that is shown is computed here or in `ztom.search.report.charts`; the template only
arranges it. Names, prompts and answers come from outside: the template escapes all of them, and
what is invisible in them is written out (`ztom.pages.formats.visible`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2

from ztom.pages import formats
from ztom.pages.page import page_template
from ztom.scoring.proof import ProofOutcome
from ztom.search.report import charts, parts
from ztom.search.report.advice import LOW_STEP, advise
from ztom.search.report.existing import STATES, existing_rows
from ztom.search.result import Proof, SearchResult
from ztom.statistics.bootstrap import fewest_groups

_TEMPLATE = "report.html.jinja"
_MOST_CURVES = 12

_GATE_STATES = {"pass": "good", "fail": "bad", "inconclusive": "open"}
_STOP_REASONS = {
    "budget": "the budget of evaluations was used up",
    "converged": "the sampler had converged: too little was left to gain",
    "time": "the time given was used up",
    "interrupted": "it was interrupted",
    "baseline failed": "the trained model could not be evaluated",
}


@dataclass(frozen=True)
class Headline:
    """The proof in words.

    Attributes:
        state: State that sets the colour: ``good``, ``bad``, ``open`` or ``none``.
        word: Outcome in a word or two.
        sentence: Sentence on what it means.
    """

    state: str
    word: str
    sentence: str


def render_report(result: SearchResult) -> str:
    """The report as the text of one HTML file; the same result gives the same text."""
    proof = result.proof
    blends = [trial for trial in result.trials if trial.kind != "comparison"]
    return _template().render(
        result=result,
        proof=proof,
        headline=headline(proof),
        advice=advise(result),
        convergence=charts.convergence_chart(
            blends,
            trained=result.trained_model_error,
            optimized=result.optimized_model_error,
        ),
        legend=parts.legend(result),
        beyond=parts.beyond(result),
        factors=parts.factor_rows(result),
        heat=parts.heat_rows(result),
        exact_factors=json.dumps(list(result.optimized_scaling_factors)),
        curves=parts.curves(result),
        shown_curves=_MOST_CURVES,
        existing=existing_rows(result),
        standing_states=STATES,
        rails=parts.rails_during_search(result),
        stop_reason=_STOP_REASONS.get(result.stop_reason, result.stop_reason),
        rail_names=list(dict.fromkeys(r for trial in result.trials for r in trial.guardrails)),
        kinds=Counter(trial.kind for trial in result.trials),
        failed=sum(trial.status == "failed" for trial in result.trials),
        phases=parts.phases(result),
        relative=_relative(result.trained_model_error, result.improvement),
        **({} if proof is None else _proof_parts(proof)),
    )


def headline(proof: Proof | None) -> Headline:
    """The proof in one word and one sentence."""
    if proof is None:
        return Headline(
            "none",
            "Not proved",
            "The search was run without a proof: whether the blend is better on stimuli that the "
            "search never saw is not known.",
        )
    if proof.decision.outcome is ProofOutcome.IMPROVED and not proof.holds:
        sentence = (
            "On stimuli that the search never saw, the blend's error is lower, beyond chance; the "
            "gate does not let it pass."
        )
        return Headline("bad", "Not passed", sentence)
    if proof.decision.outcome is ProofOutcome.IMPROVED:
        sentence = (
            "On stimuli that the search never saw, the blend's error is lower, beyond chance."
        )
        return Headline("good", "Improved", sentence)
    if proof.decision.outcome is ProofOutcome.INCONCLUSIVE:
        sentence = "The holdout can neither show nor rule out that the blend is better."
        return Headline("open", "Inconclusive", sentence)
    sentence = "The blend has not been shown to be better, and the model as trained should stay."
    return Headline("bad", "No improvement", sentence)


def _proof_parts(proof: Proof) -> dict[str, object]:
    interval = proof.decision.improvement
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
        "texts": parts.text_groups(proof.changes),
        "rail_rows": parts.rail_rows(proof),
        "gate_state": _GATE_STATES.get(str(proof.gate and proof.gate.outcome), ""),
        "steps": parts.step_rows(proof),
        "low_step": LOW_STEP,
    }


def _relative(trained: float, improvement: float) -> str:
    """An improvement as a share of the trained model's error, empty where that is zero."""
    return formats.percent(improvement / abs(trained)) if trained else ""


def _reason(text: str) -> str:
    """Why a trial failed, as far as a table has room for it."""
    shown = formats.excerpt(text, limit=300)
    return formats.visible(shown.text) + (f" ({shown.note})" if shown.note else "")


def _factor_list(factors: tuple[float, ...]) -> str:
    return ", ".join(map(formats.factor, factors))


@cache
def _template() -> jinja2.Template:
    filters: dict[str, Callable[..., object]] = {
        "factor": formats.factor,
        "duration": formats.duration,
        "reason": _reason,
        "factors": _factor_list,
    }
    return page_template(Path(__file__).with_name(_TEMPLATE), filters)
