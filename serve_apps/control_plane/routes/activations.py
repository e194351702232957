"""Analyses of activations: their requests are read and checked, and not answered yet (501)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, NoReturn

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException

from serve_apps.control_plane.access import Caller, CallerOf, Permission, ServicesOf, route
from serve_apps.control_plane.forms import FormReader
from serve_apps.control_plane.routes.files import form_of, parsed_fields
from serve_apps.control_plane.services import Services
from ztom.wire.activations import (
    Comparative,
    ComparativeBatch,
    Contribution,
    ContributionBatch,
    CorrelationBatch,
    Experts,
    ExpertsBatch,
)
from ztom.wire.problems import Problem

router = APIRouter(tags=["edits and analyses"])

_LATER: dict[str, Any] = {"status_code": 501, "response_model": Problem}


@route(
    router,
    "POST",
    "/dynamic_analysis/comparative",
    Permission.READ,
    openapi_extra=form_of(Comparative),
    **_LATER,
)
async def comparative(request: Request, caller: CallerOf, services: ServicesOf) -> NoReturn:
    """How a step changes activations: not answered yet."""
    await _refuse_form(request, Comparative, caller, services)


@route(router, "POST", "/dynamic_analysis/comparative/batch", Permission.READ, **_LATER)
async def comparative_batch(body: ComparativeBatch, caller: CallerOf) -> NoReturn:
    """How a step changes activations, on several stimuli: not answered yet."""
    await _refuse_batch(body, caller)


@route(
    router,
    "POST",
    "/dynamic_analysis/contribution",
    Permission.READ,
    openapi_extra=form_of(Contribution),
    **_LATER,
)
async def contribution(request: Request, caller: CallerOf, services: ServicesOf) -> NoReturn:
    """What a step contributes to activations: not answered yet."""
    await _refuse_form(request, Contribution, caller, services)


@route(router, "POST", "/dynamic_analysis/contribution/batch", Permission.READ, **_LATER)
async def contribution_batch(body: ContributionBatch, caller: CallerOf) -> NoReturn:
    """What a step contributes to activations, on several stimuli: not answered yet."""
    await _refuse_batch(body, caller)


@route(router, "POST", "/dynamic_analysis/correlation/batch", Permission.READ, **_LATER)
async def correlation_batch(body: CorrelationBatch, caller: CallerOf) -> NoReturn:
    """How layers correlate with the output, on several stimuli: not answered yet."""
    await _refuse_batch(body, caller)


@route(
    router,
    "POST",
    "/dynamic_analysis/moe",
    Permission.READ,
    openapi_extra=form_of(Experts),
    **_LATER,
)
async def moe(request: Request, caller: CallerOf, services: ServicesOf) -> NoReturn:
    """What experts and their routers do: not answered yet."""
    await _refuse_form(request, Experts, caller, services)


@route(router, "POST", "/dynamic_analysis/moe/batch", Permission.READ, **_LATER)
async def moe_batch(body: ExpertsBatch, caller: CallerOf) -> NoReturn:
    """What experts and their routers do, on several stimuli: not answered yet."""
    await _refuse_batch(body, caller)


async def _refuse_form(
    request: Request, model: type[Comparative], caller: Caller, services: Services
) -> NoReturn:
    """Read a form and say that there is no answer yet."""

    def check(fields: Mapping[str, str]) -> None:
        caller.project(parsed_fields(model, fields).project_id)

    async with FormReader(request, services.store, before_file=check) as form:
        await asyncio.to_thread(check, form.fields)
        if form.file is None:
            raise HTTPException(422, "The form has no file with stimuli.")
    _refuse()


async def _refuse_batch(body: Comparative, caller: Caller) -> NoReturn:
    """Say that there is no answer yet, to whoever may read the project."""
    await asyncio.to_thread(caller.project, body.project_id)
    _refuse()


def _refuse() -> NoReturn:
    raise HTTPException(501, "This analysis is not supported yet.")
