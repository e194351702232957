"""Whether the best blend is better than what was there before: the best checkpoint of the chain.

The best checkpoint is chosen on the search set, as the blend was, among those that keep every
guardrail; the holdout then compares the two by the same paired interval that the proof has. It
decides nothing about publishing, which is measured against the trained model; but where a
checkpoint alone is better, that is the first thing that is said. The average is no checkpoint: it
is shown beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from ztom.ledger import TrialKind, TrialRecord, TrialStatus
from ztom.scoring.proof import GuardrailOutcome, GuardrailResult
from ztom.search.baselines import ComparedModel, ModelKind
from ztom.search.protocol import Plan, is_feasible, trained_error
from ztom.search.space import Factors
from ztom.statistics.bootstrap import Interval, fewest_groups, paired_bootstrap
from ztom.statistics.scores import Scores


class Standing(StrEnum):
    """How the blend stands to the best checkpoint."""

    BETTER = "better"
    NOT_DISTINGUISHABLE = "not distinguishable"
    WORSE = "worse"


class ExistingModel(BaseModel):
    """A model that is there without any search, and its errors.

    Attributes:
        name: Name of the checkpoint, or ``average``.
        kind: ``checkpoint``, ``trained`` (the checkpoint that factors of 0 give) or ``average``.
        also: Names of other checkpoints that have the same weights.
        factors: Scaling factors that give it, one per step of the chain.
        search_error: Error on the search set; None where it could not be evaluated.
        holdout_error: Error on the holdout; None without a holdout, or where that failed.
        keeps_guardrails: Whether it keeps every guardrail on the search's data.
        reason: Reason why an evaluation failed; None otherwise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: ModelKind
    also: tuple[str, ...] = ()
    factors: tuple[float, ...]
    search_error: float | None = None
    holdout_error: float | None = None
    keeps_guardrails: bool = True
    reason: str | None = None


class BestExisting(BaseModel):
    """The best checkpoint by the search set, and how the blend stands to it on the holdout.

    Attributes:
        name: Name of the checkpoint.
        kind: ``checkpoint``, or ``trained``.
        search_error: Error of it on the search set.
        holdout_error: Error of it on the holdout; None where it was not measured.
        outcome: What the blend is: better, not distinguishable or worse; None without a holdout.
        improvement: Error of the checkpoint - error of the blend, on the holdout.
        guardrails: How the checkpoint does on the guardrails, against the trained model.
        reason: The outcome in words.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: ModelKind
    search_error: float
    holdout_error: float | None = None
    outcome: Standing | None = None
    improvement: Interval | None = None
    guardrails: tuple[GuardrailResult, ...] = ()
    reason: str

    @property
    def advice(self) -> str | None:
        """What to say before anything else; None where the blend is not worse."""
        broken = any(rail.outcome is GuardrailOutcome.FAIL for rail in self.guardrails)
        if self.outcome is not Standing.WORSE or broken:
            return None
        return f"checkpoint {self.name} alone is better: use it"


def existing_models(plan: Plan, trials: Sequence[TrialRecord]) -> tuple[ExistingModel, ...]:
    """The models that a search compares with, as far as they were evaluated."""
    trained = trained_error(trials)
    by_factors = {t.factors: t for t in trials if t.kind is TrialKind.COMPARISON}

    def evaluated(model: ComparedModel) -> ExistingModel:
        entry = ExistingModel(
            name=model.name, kind=model.kind, also=model.also, factors=model.factors
        )
        if model.kind == "trained":
            return entry.model_copy(update={"search_error": trained})
        trial = by_factors.get(model.factors)
        if trial is None or trial.status is not TrialStatus.FINISHED:
            reason = "it was not evaluated" if trial is None else trial.outcome.reason
            return entry.model_copy(update={"reason": reason})
        keeps = trained is None or is_feasible(plan, trials, trial)
        error = trial.outcome.error
        return entry.model_copy(update={"search_error": error, "keeps_guardrails": keeps})

    return tuple(map(evaluated, plan.models))


def best_checkpoint(models: Sequence[ExistingModel]) -> ExistingModel | None:
    """The checkpoint with the lowest error on the search set; the trained one where equal."""
    able = [
        (model.search_error, model.kind != "trained", position)
        for position, model in enumerate(models)
        if model.kind != "average" and model.keeps_guardrails and model.search_error is not None
    ]
    return models[min(able)[-1]] if able else None


def best_on_search(models: Sequence[ExistingModel]) -> BestExisting | None:
    """The best checkpoint before there is a proof; None where none could be evaluated."""
    best = best_checkpoint(models)
    if best is None or best.search_error is None:
        return None
    return BestExisting(
        name=best.name,
        kind=best.kind,
        search_error=best.search_error,
        reason="not compared: that takes a holdout",
    )


def compare_on_holdout(
    best: BestExisting,
    existing: Scores,
    blend: Scores,
    *,
    groups: Sequence[str],
    guardrails: Sequence[GuardrailResult] = (),
    is_answer: bool,
    seed: int,
) -> BestExisting:
    """Compare the best checkpoint with the blend, stimulus by stimulus.

    Args:
        best: The best checkpoint on the search set.
        existing: Scores of it on the holdout.
        blend: Scores of the blend on the same stimuli.
        groups: The group of each stimulus.
        guardrails: How the checkpoint does on the guardrails.
        is_answer: Whether the blend is that checkpoint: the search came to its factors.
        seed: Seeds the resampling.

    Raises:
        ScoringError: The scores cannot be compared; see `paired_bootstrap`.
    """
    interval = paired_bootstrap(existing, blend, groups=groups, seed=seed)
    outcome, reason = _standing(best.name, interval, is_answer=is_answer)
    return best.model_copy(
        update={
            "holdout_error": float(existing.aggregate()[0]),
            "outcome": outcome,
            "improvement": interval,
            "guardrails": tuple(guardrails),
            "reason": reason,
        }
    )


def _standing(name: str, interval: Interval, *, is_answer: bool) -> tuple[Standing, str]:
    if is_answer:
        return Standing.NOT_DISTINGUISHABLE, f"the search came to checkpoint {name} itself"
    size = (
        f"{abs(interval.estimate):.4g} ({100 * interval.confidence:.4g} % interval of its error "
        f"minus the blend's {interval.low:.4g} to {interval.high:.4g})"
    )
    side = "lower" if interval.estimate >= 0 else "higher"
    words = f"the blend's error on the holdout is {side} than checkpoint {name}'s by {size}"
    if interval.groups < fewest_groups(interval.confidence):
        return Standing.NOT_DISTINGUISHABLE, (
            f"{interval.groups} independent groups of stimuli are too few to compare the blend "
            f"with checkpoint {name}"
        )
    if interval.low > 0:
        return Standing.BETTER, words
    if interval.high < 0:
        return Standing.WORSE, words
    return Standing.NOT_DISTINGUISHABLE, f"{words}: the interval holds zero"


def with_holdout_errors(
    models: Sequence[ExistingModel], errors: Mapping[Factors, float | str]
) -> tuple[ExistingModel, ...]:
    """The models with what the holdout said.

    Args:
        models: Models as the search left them.
        errors: Error of each on the holdout, or the reason why there is none, by its factors.
    """

    def completed(model: ExistingModel) -> ExistingModel:
        error = errors.get(model.factors)
        if isinstance(error, str):
            return model.model_copy(update={"reason": f"on the holdout: {error}"})
        return model.model_copy(update={"holdout_error": error})

    return tuple(map(completed, models))
