"""Searches: from a request to the file that `python -m tune_search` runs, and back to an answer.

`advance` is called again and again, by every replica: it looks at the ledger and at Ray's jobs and
does what is due. All it knows is in the ledger, so it does not matter which process calls it, or
how often, or whether the one before was killed half-way.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException

from cluster.jobs import JobState
from serve_apps.control_plane.chains import chain_of, spec
from serve_apps.control_plane.data import DataCopy, copy_data, copy_suite
from serve_apps.control_plane.runner import SearchJob
from serve_apps.control_plane.services import Services
from serve_apps.control_plane.store import disk
from serve_apps.control_plane.wire import SearchFields
from serve_apps.control_plane.work import ChainSpec
from ztom.engines.protocol import GenerationConfig
from ztom.errors import ZtomError
from ztom.io.files import write_whole
from ztom.io.yaml import dump_yaml
from ztom.ledger.checkpoints import NewCheckpoint, Part, Storage
from ztom.ledger.ledger import Ledger
from ztom.ledger.projects import ProjectRecord
from ztom.ledger.records import StudyRecord, TrialRecord, TrialStatus
from ztom.ledger.requests import (
    NewRequest,
    RequestKind,
    RequestRecord,
    RequestStatus,
    new_request_id,
)
from ztom.plugins import Group, installed, is_import_path
from ztom.scoring.build import SOURCES
from ztom.wire.fields import FORMAT
from ztom.wire.searches import SearchProgress

logger = logging.getLogger(__name__)

CONFIG = "search.yaml"
SUITES = "suites"


class Step(StrEnum):
    """What is due for a search."""

    NOTHING = "nothing"
    START = "start"
    FINISH = "finish"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Situation:
    """What `next_step` decides by.

    Attributes:
        status: In the ledger.
        job: How its job is; None where it has none.
        attempts: How often it was started.
        most_attempts: How often it may be.
        others_running: Whether another search has the machine.
        has_result: Whether the ledger holds one.
        explained: Whether the search itself said why it ended without one.
    """

    status: RequestStatus
    job: JobState | None
    attempts: int
    most_attempts: int
    others_running: bool
    has_result: bool
    explained: bool


def next_step(now: Situation) -> Step:
    """What is due; a search whose process died goes on, a few times."""
    if now.status is RequestStatus.QUEUED:
        waits = now.others_running or now.job is JobState.RUNNING  # one that is being stopped
        return Step.NOTHING if waits else Step.START
    if now.status is not RequestStatus.RUNNING or now.job is JobState.RUNNING:
        return Step.NOTHING
    if now.has_result:
        return Step.FINISH
    given_up = now.explained or now.job is JobState.STOPPED
    return Step.FAIL if given_up or now.attempts >= now.most_attempts else Step.START


def create_search(
    fields: SearchFields, user_id: str, project: ProjectRecord, services: Services
) -> tuple[RequestRecord, list[str]]:
    """Check everything that can be checked without a model, copy the data, and queue the search.

    Returns:
        The request, and what was left aside.

    Raises:
        HTTPException: The project has no chain, or the call asks for what it may not.
        ZtomError: A data set cannot be read.
    """
    chain = chain_of(project, services)
    _check_allowed(fields)
    generation, warnings = generation_options(fields.inference_config_json)
    request_id = new_request_id()
    folder = services.store.request_folder(request_id)
    try:
        with disk():
            data = _copy_all(fields, folder, project.id, services)
            suites = [
                copy_suite(reference, folder / SUITES / str(number), settings=services.pointers)
                for number, reference in enumerate(fields.suite_paths)
            ]
            document = _document(
                fields, chain, project, data, suites, generation, request_id, services
            )
            # the ledger's address may hold a password
            write_whole(folder / CONFIG, dump_yaml(document), private=True)
        for name, copy in data.items():
            services.ledger.projects.record_data(
                project.id, name, digest=copy.digest, nbytes=copy.nbytes
            )
        new = NewRequest(
            RequestKind.SEARCH,
            user_id,
            project.id,
            {
                "scalingFactorLimit": fields.scaling_factor_limit,
                "maxEvaluations": fields.max_evaluations,
                "error": [term.function for term in fields.error],
                "checkpoints": [file.id for file in project.chain],
            },
        )
        # last: as soon as it is on record it may be started
        return services.ledger.requests.create(new, request_id=request_id), warnings
    except BaseException:
        services.store.remove(str(folder))
        raise


def _document(
    fields: SearchFields,
    chain: ChainSpec,
    project: ProjectRecord,
    data: Mapping[str, DataCopy],
    suites: Sequence[Path],
    generation: Mapping[str, Any],
    request_id: str,
    services: Services,
) -> dict[str, Any]:
    """The file that the search runs on."""
    engine = fields.engine or services.config.engine
    checkpoints = [
        {"reference": reference, "tag": file.tag or file.file_name}
        | ({} if pin is None else {"sha256": pin})
        for reference, pin, file in zip(chain.references, chain.pins, project.chain, strict=True)
    ]
    return {
        "name": request_id,
        "chain": {"checkpoints": checkpoints},
        **{name: str(copy.path) for name, copy in data.items()},
        "labels": list(fields.labels),
        "error": [term.model_dump(mode="json", exclude_unset=True) for term in fields.error],
        "scaling_factor_limit": fields.scaling_factor_limit,
        "batch_size": fields.batch_size,
        "inference_config": dict(generation),
        "detailed_output": bool(fields.detailed_output),
        "sampler": fields.sampler,
        "budget": {"evaluations": fields.max_evaluations},
        "engine": engine.model_dump(mode="json"),
        "seed": fields.seed,
        "suites": [str(suite) for suite in suites],
        "insist": fields.insist,
        "output": str(services.store.requests / request_id / "run"),
        "ledger": services.config.ledger_address,
    }


def advance(services: Services) -> None:
    """Do what is due for every open search; one that cannot be moved does not hold the others."""
    searches = [r for r in services.ledger.requests.open() if r.kind is RequestKind.SEARCH]
    running = sum(r.status is RequestStatus.RUNNING for r in searches)
    for request in searches:
        try:
            running += _advance(request, services, others_running=running > 0)
        except ZtomError as error:
            logger.error("search %s: %s", request.id, error)


def _advance(request: RequestRecord, services: Services, *, others_running: bool) -> int:
    """Do what is due for one; returns how many more run."""
    study = _study_of(request, services.ledger)
    state, message = (None, "") if request.job is None else services.runner.state(request.job)
    explanation = _explanation(request, services)
    step = next_step(
        Situation(
            status=request.status,
            job=state,
            attempts=request.attempts,
            most_attempts=services.config.search_attempts,
            others_running=others_running,
            has_result=_finished_result(study, services.ledger) is not None,
            explained=explanation is not None,
        )
    )
    if step is Step.START:
        _start(request, services)
        return int(request.status is RequestStatus.QUEUED)
    if step is Step.FINISH:
        finish(request, services)
    elif step is Step.FAIL:
        lost = f"ended without a result after {request.attempts} attempts. {message}"[:2000]
        reason = explanation or lost
        services.ledger.requests.end(request.id, RequestStatus.FAILED, reason=reason)
    return 0


def cancel(request: RequestRecord, services: Services) -> RequestRecord:
    """End a search; what its trials found stays, and it can be resumed."""
    ended = services.ledger.requests.end(
        request.id, RequestStatus.CANCELLED, reason="cancelled by a user"
    )
    if ended.job is not None:  # whoever starts one looks afterwards whether it still may
        _stop(ended.job, services)
    return ended


def _stop(job: str, services: Services) -> None:
    try:
        services.runner.stop(job)
    except ZtomError as error:
        logger.error("job %s, which is not wanted, was not stopped: %s", job, error)


def finish(request: RequestRecord, services: Services) -> RequestRecord:
    """Write down what came of a search, and add the mastered checkpoint to the project."""
    study = _study_of(request, services.ledger)
    result = _finished_result(study, services.ledger)
    if study is None or result is None:
        return request
    proof: Mapping[str, Any] = result.get("proof") or {}
    variant = proof.get("variant")
    checkpoint = None
    if variant is not None:
        checkpoint = NewCheckpoint(
            file_name=f"mastered-{request.id[:8]}",
            format=FORMAT,
            storage=Storage.MANAGED,
            address=variant,
            part=Part.MASTERED,
            tag="mastered",
            nbytes=sum(p.stat().st_size for p in Path(variant).iterdir() if p.is_file()),
            content=proof.get("variant_digest"),
        )
    services.ledger.requests.set_study(request.id, study.id)
    return services.ledger.requests.finish(
        request.id,
        result=answer_of(result),
        artifact=str(services.store.requests / request.id / "run" / "result.json"),
        checkpoint=checkpoint,
        actor=f"user:{request.user_id}",
    )


def answer_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """The original's four fields, and what the holdout said."""
    proof: Mapping[str, Any] = result.get("proof") or {}
    return {
        "trained_model_error": result["trained_model_error"],
        "optimized_model_error": result["optimized_model_error"],
        "optimized_scaling_factors": list(result["optimized_scaling_factors"]),
        "number_of_inferences": result["number_of_inferences"],
        "verdict": proof["verdict"]["outcome"] if proof else None,
        "noise_floor": result.get("noise_floor"),
        "stop_reason": result.get("stop_reason"),
        "holdout": None
        if not proof
        else {
            "trained_model_error": proof["trained_model_error"],
            "optimized_model_error": proof["optimized_model_error"],
            "verdict": proof["verdict"],
            "gate": proof.get("gate"),
            "insisted": proof.get("insisted", False),
            "realised_step": proof.get("realised"),
            "warnings": list(proof.get("warnings", ())),
        },
        "variant_digest": proof.get("variant_digest"),
    }


def progress_of(request: RequestRecord, ledger: Ledger) -> SearchProgress:
    """Where a search stands, from its trials."""
    trials = trials_of(request, ledger)
    found = [(t.outcome.error, t.number, t.factors) for t in trials if t.outcome.error is not None]
    error, _, factors = min(found, default=(None, None, None))
    most = request.parameters.get("maxEvaluations")
    return SearchProgress(
        trials=sum(trial.status is not TrialStatus.RUNNING for trial in trials),
        max_evaluations=most if isinstance(most, int) else None,
        best_error=error,
        best_factors=factors,
    )


def trials_of(request: RequestRecord, ledger: Ledger) -> tuple[TrialRecord, ...]:
    """The trials of a search so far."""
    study = _study_of(request, ledger)
    return () if study is None else ledger.studies.trials(study.id)


def generation_options(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What the engine understands of the original's ``inferenceConfigJson``, and what was left."""
    known = {name: value for name, value in given.items() if name in GenerationConfig.model_fields}
    left = [
        f"inferenceConfigJson: {name[:60]!r} is not known and was ignored"
        for name in given
        if name not in known
    ]
    try:
        checked = GenerationConfig.model_validate(known)
    except ValidationError as error:
        issues = [f"{'.'.join(map(str, i['loc']))}: {i['msg']}" for i in error.errors()]
        raise HTTPException(422, f"inferenceConfigJson is wrong: {'; '.join(issues)}") from None
    return checked.model_dump(mode="json"), left


def _check_allowed(fields: SearchFields) -> None:
    """Refuse what would run code of the caller's choice."""
    known = {*SOURCES, *installed(Group.ERROR_FUNCTIONS)}
    own = [term.function for term in fields.error if term.function not in known]
    if own:
        raise HTTPException(
            422,
            f"{own[0][:100]!r} is no built-in error function ({', '.join(sorted(known))}); "
            "functions of one's own run from the command line, not over HTTP.",
        )
    if is_import_path(fields.sampler):
        raise HTTPException(422, "Over HTTP the sampler is one that is installed, by its name.")
    engine = fields.engine
    if engine is not None and (is_import_path(engine.name) or engine.module is not None):
        raise HTTPException(
            422, "Over HTTP the engine is one that is installed, by its name, without a module."
        )


def _copy_all(
    fields: SearchFields, folder: Path, project_id: str, services: Services
) -> dict[str, DataCopy]:
    uploads = services.store.data_folder(project_id)
    wanted: dict[str, Sequence[str]] = {"stimuli": fields.stimulus_paths}
    single = {
        "expected_outputs": fields.expected_output_path,
        "holdout": fields.holdout_path,
        "holdout_expected_outputs": fields.holdout_expected_output_path,
    }
    wanted |= {name: (path,) for name, path in single.items() if path is not None}
    return {
        name: copy_data(paths, folder, name, settings=services.pointers, uploads=uploads)
        for name, paths in wanted.items()
    }


def _start(request: RequestRecord, services: Services) -> None:
    chain = _chain_of(request, services)
    job = f"ztom-{request.id}-{uuid.uuid4().hex[:8]}"
    if services.ledger.requests.start(request.id, job=job, instead_of=request.job) is None:
        return
    try:
        services.runner.submit(
            SearchJob(
                id=job,
                config=services.store.requests / request.id / CONFIG,
                environment={
                    "ZTOM_ACTOR": f"user:{request.user_id}",
                    "ZTOM_ALLOWED_ROOTS": json.dumps(chain.roots),
                    "ZTOM_DENIED_ROOTS": json.dumps(chain.denied),
                    "ZTOM_CACHE_DIR": str(services.store.cache),
                },
            )
        )
    except ZtomError:
        # Not the search's fault. The job stays on record: whether it runs after all is seen later.
        services.ledger.requests.not_started(request.id, job=job)
        raise
    now = services.ledger.requests.get(request.id)
    if not now.status.is_open or now.job != job:  # cancelled, or started by another meanwhile
        _stop(job, services)


def _chain_of(request: RequestRecord, services: Services) -> ChainSpec:
    """With what the search may refer to: the operator's roots, and of the server's files its own
    chain.
    """
    project = services.ledger.projects.get(request.project_id or "")
    return spec(project.chain, services)


def _study_of(request: RequestRecord, ledger: Ledger) -> StudyRecord | None:
    """A search's study is called after its request."""
    return ledger.studies.latest(request.id)


def _finished_result(study: StudyRecord | None, ledger: Ledger) -> Mapping[str, Any] | None:
    """The result of a study that was proved, or that ended without anything to prove."""
    result = None if study is None else ledger.studies.result(study.id)
    if result is None or (result.get("proof") is None and result["stop_reason"] == "interrupted"):
        return None
    return result


def _explanation(request: RequestRecord, services: Services) -> str | None:
    """What the search said of its own failure; it is cleared when the search starts again."""
    said = services.store.requests / request.id / "run" / "error.txt"
    try:
        return services.store.without_folders(said.read_text(encoding="utf-8"))[:2000]
    except OSError:
        return None
