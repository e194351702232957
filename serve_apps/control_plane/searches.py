"""Searches: from a request to the file that `python -m tune_search` runs, and back to an answer.

`advance` is called again and again, by every replica: it looks at the ledger and at Ray's jobs and
does what is due. All it knows is in the ledger, so it does not matter which process calls it, or
how often, or whether the one before was killed half-way.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cluster.jobs import JobState
from serve_apps.control_plane.chains import project_chain, with_base
from serve_apps.control_plane.data import DataCopy, copy_data, copy_suite
from serve_apps.control_plane.runner import SearchJob
from serve_apps.control_plane.search_answers import (
    answer_of,
    finished_result,
    mastered_checkpoint,
    study_of,
)
from serve_apps.control_plane.search_config import (
    data_references,
    inference_options,
    search_config,
    with_classes,
)
from serve_apps.control_plane.search_order import next_to_start
from serve_apps.control_plane.services import Services
from serve_apps.control_plane.store import disk
from serve_apps.control_plane.work import ChainSpec
from ztom.errors import SearchError, StimuliError, ZtomError
from ztom.io.files import write_whole
from ztom.ledger.projects import ProjectRecord
from ztom.ledger.requests import (
    NewRequest,
    RequestKind,
    RequestRecord,
    RequestStatus,
    new_request_id,
)
from ztom.search.config import SearchConfig
from ztom.search.config_files import dump_config
from ztom.search.data import read_search_data
from ztom.search.result import SearchResult
from ztom.settings import Settings
from ztom.wire.search_requests import SearchFields

logger = logging.getLogger(__name__)

CONFIG = "search.yaml"
#: Data up to this size is read and split before the search is queued, which takes 0.7 s of a core
#: a MiB; more than that is read by the search alone, so that nobody holds the server up.
_READ_AT_ONCE_BYTES = 8 * 2**20


class Step(StrEnum):
    """What is due for a search."""

    NOTHING = "nothing"
    START = "start"
    FINISH = "finish"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class JobSituation:
    """What `next_step` decides by.

    Attributes:
        status: Status of the request in the ledger.
        job: State of its job; None where it has none.
        attempts: Number of times that it was started since a trial of it has ended.
        most_attempts: Number of times that it may be started without one.
        has_result: Whether the ledger holds its result.
        explained: Whether the search itself said why it ended without a result.
    """

    status: RequestStatus
    job: JobState | None
    attempts: int
    most_attempts: int
    has_result: bool
    explained: bool


def next_step(now: JobSituation) -> Step:
    """What is due; a search whose process died goes on, and a few times without getting on."""
    if now.status is RequestStatus.QUEUED:
        is_stopping = now.job is JobState.RUNNING
        return Step.NOTHING if is_stopping else Step.START
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
        QuotaError: The account has all that it may have.
        ZtomError: What is wrong with the search; a data set cannot be read or used.
    """
    limits = services.account_limits
    limits.require_search(services.ledger.requests.open_searches(user_id))
    limits.require_bytes([user_id])
    chain = project_chain(project, services, fields)
    warnings = inference_options(fields.inference_config_json).warnings
    request_id = new_request_id()
    config = search_config(
        fields,
        request_id=request_id,
        chain=chain.config(),
        folder=services.store.requests / request_id,
        engine=services.config.engine,
        ledger=services.config.ledger_address,
    )
    folder = services.store.request_folder(request_id)
    try:
        with disk():
            data, config = _write_folder(fields, config, folder, project.id, services)
        for name, copy in data.items():
            services.ledger.projects.record_data(
                project.id, name, digest=copy.digest, nbytes=copy.nbytes
            )
        # last: as soon as it is on record it may be started
        new = _new_request(config, user_id, project)
        request = services.ledger.requests.create(
            new, request_id=request_id, within=limits.require_search
        )
        return request, warnings
    except BaseException:
        services.store.remove(str(folder))
        raise


def _write_folder(
    fields: SearchFields, config: SearchConfig, folder: Path, project_id: str, services: Services
) -> tuple[dict[str, DataCopy], SearchConfig]:
    """Copy data and suites to where the configuration says, check them, and write it down.

    Returns:
        The copies by name, and the configuration as it was written.
    """
    data = _copy_all(fields, folder, project_id, services)
    for reference, suite in zip(fields.suite_paths, config.suites, strict=True):
        copy_suite(reference, Path(suite), settings=services.pointers)
    if sum(copy.nbytes for copy in data.values()) <= _READ_AT_ONCE_BYTES:
        try:
            config = with_classes(config, fields)
            read_search_data(config)
        except StimuliError as error:
            raise _named_as_sent(error, data.values()) from None
    # the ledger's address may hold a password
    write_whole(folder / CONFIG, dump_config(config), private=True)
    return data, config


def _named_as_sent(error: StimuliError, copies: Iterable[DataCopy]) -> StimuliError:
    """An error about copies of data, as one about what the caller named."""
    for copy in copies:
        error = copy.renamed(error)
    return error


def _new_request(config: SearchConfig, user_id: str, project: ProjectRecord) -> NewRequest:
    parameters = {
        "scalingFactorLimit": config.scaling_factor_limit,
        "maxEvaluations": config.budget.evaluations,
        "error": [term.function for term in config.error],
        "checkpoints": [file.id for file in project.chain],
    }
    return NewRequest(RequestKind.SEARCH, user_id, project.id, parameters)


def _copy_all(
    fields: SearchFields, folder: Path, project_id: str, services: Services
) -> dict[str, DataCopy]:
    uploads = services.store.data_folder(project_id)
    return {
        name: copy_data(
            named.references,
            folder,
            name,
            settings=services.pointers,
            uploads=uploads,
            meaning=named.meaning,
        )
        for name, named in data_references(fields).items()
    }


def advance(services: Services) -> bool:
    """Do what is due for every open search; one that cannot be moved does not hold the others.

    As many run as the cluster has engines for, and projects take turns.

    Returns:
        Whether there was one.
    """
    searches = [r for r in services.ledger.requests.open() if r.kind is RequestKind.SEARCH]
    running = [r for r in searches if r.status is RequestStatus.RUNNING]
    if running:
        services.runner.make_room()
    for request in running:
        _advance_or_log(request, services)
    if len(running) < len(searches):
        waiting = [r for r in searches if r.status is not RequestStatus.RUNNING]
        _start_waiting(waiting, running, services)
    return bool(searches)


def _start_waiting(
    waiting: list[RequestRecord], running: list[RequestRecord], services: Services
) -> None:
    """Start as many searches as there are places for, each project in its turn."""
    config = services.config
    places = config.max_searches or services.runner.search_places(config.engine)
    while (request := next_to_start(waiting, running, places=places)) is not None:
        waiting.remove(request)
        if _advance_or_log(request, services):
            running.append(request)


def _advance_or_log(request: RequestRecord, services: Services) -> bool:
    """Do what is due for one; returns whether it was started."""
    try:
        return _advance(request, services)
    except ZtomError as error:
        logger.error("search %s: %s", request.id, error)
        return False


def _advance(request: RequestRecord, services: Services) -> bool:
    """Do what is due for one whose turn it is; returns whether a queued one was started."""
    state, message = (None, "") if request.job is None else services.runner.state(request.job)
    explanation = _explanation(request, services)
    result = None
    try:
        result = finished_result(study_of(request, services.ledger), services.ledger)
    except SearchError as error:
        explanation = str(error)
    step = next_step(
        JobSituation(
            status=request.status,
            job=state,
            attempts=_attempts(request, state, services),
            most_attempts=services.config.search_attempts,
            has_result=result is not None,
            explained=explanation is not None,
        )
    )
    if step is Step.START:
        services.runner.make_room()
        _start(request, services)
        return request.status is RequestStatus.QUEUED
    if step is Step.FINISH and result is not None:
        finish(request, result, services)
    elif step is Step.FAIL:
        lost = f"ended without a result after {request.attempts} attempts. {message}"[:2000]
        reason = explanation or lost
        logger.error("search %s failed: %s", request.id, reason)
        services.ledger.requests.end(request.id, RequestStatus.FAILED, reason=reason)
    return False


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


def finish(request: RequestRecord, result: SearchResult, services: Services) -> RequestRecord:
    """Write down what came of a search, and add the mastered checkpoint to the project."""
    services.ledger.requests.set_study(request.id, result.study_id)
    return services.ledger.requests.finish(
        request.id,
        result=answer_of(request, result),
        artifact=str(services.store.requests / request.id / "run" / "result.json"),
        checkpoint=mastered_checkpoint(request, result.proof),
        actor=f"user:{request.user_id}",
    )


def _start(request: RequestRecord, services: Services) -> None:
    chain = _chain_of(request, services)
    if _gets_on(request, services):
        services.ledger.requests.forget_attempts(request.id)
    _note_trials(request, services)
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
                    "ZTOM_KEY_FILE": str(services.keys.variants_file),
                    "ZTOM_ALLOWED_ROOTS": json.dumps(chain.roots),
                    "ZTOM_DENIED_ROOTS": json.dumps(chain.denied),
                    "ZTOM_CACHE_DIR": str(services.store.cache),
                    "ZTOM_NAMES_ROOTS": "false",
                    **_storage_of_jobs(),
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


def _storage_of_jobs() -> dict[str, str]:
    """The operator's storage, which the node of a job may not have in its own environment."""
    storage = Settings().storage
    return {} if storage is None else {"ZTOM_STORAGE": storage}


def _attempts(request: RequestRecord, job: JobState | None, services: Services) -> int:
    """Attempts that count against it; whether it got on is looked at where it matters only."""
    given_up = job is not JobState.RUNNING and request.attempts >= services.config.search_attempts
    return 0 if given_up and _gets_on(request, services) else request.attempts


def _gets_on(request: RequestRecord, services: Services) -> bool:
    """Whether a trial has ended since it was started last: what kills it then is something else."""
    try:
        before = int(_trials_file(request, services).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return False
    return _ended_trials(request, services) > before


def _note_trials(request: RequestRecord, services: Services) -> None:
    file = _trials_file(request, services)
    with disk():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, str(_ended_trials(request, services)))


def _trials_file(request: RequestRecord, services: Services) -> Path:
    """Says how many trials had ended when the search was started last."""
    return services.store.requests / request.id / "trials.txt"


def _ended_trials(request: RequestRecord, services: Services) -> int:
    study = study_of(request, services.ledger)
    trials = () if study is None else services.ledger.studies.trials(study.id)
    return sum(trial.outcome is not None for trial in trials)


def _chain_of(request: RequestRecord, services: Services) -> ChainSpec:
    """The chain, and what the search may refer to: the operator's roots, and of the server's own
    files its own chain.
    """
    project = services.ledger.projects.get(request.project_id or "")
    return with_base(project.chain, services).spec(services)


def _explanation(request: RequestRecord, services: Services) -> str | None:
    """What the search said of its own failure; it is cleared when the search starts again."""
    file = services.store.requests / request.id / "run" / "error.txt"
    try:
        return services.store.without_folders(file.read_text(encoding="utf-8"))[:2000]
    except OSError:
        return None
