"""Analyses: checkpoints compared, and asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException

from serve_apps.control_plane.access import Caller, CallerOf, Permission, ServicesOf, route
from serve_apps.control_plane.answers import model_answers
from serve_apps.control_plane.asked_models import AskedModel, asked_chain, asked_path
from serve_apps.control_plane.chains import project_chain
from serve_apps.control_plane.data import FileMeaning, copy_data
from serve_apps.control_plane.forms import FormReader
from serve_apps.control_plane.pending import pending_request
from serve_apps.control_plane.questions import BlendAnswers, StimulusFile
from serve_apps.control_plane.routes.files import display_name, form_of, parsed_fields
from serve_apps.control_plane.routes.projects import require_format
from serve_apps.control_plane.search_config import InferenceOptions, inference_options
from serve_apps.control_plane.services import Services
from serve_apps.control_plane.work import compare, open_chain
from ztom.io.files import write_whole
from ztom.ledger.requests import RequestKind
from ztom.stimuli.documents import stimulus_lines
from ztom.wire.analyses import (
    Inference,
    InferenceAnswer,
    InferenceBatch,
    Sensitivity,
    SensitivityAnswer,
    SensitivityBatch,
    StaticAnalysis,
    StaticAnswer,
)

router = APIRouter(tags=["edits and analyses"])

#: Stimuli travel with the question to the engine's process.
_MOST_BYTES = 64 * 2**20

_Answer = TypeVar("_Answer", InferenceAnswer, SensitivityAnswer)
_ModelFor = Callable[[Any, InferenceOptions], AskedModel]


@route(router, "POST", "/static_analysis", Permission.READ)
async def static_analysis(
    body: StaticAnalysis, caller: CallerOf, services: ServicesOf
) -> StaticAnswer:
    """How far a checkpoint is from another, by tensor and row.

    ``CHOSEN`` compares it with the one before it, ``LATEST`` with the last of the chain.
    Differences are signed, the chosen one minus the other: of weights the mean of each row (over
    all but the first dimension), of biases each element; the scores are mean absolute differences
    over all elements of the chosen names, see ``totalWeightContribution``.
    """
    project_id = await asyncio.to_thread(caller.project, body.project_id)
    project = await asyncio.to_thread(services.ledger.projects.get, project_id)
    chain = await asyncio.to_thread(project_chain, project, services, body)
    at = chain.position(body.file_id)
    other = chain.length - 1 if body.comparison_type == "LATEST" else at - 1
    if other < 0:
        raise HTTPException(422, "There is no checkpoint before the first one.")
    parameters = {"fileId": body.file_id, "comparisonType": body.comparison_type}
    kind = RequestKind.STATIC_ANALYSIS
    async with pending_request(kind, caller, services, project_id, parameters) as pending:
        result = await services.runner.call(
            compare,
            chain.spec(services),
            other=other,
            chosen=at,
            weights=body.weight_names,
            biases=body.bias_names,
        )
        answer = StaticAnswer.model_validate(
            {
                **result,
                "result": result,
                "requestId": pending.record.id,
                "warnings": body.warnings,
            }
        )
        scores = ("weight_summary_score", "bias_summary_score")
        pending.result = {name: result[name] for name in scores}
        folder = await asyncio.to_thread(services.store.request_folder, pending.record.id)
        path = folder / "result.json"
        await asyncio.to_thread(write_whole, path, answer.result.to_json(), private=True)
        pending.artifact = str(path)
    return answer


@route(
    router,
    "POST",
    "/dynamic_analysis/inference",
    Permission.USER,
    openapi_extra=form_of(Inference),
)
async def inference(request: Request, caller: CallerOf, services: ServicesOf) -> InferenceAnswer:
    """What a checkpoint answers to the stimulus, or the stimuli, of the form's file.

    The path is the ``filePath`` of a project's file, ``<projectId>/results/<requestId>.tar`` of a
    search that ended, or an address under the operator's roots.
    """
    return await _from_form(
        request,
        InferenceAnswer,
        Inference,
        caller,
        services,
        lambda body, options: _named_model(body, options, caller, services),
    )


@route(router, "POST", "/dynamic_analysis/inference/batch", Permission.USER)
async def inference_batch(
    body: InferenceBatch, caller: CallerOf, services: ServicesOf
) -> InferenceAnswer:
    """The same on stimuli under the operator's roots, one or several a file."""
    return await _from_paths(
        InferenceAnswer,
        body,
        caller,
        services,
        lambda body, options: _named_model(body, options, caller, services),
    )


@route(
    router,
    "POST",
    "/dynamic_analysis/sensitivity",
    Permission.READ,
    openapi_extra=form_of(Sensitivity),
)
async def sensitivity(
    request: Request, caller: CallerOf, services: ServicesOf
) -> SensitivityAnswer:
    """What the latest checkpoint answers, and what it does with one step scaled."""
    return await _from_form(
        request,
        SensitivityAnswer,
        Sensitivity,
        caller,
        services,
        lambda body, options: _scaled(body, options, caller, services),
    )


@route(router, "POST", "/dynamic_analysis/sensitivity/batch", Permission.READ)
async def sensitivity_batch(
    body: SensitivityBatch, caller: CallerOf, services: ServicesOf
) -> SensitivityAnswer:
    """The same on stimuli under the operator's roots, one or several a file."""
    return await _from_paths(
        SensitivityAnswer,
        body,
        caller,
        services,
        lambda body, options: _scaled(body, options, caller, services),
    )


def _named_model(
    body: Inference, options: InferenceOptions, caller: Caller, services: Services
) -> AskedModel:
    require_format(body.format)
    engine = options.engine(services.config.engine)
    return asked_path(
        body.model_path, body.base_model_path, caller, services, engine=engine, allowed=body
    )


def _scaled(
    body: Sensitivity, options: InferenceOptions, caller: Caller, services: Services
) -> AskedModel:
    project = services.ledger.projects.get(caller.project(body.project_id))
    chain = project_chain(project, services, body)
    engine = options.engine(services.config.engine)
    if body.factor_groups is not None and body.scaling_factors is not None:
        chain.position(body.file_id)
        groups = body.factor_groups.model_dump(mode="json", exclude_none=True)
        spec = replace(chain.spec(services), groups=groups)
        factors = open_chain(spec).check_factors(body.scaling_factors)
    else:
        groups, factors = None, chain.factors({body.file_id: (body.scaling_factor or 0.0,)})
    sets = ((0.0,) * len(factors), factors)
    return asked_chain(chain, sets, services, engine=engine, groups=groups)


async def _from_form(
    request: Request,
    answers: type[_Answer],
    form_model: type[Any],
    caller: Caller,
    services: Services,
    model_for: _ModelFor,
) -> _Answer:
    """Stimuli come in the form's file."""

    def check(fields: Mapping[str, str]) -> tuple[Any, InferenceOptions, AskedModel]:
        body = parsed_fields(form_model, fields)
        options = inference_options(body.inference_config_json)
        return body, options, model_for(body, options)

    async with FormReader(request, services.store, before_file=check) as form:
        body, options, model = await asyncio.to_thread(check, form.fields)
        if form.file is None:
            raise HTTPException(422, "The form has no file with stimuli.")
        _check_size(form.file.nbytes)
        name = display_name(form.file_name) or "stimuli.jsonl"
        content = await asyncio.to_thread(form.file.path.read_bytes)
        stimuli = await asyncio.to_thread(_one_document, name, content)
        return await _answer(answers, body, options, stimuli, caller, services, model)


async def _from_paths(
    answers: type[_Answer],
    body: Any,
    caller: Caller,
    services: Services,
    model_for: _ModelFor,
) -> _Answer:
    """Stimuli lie under the operator's roots."""

    def prepare() -> tuple[InferenceOptions, AskedModel]:
        options = inference_options(body.inference_config_json)
        return options, model_for(body, options)

    options, model = await asyncio.to_thread(prepare)
    folder = services.store.begin_folder()
    project_id = getattr(body, "project_id", None)
    uploads = None if project_id is None else services.store.data_folder(project_id)

    def read() -> StimulusFile:
        copy = copy_data(
            body.stimulus_paths,
            folder,
            "stimuli",
            settings=services.pointers,
            uploads=uploads,
            meaning=FileMeaning.STIMULUS,
        )
        _check_size(copy.nbytes)
        return StimulusFile(copy.name, copy.path.suffix, copy.path.read_bytes(), copy.names)

    try:
        stimuli = await asyncio.to_thread(read)
    finally:
        services.store.remove(str(folder))
    return await _answer(answers, body, options, stimuli, caller, services, model)


def _one_document(name: str, content: bytes) -> StimulusFile:
    """A form's file: one stimulus, or several where it is a list or a table of them.

    Raises:
        StimuliError: It is not as it should be.
    """
    lines = stimulus_lines(name, content)
    if lines is None:
        return StimulusFile(name, ".csv" if name.lower().endswith(".csv") else ".jsonl", content)
    return StimulusFile(name, ".jsonl", "\n".join(lines).encode())


def _check_size(nbytes: int) -> None:
    if nbytes > _MOST_BYTES:
        raise HTTPException(413, f"The stimuli are longer than {_MOST_BYTES} bytes.")


async def _answer(
    answers: type[_Answer],
    body: Any,
    options: InferenceOptions,
    stimuli: StimulusFile,
    caller: Caller,
    services: Services,
    model: AskedModel,
) -> _Answer:
    is_inference = answers is InferenceAnswer
    kind = RequestKind.INFERENCE if is_inference else RequestKind.SENSITIVITY
    project_id = getattr(body, "project_id", None)
    parameters = {"factors": [list(factors) for factors in model.factor_sets]}
    question = BlendAnswers(
        model.factor_sets,
        stimuli,
        options.generation.model_dump(mode="json"),
        body.batch_size,
    )
    async with pending_request(kind, caller, services, project_id, parameters) as pending:
        reply = await services.runner.ask(model.spec, question)
        # answers are not kept: they may repeat what is in the prompts
        pending.result = {"stimuli": len(reply.turns)}
    result = model_answers(reply)
    return answers.model_validate(
        {
            **result,
            "result": result,
            "requestId": pending.record.id,
            "warnings": [*body.warnings, *options.warnings],
        }
    )
