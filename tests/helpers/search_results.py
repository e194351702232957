"""Plausible results of a search, built without searching: a bowl-shaped error with noise."""

from __future__ import annotations

import numpy as np

from ztom.scoring.build import ErrorTerm
from ztom.scoring.proof import GuardrailResult, decide_proof
from ztom.search.existing import BestExisting, ExistingModel, Standing
from ztom.search.result import (
    GroupStep,
    Proof,
    SearchResult,
    SensitivityEntry,
    StimulusChange,
    TrialEntry,
)
from ztom.search.step_gains import StepGain
from ztom.statistics.bootstrap import Interval, paired_bootstrap
from ztom.statistics.scores import MeanScores

_SECONDS = {"blend": 0.19, "generate": 0.9, "score": 0.06, "total": 1.2}


def make_trials(
    factors: int = 4, trials: int = 55, *, limit: float = 0.1, seed: int = 0, hard: bool = True
) -> tuple[TrialEntry, ...]:
    """Baselines, start-up, search and confirmations.

    Args:
        factors: How many each trial has.
        trials: How many there are, at least eight.
        limit: Bound of the factors.
        seed: Of the noise.
        hard: Some fail, some break a guardrail, one is far off.
    """
    generator = np.random.default_rng(seed)
    target = _target(factors, limit)
    made = []
    for number in range(trials):
        kind = _kind(number, trials)
        spread = limit * max(0.05, 1 - number / trials)
        point = np.clip(target + generator.normal(0, spread, factors), -limit, limit)
        if kind == "baseline":
            point = np.zeros(factors)
        if kind == "confirm":
            point = target
        distance = float(np.mean((point - target) ** 2)) / limit**2
        error = 2.8 + 0.25 * distance + float(generator.normal(0, 0.004))
        failed = hard and number in (9, 17)
        error = 9.5 if hard and number == 12 else error
        made.append(
            TrialEntry(
                number=number,
                kind=kind,
                factors=tuple(map(float, point)),
                status="failed" if failed else "finished",
                error=None if failed else error,
                guardrails={} if failed else {"general": 1.3 + 0.1 * distance},
                feasible=not failed and not (hard and number in (7, 12, 21)),
                reason="the engine made no progress\nfor 600 s" if failed else None,
                seconds=_SECONDS,
                generated_tokens=3_840,
                attempts=2 if failed else 1,
            )
        )
    return tuple(made)


def make_proof(
    *, stimuli: int = 240, gain: float = 0.1, zero: bool = False, guardrails: bool = True
) -> Proof:
    """What a holdout said of which every stimulus gained ``gain`` on average."""
    generator = np.random.default_rng(1)
    before = generator.gamma(9.0, 0.32, stimuli)
    after = before - generator.normal(gain, 0.25, stimuli)
    interval = paired_bootstrap(
        MeanScores(before),
        MeanScores(after),
        groups=[str(i) for i in range(stimuli)],
        resamples=500,
        seed=0,
    )
    order = np.argsort(after - before)
    shown = [*order[:5], *order[-3:]]
    rails = make_guardrails() if guardrails else ()
    return Proof(
        decision=decide_proof(interval, rails, factors_are_zero=zero),
        trained_model_error=float(before.mean()),
        optimized_model_error=float(after.mean()),
        errors_before=tuple(map(float, before)),
        errors_after=tuple(map(float, after)),
        changes=tuple(make_change(int(i), float(before[i]), float(after[i])) for i in shown),
        dtype="bfloat16",
        realised=0.62,
        steps=(
            GroupStep(group="model.layers.*.mlp.down_proj.weight", realised=0.71, changed=0.41),
            GroupStep(group="model.layers.*.self_attn.q_proj.weight", realised=0.34, changed=0.12),
            GroupStep(group="model.norm.weight", realised=None, changed=0.0),
        ),
        warnings=("1 of 3 groups of tensors took on less than half of the intended change",),
        variant="runs/demo/variant-0f3a",
        variant_digest="ab" * 32,
        seconds={"write": 0.8, "load": 2.9, "answer": 4.1, "score": 0.4, "total": 8.3},
    )


def make_existing(outcome: Standing = Standing.WORSE) -> dict[str, object]:
    """Fields of a result whose base alone, at 2.809 on the holdout, stands so to the blend."""
    side = {Standing.WORSE: -0.2, Standing.BETTER: 0.2}.get(outcome, 0.0)
    interval = Interval(
        estimate=side, low=side - 0.1, high=side + 0.1, confidence=0.95, resamples=500, groups=240
    )
    models = (
        ExistingModel(
            name="00-base",
            kind="checkpoint",
            factors=(-1.0,),
            search_error=2.8,
            holdout_error=2.809,
        ),
        ExistingModel(
            name="01-last", kind="trained", factors=(0.0,), search_error=3.1, holdout_error=3.13
        ),
        ExistingModel(
            name="average", kind="average", factors=(-0.5,), search_error=2.9, holdout_error=2.9
        ),
    )
    best = BestExisting(
        name="00-base",
        kind="checkpoint",
        search_error=2.8,
        holdout_error=2.809,
        outcome=outcome,
        improvement=interval,
        reason="the blend's error on the holdout is higher than checkpoint 00-base's by 0.2",
    )
    return {
        "existing": models,
        "best_existing": best,
        "step_gains": (StepGain(name="00-base -> 01-last", gain=0.1, share=1.0),),
        "step_warnings": ("step x changes nothing",),
        "baseline_inferences": 4,
    }


def make_guardrails() -> tuple[GuardrailResult, ...]:
    """One that passed."""
    increase = Interval(
        estimate=0.004, low=-0.011, high=0.019, confidence=0.9, resamples=500, groups=80
    )
    return (GuardrailResult(name="general", allowed_increase=0.05, increase=increase),)


def make_change(number: int, before: float, after: float) -> StimulusChange:
    """A stimulus with its texts."""
    return StimulusChange(
        id=f"stimulus-{number}",
        prompt=f"What does function number {number} of the library return for an empty list?",
        expected="It returns None, and does not change the list.",
        before="It raises ValueError.",
        after="It returns None, and leaves the list as it is.",
        error_before=before,
        error_after=after,
    )


def make_result(
    *,
    factors: int = 4,
    trials: int = 55,
    limit: float = 0.1,
    proof: Proof | None = None,
    sensitivity: bool = True,
    **changes: object,
) -> SearchResult:
    """A whole result; ``changes`` replace its fields."""
    made = make_trials(factors, trials, limit=limit)
    best = made[-1]
    trained, error = (made[0].error + made[1].error) / 2, best.error
    names = tuple(f"step-{i} -> step-{i + 1}" for i in range(factors))
    fields: dict[str, object] = {
        "name": "demo",
        "study_id": 7,
        "trained_model_error": trained,
        "optimized_model_error": error,
        "improvement": trained - error,
        "estimated_error": error + 0.002,
        "optimized_scaling_factors": best.factors,
        "factor_names": names,
        "factor_bounds": ((-limit, limit),) * factors,
        "number_of_inferences": trials,
        "generated_tokens": 3_840 * trials,
        "noise_floor": 0.0013,
        "stop_reason": "budget",
        "converged": False,
        "seconds": {
            "blend": 10.4,
            "generate": 49.0,
            "score": 3.3,
            "sampler": 6.1,
            "start": 4.2,
            "overhead": 2.0,
            "total": 74.6,
        },
        "sensitivity": make_sensitivity(best.factors, names, limit) if sensitivity else (),
        "trials": made,
        "error": (ErrorTerm(function="cross_entropy"), ErrorTerm(function="rouge_l", weight=0.5)),
        "sampler": "gp",
        "dtype": "bfloat16",
        "seed": 0,
        "versions": {"ztom": "0.1.0", "ray": "2.60.0", "vllm": "0.32.0"},
        "chain_digest": "12" * 32,
        "data_digests": {"search": "34" * 32, "holdout": "56" * 32},
        "proof": proof,
    }
    return SearchResult.model_validate(fields | changes)


def make_sensitivity(
    best: tuple[float, ...], names: tuple[str, ...], limit: float
) -> tuple[SensitivityEntry, ...]:
    """A parabola per factor."""
    values = np.linspace(-limit, limit, 25)
    entries = []
    for index, (name, value) in enumerate(zip(names, best, strict=True)):
        errors = 2.806 + 0.05 / (1 + index) * ((values - value) / limit) ** 2
        spreads = 0.002 + 0.006 * ((values - value) / limit) ** 2
        entries.append(
            SensitivityEntry(
                name=name,
                best=value,
                effect=float(np.ptp(errors)),
                values=tuple(map(float, values)),
                errors=tuple(map(float, errors)),
                spreads=tuple(map(float, spreads)),
            )
        )
    return tuple(entries)


def _target(factors: int, limit: float) -> np.ndarray:
    """Where the bowl's bottom is; the first factor's lies at its bound."""
    target = limit * np.cos(1.7 * np.arange(factors))
    return np.asarray(target)


def _kind(number: int, trials: int) -> str:
    if number < 2:
        return "baseline"
    if number < max(4, trials // 5):
        return "startup"
    return "confirm" if number >= trials - 3 else "search"
