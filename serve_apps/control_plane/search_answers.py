"""What a search came to, read from the ledger, and how it is answered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ztom.io.places import StoragePlace, is_store_address, parse_place
from ztom.ledger.checkpoints import NewCheckpoint, Part, Storage
from ztom.ledger.ledger import Ledger
from ztom.ledger.records import StudyRecord, TrialKind, TrialRecord, TrialStatus
from ztom.ledger.requests import RequestRecord
from ztom.search.result import Proof, SearchResult, read_result
from ztom.variants.manifest import UNPROVEN, VARIANT, read_manifest
from ztom.wire.fields import FORMAT
from ztom.wire.searches import SearchProgress


def study_of(request: RequestRecord, ledger: Ledger) -> StudyRecord | None:
    """A search's study is called after its request."""
    return ledger.studies.latest(request.id)


def finished_result(study: StudyRecord | None, ledger: Ledger) -> SearchResult | None:
    """The result of a study that was proved, or that ended without anything to prove.

    Raises:
        SearchError: What is on record is no result of a search.
    """
    content = None if study is None else ledger.studies.result(study.id)
    if study is None or content is None:
        return None
    result = read_result(content, source=f"the result of study {study.id}")
    return None if result.proof is None and result.stop_reason == "interrupted" else result


def answer_of(request: RequestRecord, result: SearchResult) -> dict[str, Any]:
    """The original's four fields, what exists besides, what the holdout said, the model's path."""
    proof, best = result.proof, result.best_existing
    return {
        "trained_model_error": result.trained_model_error,
        "optimized_model_error": result.optimized_model_error,
        "optimized_scaling_factors": list(result.optimized_scaling_factors),
        **({"factor_labels": list(result.factor_names)} if result.factor_groups else {}),
        "number_of_inferences": result.number_of_inferences,
        "verdict": None if proof is None else str(proof.decision.outcome),
        "noise_floor": result.noise_floor,
        "stop_reason": result.stop_reason,
        "advice": result.advice,
        "best_existing": None if best is None else best.model_dump(mode="json"),
        "existing": [model.model_dump(mode="json") for model in result.existing],
        "gradient_evaluations": result.gradient_evaluations,
        "baseline_inferences": result.baseline_inferences,
        "partial_evaluations": result.partial_evaluations,
        "step_gains": [gain.model_dump(mode="json") for gain in result.step_gains],
        "step_warnings": list(result.step_warnings),
        "holdout": None if proof is None else _holdout_of(proof, result.notes),
        "variant_digest": None if proof is None else proof.variant_digest,
        "mastered_path": f"{request.project_id}/results/{request.id}.tar",
        "unproven": is_unproven(proof),
    }


def _holdout_of(proof: Proof, notes: Sequence[str]) -> dict[str, Any]:
    return {
        "trained_model_error": proof.trained_model_error,
        "optimized_model_error": proof.optimized_model_error,
        "verdict": proof.decision.model_dump(mode="json"),
        "gate": None if proof.gate is None else proof.gate.model_dump(mode="json"),
        "insisted": proof.insisted,
        "realised_step": proof.realised,
        "warnings": [*proof.warnings, *notes],
    }


def is_unproven(proof: Proof | None) -> bool:
    """Whether a search's model is not proved to be better; insisting on it proves nothing."""
    return proof is None or not proof.holds


def mastered_folder(run: Path) -> Path | None:
    """Where the model of a search is, published or not; None where it wrote none.

    Args:
        run: Output folder of the search.
    """
    return next((run / name for name in (VARIANT, UNPROVEN) if (run / name).is_dir()), None)


def stored_variant(request: RequestRecord, ledger: Ledger) -> str | None:
    """Address of a search's variant in the operator's storage; None where it is not there."""
    result = finished_result(study_of(request, ledger), ledger)
    place = None if result is None or result.proof is None else result.proof.variant
    return place if place is not None and is_store_address(place) else None


def mastered_checkpoint(request: RequestRecord, proof: Proof | None) -> NewCheckpoint | None:
    """The variant that the search published, as a file of the project."""
    if proof is None or proof.variant is None:
        return None
    return NewCheckpoint(
        file_name=f"mastered-{request.id[:8]}",
        format=FORMAT,
        storage=Storage.MANAGED,
        address=proof.variant,
        part=Part.MASTERED,
        tag="mastered",
        nbytes=_size(parse_place(proof.variant)),
        content=proof.variant_digest,
        unproven=is_unproven(proof),
    )


def _size(variant: StoragePlace) -> int:
    """Bytes of a variant's files; of one in a store as its manifest says."""
    if isinstance(variant, Path):
        return sum(path.stat().st_size for path in variant.iterdir() if path.is_file())
    return sum(entry.nbytes for entry in read_manifest(variant).files.values())


def progress_of(request: RequestRecord, ledger: Ledger) -> SearchProgress:
    """Where a search stands, from its trials; checkpoints alone are no blends that it found."""
    trials = trials_of(request, ledger)
    evaluated = [
        (t.outcome.error, t.number, t.factors)
        for t in trials
        if t.outcome.error is not None and t.kind is not TrialKind.COMPARISON
    ]
    error, _, factors = min(evaluated, default=(None, None, None))
    most = request.parameters.get("maxEvaluations")
    return SearchProgress(
        trials=sum(trial.status is not TrialStatus.RUNNING for trial in trials),
        max_evaluations=most if isinstance(most, int) else None,
        best_error=error,
        best_factors=factors,
    )


def trials_of(request: RequestRecord, ledger: Ledger) -> tuple[TrialRecord, ...]:
    """The trials of a search so far."""
    study = study_of(request, ledger)
    return () if study is None else ledger.studies.trials(study.id)
