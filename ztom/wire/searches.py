"""Searches and the other requests of a project: where they stand, and what came of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, computed_field

from ztom.wire import examples
from ztom.wire.base import Warnings, WireAnswer
from ztom.wire.examples import example
from ztom.wire.factor_groups import FactorLabels

if TYPE_CHECKING:
    from ztom.ledger.records import TrialRecord
    from ztom.ledger.requests import RequestRecord

RequestKindName = Literal[
    "search", "metatune", "edit", "static_analysis", "sensitivity", "inference"
]
RequestStatusName = Literal["queued", "running", "finished", "failed", "cancelled"]

_RESULT: dict[str, Any] = {
    "trained_model_error": 1.04,
    "optimized_model_error": 0.41,
    "optimized_scaling_factors": [0.25, -0.5],
    "number_of_inferences": 55,
    "verdict": "improved",
    "noise_floor": 0.01,
    "stop_reason": "budget",
    "advice": None,
    "best_existing": {
        "name": "base",
        "kind": "checkpoint",
        "search_error": 0.72,
        "holdout_error": 0.75,
        "outcome": "better",
        "improvement": {
            "estimate": 0.31,
            "low": 0.24,
            "high": 0.38,
            "confidence": 0.95,
            "resamples": 10_000,
            "groups": 380,
        },
        "guardrails": [],
        "reason": "the blend's error on the holdout is lower than checkpoint base's",
    },
    "existing": [
        {
            "name": "base",
            "kind": "checkpoint",
            "also": [],
            "factors": [-1.0, -1.0],
            "search_error": 0.72,
            "holdout_error": 0.75,
            "keeps_guardrails": True,
            "reason": None,
        }
    ],
    "gradient_evaluations": 0,
    "baseline_inferences": 6,
    "partial_evaluations": 0,
    "step_gains": [{"name": "base -> one", "gain": 0.2, "share": 0.32}],
    "step_warnings": [],
    "holdout": {
        "trained_model_error": 1.07,
        "optimized_model_error": 0.44,
        "verdict": {"outcome": "improved"},
        "gate": None,
        "insisted": False,
        "realised_step": 0.998,
        "warnings": [],
    },
    "variant_digest": examples.DIGEST,
    "mastered_path": f"{examples.PROJECT}/results/{examples.REQUEST}.tar",
    "unproven": False,
}
_REQUEST: dict[str, Any] = {
    "requestId": examples.REQUEST,
    "projectId": examples.PROJECT,
    "kind": "search",
    "status": "finished",
    "reason": None,
    "studyId": 7,
    "checkpointId": examples.FILE,
    "createdAt": examples.TIME,
    "endedAt": examples.LATER,
    "hasArtifact": True,
    "result": _RESULT,
}
_QUEUED = _REQUEST | {
    "status": "queued",
    "studyId": None,
    "checkpointId": None,
    "endedAt": None,
    "hasArtifact": False,
    "result": None,
}
#: Answers of the original product spell their fields in snake case.
_SNAKE_CASE = ConfigDict(alias_generator=None, extra="allow")


class RequestAnswer(WireAnswer):
    """A request, where it stands, and what came of it.

    Attributes:
        reason: Reason why it failed.
        study_id: Id of the study of a search, once it runs.
        checkpoint_id: Id of the file of the project that came of it.
        ended_at: Time in ISO 8601, UTC; None while it is under way.
        has_artifact: Whether there is more than the result: a checkpoint, or a whole report.
        result: Result by kind: a search's is that of `SearchAnswer`.
    """

    model_config = example(**_REQUEST)

    request_id: str
    project_id: str | None
    kind: RequestKindName
    status: RequestStatusName
    reason: str | None
    study_id: int | None
    checkpoint_id: str | None
    created_at: str
    ended_at: str | None
    has_artifact: bool
    result: dict[str, Any] | None

    @classmethod
    def of(cls, record: RequestRecord) -> RequestAnswer:
        """The request on record."""
        return cls.model_validate(_request_fields(record))


class QueuedSearch(RequestAnswer):
    """A search that was taken on.

    Attributes:
        warnings: What was left aside of the request.
    """

    model_config = example(**_QUEUED, warnings=[])

    warnings: tuple[str, ...]

    @classmethod
    def queued(cls, record: RequestRecord, warnings: list[str]) -> QueuedSearch:
        """The request on record, and what was left aside of it."""
        return cls.model_validate({**_request_fields(record), "warnings": warnings})


class SearchProgress(WireAnswer):
    """How far a search is.

    Attributes:
        trials: Number of evaluations that ended.
        max_evaluations: Number of evaluations that it may take besides those of the trained
            model and those that confirm the answer.
        best_error: Lowest error so far; None before the first.
        best_factors: Scaling factors of that trial, one per step of the chain, or per step and
            group.
    """

    trials: int
    max_evaluations: int | None
    best_error: float | None
    best_factors: tuple[float, ...] | None


class SearchStatus(RequestAnswer):
    """A search, and how far it is."""

    model_config = example(
        **_REQUEST,
        progress={
            "trials": 55,
            "maxEvaluations": 50,
            "bestError": 0.41,
            "bestFactors": [0.25, -0.5],
        },
    )

    progress: SearchProgress

    @classmethod
    def at(cls, record: RequestRecord, progress: SearchProgress) -> SearchStatus:
        """The request on record, and how far its search is."""
        return cls.model_validate({**_request_fields(record), "progress": progress})


class Trial(WireAnswer):
    """One evaluation of a search.

    Attributes:
        number: Number of the trial, from 0, in the order in which they began.
        kind: Kind of the trial: ``baseline``, ``search`` and the like; a ``comparison`` is a
            checkpoint alone, or the average of all.
        factors: Scaling factors, one per step of the chain, or per step and group.
        error: Error of the blend, lower is better; None for a failed trial.
        reason: Reason why it failed.
        seconds: Seconds of wall time of the whole trial.
    """

    model_config = example(
        number=12,
        kind="search",
        status="finished",
        factors=[0.25, -0.5],
        error=0.41,
        reason=None,
        seconds=3.2,
    )

    number: int
    kind: str
    status: str
    factors: tuple[float, ...]
    error: float | None
    reason: str | None
    seconds: float | None

    @classmethod
    def of(cls, record: TrialRecord) -> Trial:
        """The trial on record."""
        return cls(
            number=record.number,
            kind=record.kind,
            status=record.status,
            factors=tuple(record.factors),
            error=record.outcome.error,
            reason=record.outcome.reason,
            seconds=record.outcome.seconds.get("total"),
        )


class Holdout(WireAnswer):
    """What data that the search never saw says of its answer.

    Attributes:
        verdict: The proof; its ``outcome`` is ``improved``, ``no improvement`` or ``inconclusive``.
        gate: The gate's verdict, where the search had suites.
        insisted: Whether the checkpoint was published although the proof did not allow it.
        realised_step: Share of the intended change that the deployed dtype keeps.
        warnings: Warnings about precision.
    """

    model_config = _SNAKE_CASE

    trained_model_error: float
    optimized_model_error: float
    verdict: dict[str, Any]
    gate: dict[str, Any] | None = None
    insisted: bool = False
    realised_step: float | None = None
    warnings: tuple[str, ...] = ()


class SearchFindings(WireAnswer):
    """What a search came to.

    Attributes:
        trained_model_error: Error of the latest checkpoint on the stimuli.
        optimized_model_error: Error of the best blend on the same stimuli.
        optimized_scaling_factors: One per step of the chain; with groups step by step, and in a
            step group by group.
        factor_labels: Step and group of each factor, where the search had groups.
        number_of_inferences: Number of evaluations.
        verdict: Outcome of the proof; None where nothing was proved.
        noise_floor: Difference between two evaluations of the same blend.
        stop_reason: Why the search ended.
        advice: What to know first: a checkpoint of the chain alone is better than the blend, beyond
            chance; None where that is not so.
        best_existing: The best checkpoint alone by the stimuli, and its ``outcome`` on the holdout:
            the blend is ``better``, ``not distinguishable`` or ``worse``.
        existing: Each checkpoint alone and the average of all, with their errors on the stimuli and
            on the holdout.
        gradient_evaluations: Number of errors with their derivatives, besides
            ``number_of_inferences``; 0 but for the sampler ``gradient``.
        baseline_inferences: Number of evaluations for ``existing``, besides
            ``number_of_inferences``.
        partial_evaluations: Number of these evaluations that were stopped early, being clearly
            worse than the best.
        step_gains: How much of the gain on the stimuli each step of the chain is.
        step_warnings: Steps that change nothing or are the same as another.
        holdout: Errors and proof on data that the search never saw.
        variant_digest: Digest of the variant that was published.
        mastered_path: Path that names the mastered model wherever a path is taken, published or
            not.
        unproven: Whether that model is not proved to be better: it is not served unless somebody
            insists.
    """

    model_config = _SNAKE_CASE | example(**_RESULT)

    trained_model_error: float
    optimized_model_error: float
    optimized_scaling_factors: tuple[float, ...]
    factor_labels: FactorLabels = ()
    number_of_inferences: int
    verdict: str | None = None
    noise_floor: float | None = None
    stop_reason: str | None = None
    advice: str | None = None
    best_existing: dict[str, Any] | None = None
    existing: tuple[dict[str, Any], ...] = ()
    gradient_evaluations: int = 0
    baseline_inferences: int = 0
    partial_evaluations: int = 0
    step_gains: tuple[dict[str, Any], ...] = ()
    step_warnings: tuple[str, ...] = ()
    holdout: Holdout | None = None
    variant_digest: str | None = None
    mastered_path: str | None = None
    unproven: bool | None = None


class SearchAnswer(SearchFindings):
    """What a search came to, at the top and in ``result``.

    Attributes:
        request_id: Names the request in the project's results.
        checkpoint_id: The mastered checkpoint in the project; None where none was published.
        result: The same fields once more.
        warnings: What was left aside of the request.
    """

    model_config = _SNAKE_CASE | example(
        **_RESULT,
        request_id=examples.REQUEST,
        checkpoint_id=examples.FILE,
        requestId=examples.REQUEST,
        result=_RESULT,
    )

    request_id: str
    checkpoint_id: str | None = None
    result: SearchFindings
    warnings: Warnings = ()

    @computed_field(alias="requestId")  # type: ignore[prop-decorator]
    @property
    def envelope_id(self) -> str:
        """The same as ``request_id``, under the name that every other answer has it."""
        return self.request_id

    @classmethod
    def of(cls, answer: RequestAnswer, *, warnings: list[str] | None = None) -> SearchAnswer:
        """What a search that is over came to.

        Args:
            answer: Answer with the result.
            warnings: What was left aside of the request.

        Raises:
            pydantic.ValidationError: It has no result.
        """
        result = answer.result or {}
        ids = {"request_id": answer.request_id, "checkpoint_id": answer.checkpoint_id}
        return cls.model_validate({**result, **ids, "result": result, "warnings": warnings or ()})


def _request_fields(record: RequestRecord) -> dict[str, object]:
    return {
        "request_id": record.id,
        "project_id": record.project_id,
        "kind": str(record.kind),
        "status": str(record.status),
        "reason": record.reason,
        "study_id": record.study_id,
        "checkpoint_id": record.checkpoint_id,
        "created_at": record.created,
        "ended_at": record.ended,
        "has_artifact": record.artifact is not None,
        "result": record.result,
    }
