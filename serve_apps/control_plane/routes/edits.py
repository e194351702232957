"""Edits and analyses: factors set by hand, training removed, checkpoints compared and asked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException

from serve_apps.control_plane.access import Caller, CallerOf, Permission, ServicesOf, route
from serve_apps.control_plane.chains import chain_of, chain_of_references, factors_of, position_of
from serve_apps.control_plane.data import copy_data, data_suffix
from serve_apps.control_plane.downloads import send_folder
from serve_apps.control_plane.forms import FormReader
from serve_apps.control_plane.openapi import SENDS_BYTES
from serve_apps.control_plane.routes.files import form_of, parsed_fields
from serve_apps.control_plane.routes.projects import require_format
from serve_apps.control_plane.search_config import generation_options
from serve_apps.control_plane.services import Services
from serve_apps.control_plane.work import ChainSpec, answer, blend, compare
from ztom.errors import ZtomError
from ztom.ledger.requests import NewRequest, RequestKind, RequestRecord, RequestStatus
from ztom.wire.analyses import (
    Edit,
    Inference,
    InferenceAnswer,
    InferenceBatch,
    Metatune,
    ParameterDifferences,
    Sensitivity,
    SensitivityAnswer,
    SensitivityBatch,
    StaticAnalysis,
)
from ztom.wire.problems import Problem

logger = logging.getLogger(__name__)

router = APIRouter(tags=["edits and analyses"])

_Texts = TypeVar("_Texts", bound=InferenceAnswer)


@route(router, "POST", "/metatune", Permission.WRITE, **SENDS_BYTES)
async def metatune(body: Metatune, caller: CallerOf, services: ServicesOf) -> StreamingResponse:
    """Scale steps of the chain by hand and download the blend, one tar of its folder."""
    if len(body.file_ids) != len(body.scaling_factors):
        raise HTTPException(422, "fileIds and scalingFactors differ in length.")
    if len(set(body.file_ids)) != len(body.file_ids):
        raise HTTPException(422, "A file is named twice.")
    factors = dict(zip(body.file_ids, body.scaling_factors, strict=True))
    return await _edit(RequestKind.METATUNE, body, factors, caller, services)


@route(router, "POST", "/edit", Permission.WRITE, **SENDS_BYTES)
async def edit(body: Edit, caller: CallerOf, services: ServicesOf) -> StreamingResponse:
    """Remove what was trained in the steps that end in these files, and download the rest."""
    factors = dict.fromkeys(body.file_ids, -1.0)
    return await _edit(RequestKind.EDIT, body, factors, caller, services)


@route(router, "POST", "/static_analysis", Permission.READ)
async def static_analysis(
    body: StaticAnalysis, caller: CallerOf, services: ServicesOf
) -> ParameterDifferences:
    """How far a checkpoint is from another, by tensor and row.

    ``CHOSEN`` compares it with the one before it, ``LATEST`` with the last of the chain. The
    differences are mean absolute differences of each row (over all but the first dimension); the
    scores are those over all elements, see ``totalWeightContribution``.
    """
    project_id = await asyncio.to_thread(caller.project, body.project_id)
    project = await asyncio.to_thread(services.ledger.projects.get, project_id)
    at = position_of(project, body.file_id)
    other = len(project.chain) - 1 if body.comparison_type == "LATEST" else at - 1
    if other < 0:
        raise HTTPException(422, "There is no checkpoint before the first one.")
    differences = await services.runner.call(
        compare,
        chain_of(project, services),
        old=other,
        new=at,
        weights=body.weight_names,
        biases=body.bias_names,
    )
    return ParameterDifferences.model_validate({**differences, "warnings": body.warnings})


@route(
    router,
    "POST",
    "/dynamic_analysis/inference",
    Permission.USER,
    openapi_extra=form_of(Inference),
)
async def inference(request: Request, caller: CallerOf, services: ServicesOf) -> InferenceAnswer:
    """What a checkpoint under the operator's roots answers to the stimuli of the form's file."""
    return await _from_form(
        request,
        InferenceAnswer,
        Inference,
        caller,
        services,
        RequestKind.INFERENCE,
        lambda body: _lone_chain(body, services),
    )


@route(router, "POST", "/dynamic_analysis/inference/batch", Permission.USER)
async def inference_batch(
    body: InferenceBatch, caller: CallerOf, services: ServicesOf
) -> InferenceAnswer:
    """The same on stimuli under the operator's roots."""
    chain, factor_sets = await asyncio.to_thread(_lone_chain, body, services)
    return await _from_paths(
        InferenceAnswer, body, caller, services, RequestKind.INFERENCE, chain, factor_sets
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
        RequestKind.SENSITIVITY,
        lambda body: _scaled(body, caller, services),
    )


@route(router, "POST", "/dynamic_analysis/sensitivity/batch", Permission.READ)
async def sensitivity_batch(
    body: SensitivityBatch, caller: CallerOf, services: ServicesOf
) -> SensitivityAnswer:
    """The same on stimuli under the operator's roots."""
    chain, factor_sets = await asyncio.to_thread(_scaled, body, caller, services)
    return await _from_paths(
        SensitivityAnswer, body, caller, services, RequestKind.SENSITIVITY, chain, factor_sets
    )


_LATER = (
    "/dynamic_analysis/comparative",
    "/dynamic_analysis/contribution",
    "/dynamic_analysis/correlation",
    "/dynamic_analysis/moe",
)


def _later() -> NoReturn:
    """An analysis of the original product that this server does not have yet: status 501."""
    raise HTTPException(501, "This analysis is not supported yet.")


for _path in _LATER:
    for _form in ("", "/batch"):
        if not (_path.endswith("correlation") and _form == ""):
            route(
                router,
                "POST",
                _path + _form,
                Permission.USER,
                status_code=501,
                response_model=Problem,
                name=(_path + _form).removeprefix("/dynamic_analysis/").replace("/", "_"),
            )(_later)


async def _edit(
    kind: RequestKind,
    body: Edit,
    factors: Mapping[str, float],
    caller: Caller,
    services: Services,
) -> StreamingResponse:
    project_id = await asyncio.to_thread(caller.project, body.project_id)
    project = await asyncio.to_thread(services.ledger.projects.get, project_id)
    alpha = factors_of(project, factors)
    chain = chain_of(project, services)
    parameters = {"fileIds": list(factors), "scalingFactors": list(factors.values())}
    async with _request(kind, caller, services, project_id, parameters) as pending:
        folder = await asyncio.to_thread(services.store.request_folder, pending.record.id)
        target = str(folder / "variant")
        written = await services.runner.call(
            blend,
            chain,
            alpha,
            target,
            ledger=services.config.ledger_address,
            actor=caller.actor,
        )
        warnings = [services.store.without_folders(text) for text in written.warnings]
        pending.result = {
            "factors": list(alpha),
            "variantDigest": written.digest,
            "realisedStep": written.realised,
            "warnings": warnings,
        }
        pending.artifact = target
    headers = {"X-Ztom-Request-Id": pending.record.id, "X-Ztom-Variant": written.digest}
    if body.warnings or warnings:
        notes = " | ".join(" ".join(text.split()) for text in (*body.warnings, *warnings))
        headers["X-Ztom-Warnings"] = notes.encode("ascii", "replace").decode()[:2000]
    name = f"{kind}-{pending.record.id[:8]}.tar"
    return await asyncio.to_thread(lambda: send_folder(target, name, services, headers))


def _lone_chain(
    body: Inference, services: Services
) -> tuple[ChainSpec, tuple[tuple[float, ...], ...]]:
    """The model that is named, or the adapter over the base model that is."""
    from ztom.checkpoints.checkpoint import open_checkpoint  # it imports torch

    require_format(body.format)
    references = [body.model_path]
    if body.base_model_path:
        references.insert(0, body.base_model_path)
    opened = [open_checkpoint(reference, settings=services.pointers) for reference in references]
    if opened[-1].kind == "adapter" and len(opened) == 1:
        raise HTTPException(422, "The model is an adapter: give baseModelPath as well.")
    if opened[-1].kind == "full":
        references = references[-1:]
    at_rest: tuple[float, ...] = (0.0,) * (len(references) - 1)
    return chain_of_references(references, services), (at_rest,)


def _scaled(
    body: Sensitivity, caller: Caller, services: Services
) -> tuple[ChainSpec, tuple[tuple[float, ...], ...]]:
    project = services.ledger.projects.get(caller.project(body.project_id))
    factors = factors_of(project, {body.file_id: body.scaling_factor})
    return chain_of(project, services), ((0.0,) * len(factors), factors)


async def _from_form(
    request: Request,
    answers: type[_Texts],
    model: type[Any],
    caller: Caller,
    services: Services,
    kind: RequestKind,
    chain_for: Callable[[Any], tuple[ChainSpec, tuple[tuple[float, ...], ...]]],
) -> _Texts:
    """Stimuli come in the form's file."""

    def check(fields: Mapping[str, str]) -> Any:
        body = parsed_fields(model, fields)
        return body, *chain_for(body)

    async with FormReader(request, services.store, before_file=check) as form:
        body, chain, factor_sets = await asyncio.to_thread(check, form.fields)
        if form.file is None:
            raise HTTPException(422, "The form has no file with stimuli.")
        named = form.file.path.with_suffix(data_suffix(form.file_name or ""))
        await asyncio.to_thread(form.file.path.rename, named)
        try:
            return await _answer(
                answers, body, str(named), caller, services, kind, chain, factor_sets
            )
        finally:
            named.unlink(missing_ok=True)


async def _from_paths(
    answers: type[_Texts],
    body: Any,
    caller: Caller,
    services: Services,
    kind: RequestKind,
    chain: ChainSpec,
    factor_sets: tuple[tuple[float, ...], ...],
) -> _Texts:
    """Stimuli lie under the operator's roots."""
    folder = services.store.begin_folder()
    project_id = getattr(body, "project_id", None)
    uploads = None if project_id is None else services.store.data_folder(project_id)
    try:
        copy = await asyncio.to_thread(
            lambda: copy_data(
                body.stimulus_paths,
                folder,
                "stimuli",
                settings=services.pointers,
                uploads=uploads,
            )
        )
        return await _answer(
            answers, body, str(copy.path), caller, services, kind, chain, factor_sets
        )
    finally:
        services.store.remove(str(folder))


async def _answer(
    answers: type[_Texts],
    body: Any,
    stimuli: str,
    caller: Caller,
    services: Services,
    kind: RequestKind,
    chain: ChainSpec,
    factor_sets: tuple[tuple[float, ...], ...],
) -> _Texts:
    generation, left = generation_options(body.inference_config_json)
    project_id = getattr(body, "project_id", None)
    parameters = {"factors": [list(factors) for factors in factor_sets]}
    async with _request(kind, caller, services, project_id, parameters) as pending:
        texts = await services.runner.call(
            answer,
            chain,
            factor_sets,
            stimuli,
            engine=services.config.engine.model_dump(mode="json"),
            generation=generation.model_dump(mode="json"),
            batch_size=body.batch_size,
        )
        # answers are not kept: they may repeat what is in the prompts
        pending.result = {"stimuli": len(texts[0])}
    names = ("model_output", "attenuated_model_output")
    content = dict(zip(names, texts, strict=False))
    warnings = [*body.warnings, *left]
    return answers.model_validate({**content, "requestId": pending.record.id, "warnings": warnings})


@dataclass
class _Asked:
    """A request under way; what came of it is filled in."""

    record: RequestRecord
    result: Mapping[str, object] = field(default_factory=dict)
    artifact: str | None = None


@asynccontextmanager
async def _request(
    kind: RequestKind,
    caller: Caller,
    services: Services,
    project_id: str | None,
    parameters: Mapping[str, object],
) -> AsyncIterator[_Asked]:
    """Keep a request on record from its beginning to its end, whichever end that is."""
    ledger = services.ledger.requests

    def begin() -> RequestRecord:
        record = ledger.create(NewRequest(kind, caller.user.id, project_id, parameters))
        ledger.start(record.id, job=services.store.replica)
        return record

    pending = _Asked(await asyncio.shield(asyncio.to_thread(begin)))
    try:
        yield pending
        await asyncio.to_thread(
            lambda: ledger.finish(
                pending.record.id, result=pending.result, artifact=pending.artifact
            )
        )
    except BaseException as error:
        message = str(error) if isinstance(error, ZtomError) else type(error).__name__
        reason = services.store.without_folders(message)
        end = asyncio.to_thread(
            lambda: ledger.end(pending.record.id, RequestStatus.FAILED, reason=reason)
        )
        try:
            await asyncio.shield(end)
        except (ZtomError, asyncio.CancelledError) as late:
            logger.warning("request %s has no end on record: %s", pending.record.id, late)
        raise
