"""OpenAI's routes, and feedback on the answers that they gave."""

from __future__ import annotations

import asyncio
from typing import Any, Self

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field, model_validator
from starlette.exceptions import HTTPException

from serve_apps.control_plane.access import Caller, CallerOf, Permission, ServicesOf, route
from serve_apps.control_plane.services import Services
from serve_apps.control_plane.wire import Finite, Strict, Text
from serve_apps.gateway.gateway import Asker
from serve_apps.gateway.quota import Quota
from serve_apps.variants.responses import json_response, read_body
from serve_apps.variants.wire import Kind, Reply, no_such_model, parse_body
from ztom.ledger.rollouts import FeedbackRecord
from ztom.rollout.routing import RoutingTable, find_variant, variant_id

router = APIRouter(tags=["models"])

_JSON_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object", "required": ["model"]}}},
    }
}
#: Labels that say how wrong an answer was, from 0 to 1; others need a score.
_LABELS = {"good": 0.0, "correct": 0.0, "up": 0.0, "bad": 1.0, "wrong": 1.0, "down": 1.0}


class Feedback(Strict):
    """What somebody thinks of an answer: a score from 0 (wrong) to 1 (right), or a label."""

    response_id: str = Field(max_length=200)
    score: Finite | None = Field(default=None, ge=0, le=1)
    label: Text | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.score is None and self.label not in _LABELS:
            raise ValueError(f"give a score from 0 to 1, or a label: {', '.join(_LABELS)}")
        return self

    @property
    def error(self) -> float:
        """From 0 (right) to 1 (wrong)."""
        return _LABELS[self.label or ""] if self.score is None else 1.0 - self.score


@route(router, "POST", "/v1/chat/completions", Permission.INFER, openapi_extra=_JSON_BODY)
async def chat_completions(request: Request, caller: CallerOf, services: ServicesOf) -> Response:
    """OpenAI's chat completions; ``model`` is an alias, ``alias@digest`` or a variant's id."""
    return await _answer("chat", request, caller, services)


@route(router, "POST", "/v1/completions", Permission.INFER, openapi_extra=_JSON_BODY)
async def completions(request: Request, caller: CallerOf, services: ServicesOf) -> Response:
    """OpenAI's completions."""
    return await _answer("completion", request, caller, services)


@route(router, "GET", "/v1/models", Permission.INFER)
async def models(caller: CallerOf, services: ServicesOf) -> dict[str, Any]:
    """Aliases, and the variants that run, of the caller's projects and of everybody."""
    table, asker = services.gateway.table, _asker(caller, services)
    cards = [
        _alias_card(table, alias)
        for alias, each in table.routes.items()
        if asker.may_call(each.project)
    ]
    cards += [
        _variant_card(table, digest)
        for digest, where in table.placements.items()
        if asker.may_call(where.project)
    ]
    return {"object": "list", "data": cards}


@route(router, "GET", "/v1/models/{name:path}", Permission.INFER)
async def model(name: str, caller: CallerOf, services: ServicesOf) -> Response:
    """One of them."""
    table, asker = services.gateway.table, _asker(caller, services)
    if name in table.routes and asker.may_call(table.routes[name].project):
        return JSONResponse(_alias_card(table, name))
    digest = find_variant(table, name)
    if digest is None or not asker.may_call(table.placements[digest].project):
        return json_response(no_such_model(name))
    return JSONResponse(_variant_card(table, digest))


@route(router, "POST", "/v1/feedback", Permission.INFER, status_code=201)
def feedback(body: Feedback, caller: CallerOf, services: ServicesOf) -> dict[str, Any]:
    """Judge an answer, once."""
    found = services.gateway.ids.read(body.response_id)
    if found is None:
        raise HTTPException(404, "There is no such answer: give the id as it was received.")
    response_id, origin = found
    services.ledger.endpoints.rollouts.add_feedback(
        FeedbackRecord(
            response_id=response_id,
            variant=origin.variant,
            role=origin.role,
            error=body.error,
            user_id=caller.user.id,
            label=body.label,
            rollout_id=origin.release,
            step=origin.step,
        )
    )
    return {"responseId": response_id, "variant": origin.variant, "role": origin.role}


async def _answer(kind: Kind, request: Request, caller: Caller, services: Services) -> Response:
    gateway = services.gateway
    raw = await read_body(request, services.config.max_body_bytes)
    if isinstance(raw, Reply):
        return gateway.refuse(raw)
    if len(raw) > _PARSE_ASIDE_BYTES:
        body = await asyncio.to_thread(parse_body, raw)
    else:
        body = parse_body(raw)
    if isinstance(body, Reply):
        return gateway.refuse(body)
    asker = _asker(caller, services)
    return await gateway.answer(kind, body, asker, request.headers, nbytes=len(raw))


#: Parsing a longer body would hold every other request up.
_PARSE_ASIDE_BYTES = 256 * 1024


def _asker(caller: Caller, services: Services) -> Asker:
    config, key = services.config, caller.key
    quotas = [(caller.user.id, Quota(config.requests_per_minute, config.tokens_per_minute))]
    if key is not None:
        quotas.append((key.id, Quota(key.requests_per_minute, key.tokens_per_minute)))
    whose = caller.user.id if key is None else key.id
    return Asker(whose, tuple(quotas), caller.projects)


def _alias_card(table: RoutingTable, alias: str) -> dict[str, Any]:
    return _variant_card(table, table.routes[alias].stable) | {"id": alias}


def _variant_card(table: RoutingTable, digest: str) -> dict[str, Any]:
    return {
        "id": variant_id(table.placements[digest].name, digest),
        "object": "model",
        "created": 0,
        "owned_by": "ztom",
        "digest": digest,
    }
