"""The result of a search as a document: what ``result.json`` holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ztom.errors import SearchError
from ztom.evaluation.gate.verdict import Outcome as GateOutcome
from ztom.ledger import TrialRecord
from ztom.scoring.build import ErrorTerm
from ztom.scoring.proof import ProofDecision, ProofOutcome
from ztom.search.existing import BestExisting, ExistingModel, best_on_search
from ztom.search.outcome import SearchOutcome
from ztom.search.step_gains import StepGain
from ztom.stimuli.files import StimuliFile

#: What results that were written before a field existed have in it.
UNKNOWN = "unknown"


class DataFileEntry(BaseModel):
    """A file of data as it was read.

    Attributes:
        name: Name of the file without its folders, or its address.
        container: Kind of file, such as ``JSON Lines``.
        stimuli: Number of stimuli that were read.
        forms: Number of stimuli by their form.
        left_out: Number of times that something was left out, by what it was.
        left_out_stimuli: Number of whole stimuli that were left out.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    container: str
    stimuli: int
    forms: dict[str, int]
    left_out: dict[str, int]
    left_out_stimuli: int


class TrialEntry(BaseModel):
    """One evaluation.

    Attributes:
        number: Position in the order in which trials were proposed, from 0.
        kind: ``baseline``, ``comparison``, ``startup``, ``search`` or ``confirm``.
        factors: The scaling factors.
        status: ``finished``, ``failed``, or ``running`` when it was abandoned.
        error: Error of the blend, lower is better; None for a failed trial.
        guardrails: Error on each guardrail's data.
        feasible: Whether it finished and keeps every guardrail.
        reason: Why the trial failed, or was stopped; None otherwise.
        seconds: Seconds by phase.
        generated_tokens: Number of generated tokens, over all stimuli.
        attempts: Number of times that it was started.
        answered: Number of stimuli that were answered before it was stopped, being clearly worse
            than the best: its error is an estimate; None where all were.
    """

    model_config = ConfigDict(extra="forbid")

    number: int
    kind: str
    factors: tuple[float, ...]
    status: str
    error: float | None
    guardrails: dict[str, float]
    feasible: bool
    reason: str | None
    seconds: dict[str, float]
    generated_tokens: int
    attempts: int
    answered: int | None = None


class SensitivityEntry(BaseModel):
    """How the error depends on one factor, the others staying at the best point.

    Attributes:
        name: What the factor scales.
        best: Value of the factor at the best point.
        effect: Highest minus lowest error along it.
        values: Values of the factor, shape (points,).
        errors: Estimated error at each of the values, shape (points,).
        spreads: Standard deviation of each estimate, shape (points,).
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    best: float
    effect: float
    values: tuple[float, ...]
    errors: tuple[float, ...]
    spreads: tuple[float, ...]


class StimulusChange(BaseModel):
    """One holdout stimulus, before and after.

    Attributes:
        id: Id of the stimulus.
        prompt: The prompt, as text.
        expected: The expected output.
        before: The trained model's answer; None where no text was generated.
        after: The mastered model's answer.
        error_before: The trained model's error on it.
        error_after: The mastered model's error on it.
    """

    model_config = ConfigDict(extra="forbid")

    id: str
    prompt: str
    expected: str
    before: str | None
    after: str | None
    error_before: float
    error_after: float


class GroupStep(BaseModel):
    """How much of the intended change one group of tensors took on at the deployed dtype.

    Attributes:
        group: Tensor names with layer numbers replaced by ``*``.
        realised: Realised over intended step, 1.0 is exact; None where nothing was to change.
        changed: Share of the weights whose value changed at all.
    """

    model_config = ConfigDict(extra="forbid")

    group: str
    realised: float | None
    changed: float


class GateSummary(BaseModel):
    """What the gate said on the suites of the search; ``verdict.json`` has all of it.

    Attributes:
        outcome: ``pass``, ``fail`` or ``inconclusive``.
        reasons: Why, in words, the deciding one first.
        suites: Digest of each suite, by its name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    outcome: GateOutcome
    reasons: tuple[str, ...]
    suites: dict[str, str]


class Proof(BaseModel):
    """What the holdout, and the gate, said about the written variant.

    Attributes:
        decision: Improved, no improvement or inconclusive, with the reasons; ``verdict`` in JSON.
        trained_model_error: Error of the trained model on the holdout.
        optimized_model_error: Error of the variant, as written, on the holdout.
        errors_before: Error of the trained model on each stimulus, shape (stimuli,).
        errors_after: Error of the variant on each stimulus, shape (stimuli,).
        changes: The stimuli whose error changed most, the most improved first.
        dtype: Dtype that the variant is deployed in.
        realised: Realised over intended step of the whole blend, None where nothing changed.
        steps: Realised over intended step by group of tensors.
        gate: Verdict of the gate on the suites, the trained model being the champion; None without
            suites.
        warnings: What to know before relying on it.
        insisted: Whether the variant was published although it is not proved to be better.
        variant: Folder or address of the published variant; None when nothing was published.
        variant_digest: Digest of the variant's manifest.
        seconds: Seconds by phase: ``write``, ``load``, ``answer``, ``score``, ``suites`` and
            ``total``; suites are answered within ``answer``.
    """

    model_config = ConfigDict(extra="forbid", validate_by_name=True, serialize_by_alias=True)

    decision: ProofDecision = Field(alias="verdict")
    trained_model_error: float
    optimized_model_error: float
    errors_before: tuple[float, ...]
    errors_after: tuple[float, ...]
    changes: tuple[StimulusChange, ...]
    dtype: str
    realised: float | None
    steps: tuple[GroupStep, ...]
    gate: GateSummary | None = None
    warnings: tuple[str, ...] = ()
    insisted: bool = False
    variant: str | None = None
    variant_digest: str | None = None
    seconds: dict[str, float]

    def facts(self) -> dict[str, str]:
        """What the holdout said in a few texts, by their names."""
        from ztom.pages.formats import number, signed

        interval = self.decision.improvement
        low, high = number(interval.low), number(interval.high)
        gate = {} if self.gate is None else {"gate": str(self.gate.outcome)}
        return {
            "improvement on the holdout": f"{signed(interval.estimate)} ({low} to {high})",
            "reasons": "; ".join(self.decision.reasons),
            "variant": self.variant or "none was published",
            **gate,
        }

    @property
    def holds(self) -> bool:
        """Whether it is improved, and passed by the gate where there is one."""
        passed = self.gate is None or self.gate.outcome is GateOutcome.PASS
        return self.decision.outcome is ProofOutcome.IMPROVED and passed


class SearchResult(BaseModel):
    """What the search came to; the attributes are those of `ztom.search.outcome.SearchOutcome`.

    Attributes:
        name: Name of the study.
        factor_bounds: Lower and upper bound of each factor.
        factor_groups: Groups of tensors that have factors of their own, which stand step by step
            and in a step group by group; none where a step has one factor.
        error: The terms of the error function that was made small, and their weights; the first
            results did not name them.
        sampler: Name of the sampler that proposed the factors; `UNKNOWN` in the first results.
        dtype: Dtype that the search evaluated in, and the variant is deployed in; `UNKNOWN` in the
            first results.
        seed: Everything random was drawn from it.
        versions: Versions of the libraries that took part.
        chain_digest: Identifies the chain.
        checkpoints: Addresses of the chain's checkpoints, with the commit or the version that was
            read, and the names of local ones; the first results did not name them.
        data_digests: sha256 of each data set, by its name.
        data_files: The files of data as they were read; the first results did not name them.
        notes: What differs between the checkpoints of the chain, and what was passed over so that
            they fit, a sentence each; the first results did not say.
        step_warnings: Steps that change nothing or are the same as another, a sentence each.
        existing: The checkpoints alone and their average, on the search set and on the holdout;
            the first results did not measure them, nor what comes with them.
        best_existing: The best checkpoint, and how the blend stands to it.
        step_gains: How much of the gain on the search set each step of the chain is.
        gradient_evaluations: Number of errors with their derivatives, in float32, which are not in
            ``number_of_inferences``; 0 but for the sampler ``gradient``.
        baseline_inferences: Number of evaluations for ``existing``, on both sets; they are not in
            ``number_of_inferences``.
        partial_evaluations: Number of the ``number_of_inferences`` that were stopped early, being
            clearly worse than the best.
        proof: Proof on the holdout; None when the search was run without one.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    study_id: int
    trained_model_error: float
    optimized_model_error: float
    improvement: float
    estimated_error: float | None
    optimized_scaling_factors: tuple[float, ...]
    factor_names: tuple[str, ...]
    factor_bounds: tuple[tuple[float, float], ...]
    factor_groups: Annotated[tuple[str, ...], Field(exclude_if=lambda names: not names)] = ()
    number_of_inferences: int
    gradient_evaluations: int = 0
    generated_tokens: int
    noise_floor: float | None
    stop_reason: str
    converged: bool
    seconds: dict[str, float]
    sensitivity: tuple[SensitivityEntry, ...]
    trials: tuple[TrialEntry, ...]
    error: tuple[ErrorTerm, ...] = ()
    sampler: str = UNKNOWN
    dtype: str = UNKNOWN
    seed: int
    versions: dict[str, str]
    chain_digest: str
    checkpoints: tuple[str, ...] = ()
    data_digests: dict[str, str]
    data_files: tuple[DataFileEntry, ...] = ()
    notes: tuple[str, ...] = ()
    step_warnings: tuple[str, ...] = ()
    existing: tuple[ExistingModel, ...] = ()
    best_existing: BestExisting | None = None
    step_gains: tuple[StepGain, ...] = ()
    baseline_inferences: int = 0
    partial_evaluations: int = 0
    proof: Proof | None = None

    @property
    def factor_grid(self) -> tuple[tuple[str, tuple[float, ...]], ...]:
        """The name of each step, and the best factors of its groups; empty without groups."""
        width = len(self.factor_groups)
        if not width:
            return ()
        ends = f": {self.factor_groups[0]}"
        return tuple(
            (
                self.factor_names[start].removesuffix(ends),
                self.optimized_scaling_factors[start : start + width],
            )
            for start in range(0, len(self.factor_names), width)
        )

    @property
    def advice(self) -> str | None:
        """What to say before anything else; None where nothing that exists is better."""
        return None if self.best_existing is None else self.best_existing.advice

    def _repr_html_(self) -> str:
        from ztom.pages.formats import count, factor, number, signed
        from ztom.pages.notebook import NotebookTable, notebook_panel

        resolve = abs(self.improvement)
        noise = "-" if self.noise_floor is None else number(self.noise_floor)
        facts = {
            "error of the trained model": number(self.trained_model_error, resolve=resolve),
            "error of the best blend": number(self.optimized_model_error, resolve=resolve),
            "improvement": f"{signed(self.improvement)} (noise floor {noise})",
            "evaluations": f"{count(self.number_of_inferences)}, ended by: {self.stop_reason}",
            **({} if self.proof is None else self.proof.facts()),
        }
        rows = [
            (name, factor(alpha))
            for name, alpha in zip(self.factor_names, self.optimized_scaling_factors, strict=True)
        ]
        table = NotebookTable(("transition", "scaling factor"), rows)
        outcome = "not proved" if self.proof is None else str(self.proof.decision.outcome)
        return notebook_panel(f"search {self.name}: {outcome}", facts, table)


def read_result(content: Mapping[str, object], *, source: str) -> SearchResult:
    """A result that was written down.

    Args:
        content: Keys and values, as in ``result.json`` and in the ledger.
        source: Names the place they stood in, in the error message.

    Raises:
        SearchError: They are no result.
    """
    try:
        return SearchResult.model_validate(content)
    except ValidationError as error:
        keys = sorted({".".join(map(str, entry["loc"])) for entry in error.errors()})
        raise SearchError(
            f"{source} cannot be read",
            got=f"wrong or missing: {', '.join(keys[:5])}",
            expected="what this version of ztom writes, or an earlier one",
            fix="It may be from a later version: read it with that one.",
        ) from None


def data_file_entry(file: StimuliFile) -> DataFileEntry:
    """What a result says of a file of data."""
    return DataFileEntry(
        name=file.path if "://" in file.path else Path(file.path).name,
        container=file.container,
        stimuli=len(file.stimuli),
        forms=dict(file.forms),
        left_out={entry.what: entry.count for entry in file.left_out},
        left_out_stimuli=sum(entry.count for entry in file.left_out if entry.is_stimulus),
    )


def search_fields(outcome: SearchOutcome) -> dict[str, Any]:
    """The fields of `SearchResult` that an outcome has."""
    return {
        "study_id": outcome.study_id,
        "trained_model_error": outcome.trained_model_error,
        "optimized_model_error": outcome.optimized_model_error,
        "improvement": outcome.improvement,
        "estimated_error": outcome.estimated_error,
        "optimized_scaling_factors": outcome.optimized_scaling_factors,
        "factor_names": outcome.factor_names,
        "number_of_inferences": outcome.number_of_inferences,
        "baseline_inferences": outcome.baseline_inferences,
        "partial_evaluations": outcome.partial_evaluations,
        "existing": outcome.existing,
        "best_existing": best_on_search(outcome.existing),
        "step_gains": outcome.step_gains,
        "gradient_evaluations": outcome.gradient_evaluations,
        "generated_tokens": outcome.generated_tokens,
        "noise_floor": outcome.noise_floor,
        "stop_reason": outcome.stop_reason,
        "converged": outcome.converged,
        "seconds": outcome.seconds,
        "sensitivity": tuple(
            SensitivityEntry.model_validate(entry, from_attributes=True)
            for entry in outcome.sensitivity
        ),
        "trials": tuple(_entry(trial, outcome.feasible) for trial in outcome.trials),
    }


def _entry(trial: TrialRecord, feasible: tuple[int, ...]) -> TrialEntry:
    outcome = trial.outcome
    return TrialEntry(
        number=trial.number,
        kind=trial.kind,
        factors=trial.factors,
        status=trial.status,
        error=outcome.error,
        guardrails=dict(outcome.guardrails),
        feasible=trial.number in feasible,
        reason=outcome.reason,
        seconds=dict(outcome.seconds),
        generated_tokens=outcome.generated_tokens,
        attempts=outcome.attempts,
        answered=outcome.answered,
    )
