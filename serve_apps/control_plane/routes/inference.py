"""OpenAI's routes, and feedback on the answers that they gave."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from serve_apps.control_plane.access import Caller, CallerOf, Permission, ServicesOf, route
from serve_apps.control_plane.services import Services
from serve_apps.gateway.gateway import Asker
from serve_apps.gateway.quota import Quota
from serve_apps.variants.request_fields import Kind
from serve_apps.variants.responses import json_response, read_openai
from serve_apps.variants.wire import Reply, no_such_model
from ztom.ledger.feedback import FeedbackRecord
from ztom.rollout.routing import RoutingTable, find_variant, variant_id
from ztom.wire.inference import (
    ChatCompletion,
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingList,
    EmbeddingRequest,
    Feedback,
    FeedbackReceipt,
    ModelCard,
    ModelList,
    OpenAIProblem,
    TextCompletion,
)

router = APIRouter(tags=["models"])

ModelName = Annotated[str, Field(examples=["support"])]

_REFUSED: dict[int | str, dict[str, Any]] = {
    "default": {"model": OpenAIProblem, "description": "Refused, or failed, in OpenAI's form."}
}


def _openai(request: type[BaseModel], answer: type[BaseModel]) -> dict[str, Any]:
    """Options of a route whose body is read, and whose answer is made, by the gateway."""
    schema = request.model_json_schema()
    content = {"application/json": {"schema": schema}}
    return {
        "responses": {200: {"model": answer, "description": "The answer."}, **_REFUSED},
        "openapi_extra": {"requestBody": {"required": True, "content": content}},
    }


@route(
    router,
    "POST",
    "/v1/chat/completions",
    Permission.INFER,
    plain=True,
    **_openai(ChatCompletionRequest, ChatCompletion),
)
async def chat_completions(request: Request, caller: CallerOf, services: ServicesOf) -> Response:
    """OpenAI's chat completions; ``model`` is an alias, ``alias@digest`` or a variant's id."""
    return await _answer("chat", request, caller, services)


@route(
    router,
    "POST",
    "/v1/completions",
    Permission.INFER,
    plain=True,
    **_openai(CompletionRequest, TextCompletion),
)
async def completions(request: Request, caller: CallerOf, services: ServicesOf) -> Response:
    """OpenAI's completions."""
    return await _answer("completion", request, caller, services)


@route(
    router,
    "POST",
    "/v1/embeddings",
    Permission.INFER,
    plain=True,
    **_openai(EmbeddingRequest, EmbeddingList),
)
async def embeddings(request: Request, caller: CallerOf, services: ServicesOf) -> Response:
    """OpenAI's embeddings, of a model that gives them."""
    return await _answer("embedding", request, caller, services)


@route(router, "GET", "/v1/models", Permission.INFER, responses=_REFUSED)
async def models(caller: CallerOf, services: ServicesOf) -> ModelList:
    """Aliases, and the variants that run, of the caller's projects and of everybody."""
    table, asker = services.gateway.table, _asker(caller, services)
    cards = [
        _alias_card(table, alias)
        for alias, entry in table.routes.items()
        if asker.may_call(entry.project)
    ]
    cards += [
        _variant_card(table, digest)
        for digest, where in table.placements.items()
        if asker.may_call(where.project)
    ]
    return ModelList(data=tuple(cards))


@route(
    router,
    "GET",
    "/v1/models/{name:path}",
    Permission.INFER,
    response_model=ModelCard,
    responses=_REFUSED,
)
async def model(name: ModelName, caller: CallerOf, services: ServicesOf) -> ModelCard | Response:
    """One of them."""
    table, asker = services.gateway.table, _asker(caller, services)
    if name in table.routes and asker.may_call(table.routes[name].project):
        return _alias_card(table, name)
    digest = find_variant(table, name)
    if digest is None or not asker.may_call(table.placements[digest].project):
        return json_response(no_such_model(name))
    return _variant_card(table, digest)


@route(router, "POST", "/v1/feedback", Permission.INFER, status_code=201)
def feedback(body: Feedback, caller: CallerOf, services: ServicesOf) -> FeedbackReceipt:
    """Judge an answer, once."""
    answered = services.gateway.ids.read(body.response_id)
    if answered is None:
        raise HTTPException(404, "There is no such answer: give the id as it was received.")
    response_id, origin = answered
    services.ledger.endpoints.rollouts.feedback.add(
        FeedbackRecord(
            response_id=response_id,
            variant=origin.variant,
            role=origin.role,
            error=body.error,
            user_id=caller.user.id,
            label=body.label,
            rollout_id=origin.release,
            step=origin.step,
            caller=services.gateway.callers.caller(_key_of(caller)),
        )
    )
    return FeedbackReceipt(response_id=response_id, variant=origin.variant, role=origin.role)


async def _answer(kind: Kind, request: Request, caller: Caller, services: Services) -> Response:
    gateway = services.gateway
    body, nbytes = await read_openai(request, services.config.max_body_bytes)
    if isinstance(body, Reply):
        return gateway.refuse(body)
    asker = _asker(caller, services)
    return await gateway.answer(kind, body, asker, request.headers, nbytes=nbytes)


def _asker(caller: Caller, services: Services) -> Asker:
    config, key = services.config, caller.key
    quotas = [(caller.user.id, Quota(config.requests_per_minute, config.tokens_per_minute))]
    if key is not None:
        quotas.append((key.id, Quota(key.requests_per_minute, key.tokens_per_minute)))
    return Asker(_key_of(caller), tuple(quotas), caller.projects)


def _key_of(caller: Caller) -> str:
    """Id of the API key; of the user, where one is logged in."""
    return caller.user.id if caller.key is None else caller.key.id


def _alias_card(table: RoutingTable, alias: str) -> ModelCard:
    return ModelCard(id=alias, digest=table.routes[alias].stable)


def _variant_card(table: RoutingTable, digest: str) -> ModelCard:
    return ModelCard(id=variant_id(table.placements[digest].name, digest), digest=digest)
