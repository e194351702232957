"""The OpenAI wire format as far as it is ours: reading requests, refusing them, forming errors.

Everything here is plain values in, plain values out; no engine and no server is needed to test it.
A request may carry what OpenAI documents and this endpoint honours, plus the sampling options of
vLLM that are common in practice (`serve_apps.variants.request_fields`). Anything else is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import pydantic_core

from serve_apps.variants.embedding_input import embedding_problem
from serve_apps.variants.request_fields import ABOUT_THE_CALLER, FIELDS, Kind, without_neutral
from serve_apps.variants.request_size import (
    DEFAULT_LIMITS,
    RequestLimits,
    count_prompts,
    number_problem,
    size_problem,
)
from serve_apps.variants.response_format import response_format_problem, schema_problem

MAX_CHOICES = 128
MAX_PROMPTS = 1024

# Tuples, because what a client sends is compared with them and need not be hashable.
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_TEXT_PARTS = ("text", "refusal")


@dataclass(frozen=True)
class Reply:
    """A complete answer.

    Attributes:
        status: HTTP status of the answer.
        body: JSON object that is answered.
        code: OpenAI's code of a refusal, which is in its body too; None elsewhere.
    """

    status: int
    body: dict[str, Any]
    code: str | None = None


def refusal(
    status: int, message: str, *, param: str | None = None, code: str | None = None
) -> Reply:
    """An error in OpenAI's form: ``{"error": {"message", "type", "param", "code"}}``."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": message, "type": kind, "param": param, "code": code}
    return Reply(status, {"error": error}, code)


def no_such_model(name: str) -> Reply:
    """The 404 for a model that is not served here."""
    message = f"The model {name[:100]!r} does not exist."
    return refusal(404, message, param="model", code="model_not_found")


def openai_error(error: Mapping[str, Any]) -> Reply:
    """An error object of vLLM as OpenAI's clients know it, with OpenAI's codes where it has one."""
    status = int(error["code"])
    message, param = str(error["message"]), error.get("param")
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return refusal(status, "The server had an error while processing the request.")
    if status == HTTPStatus.NOT_FOUND:
        return refusal(status, message, param=param, code="model_not_found")
    too_long = param == "input_tokens" or "context length" in message
    return refusal(
        status, message, param=param, code="context_length_exceeded" if too_long else None
    )


def parse_body(raw: bytes) -> dict[str, Any] | Reply:
    """Read a request body: a JSON object in UTF-8, without NaN, infinity or lone surrogates."""
    try:
        body = pydantic_core.from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        return refusal(400, f"The body is not valid JSON: {error}", code="invalid_json")
    if not isinstance(body, dict):
        return refusal(400, "The body is not a JSON object.", code="invalid_json")
    return body


def parsed_aside(raw: bytes) -> tuple[dict[str, Any], None] | tuple[None, tuple[Any, ...]]:
    """`parse_body` for another process: the body, or status, body and code of the refusal."""
    body = parse_body(raw)
    return (None, (body.status, body.body, body.code)) if isinstance(body, Reply) else (body, None)


def check_request(
    kind: Kind,
    body: Mapping[str, Any],
    *,
    has_chat_template: bool,
    has_tools: bool = False,
    embeds: bool = False,
    limits: RequestLimits = DEFAULT_LIMITS,
    longest: int | None = None,
) -> Reply | None:
    """What is wrong with a request, or None. Types of single fields are the engine's to check.

    Args:
        kind: Which of OpenAI's endpoints was called.
        body: Body of the request.
        has_chat_template: Whether the model has one.
        has_tools: Whether there is a parser for the calls of tools that the model makes.
        embeds: Whether the model gives embeddings, and no text.
        limits: What one request may ask for.
        longest: Tokens of prompt and answer together that the model takes; None where it is not
            known.
    """
    if embeds is not (kind == "embedding"):
        return _other_endpoint(embeds=embeds)
    if kind == "chat" and not has_chat_template:
        return no_chat_template()
    body = without_neutral(kind, body)
    return (
        _unknown_field(kind, body)
        or too_much(kind, body, limits, longest=longest)
        or _bad_stream(body)
        or _too_many_choices(body)
        or _bad_response_format(body)
        or _bad_tools(body, has_tools=has_tools)
        or _CONTENT_CHECKS[kind](body)
    )


def no_chat_template() -> Reply:
    """The refusal of a chat with a model that has no template for one."""
    return refusal(
        400,
        "This model has no chat template. Use /v1/completions.",
        param="messages",
        code="no_chat_template",
    )


def engine_body(kind: Kind, body: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a checked request that the engine is given; which model it is, it knows."""
    given = without_neutral(kind, body)
    return {k: v for k, v in given.items() if k not in ABOUT_THE_CALLER and k != "model"}


def _other_endpoint(*, embeds: bool) -> Reply:
    """The refusal of a call that this kind of model does not answer."""
    message = (
        "This model gives embeddings, and no text. Use /v1/embeddings."
        if embeds
        else "This model gives text, and no embeddings. Use /v1/chat/completions or "
        "/v1/completions."
    )
    return refusal(400, message, param="model", code="unsupported_endpoint")


def _unknown_field(kind: Kind, body: Mapping[str, Any]) -> Reply | None:
    for key in body:
        if key not in FIELDS[kind] and key not in ABOUT_THE_CALLER:
            shown = key[:60]
            return refusal(
                400,
                f"This endpoint does not support the parameter {shown!r}.",
                param=shown,
                code="unsupported_parameter",
            )
    return None


def too_much(
    kind: Kind, body: Mapping[str, Any], limits: RequestLimits, *, longest: int | None = None
) -> Reply | None:
    """The refusal of a request that asks for more than one may; see `size_problem`."""
    problem = number_problem(body) or size_problem(kind, body, limits, longest=longest)
    return None if problem is None else refusal(400, problem[0], param=problem[1])


def _bad_stream(body: Mapping[str, Any]) -> Reply | None:
    """A refusal of a bad ``stream``: it decides how to answer before the engine checks types."""
    if isinstance(body.get("stream"), bool | None):
        return None
    return refusal(400, "'stream' must be true or false.", param="stream")


def _too_many_choices(body: Mapping[str, Any]) -> Reply | None:
    n = body.get("n")
    if isinstance(n, int) and not 1 <= n <= MAX_CHOICES:
        return refusal(400, f"'n' must be from 1 to {MAX_CHOICES}.", param="n")
    return None


def _bad_response_format(body: Mapping[str, Any]) -> Reply | None:
    if "response_format" not in body:
        return None
    problem = response_format_problem(body["response_format"])
    if problem is None:
        return None
    return refusal(400, f"'response_format': {problem}.", param="response_format")


def _bad_tools(body: Mapping[str, Any], *, has_tools: bool) -> Reply | None:
    name = next((key for key in ("tools", "tool_choice") if key in body), None)
    if name is None:
        return None
    if not has_tools:
        return refusal(
            400,
            "This model is served without a parser for calls of tools. Leave out 'tools', or have "
            "it deployed with the option tool_parser.",
            param=name,
            code="unsupported_parameter",
        )
    if "tools" not in body:
        return refusal(400, "'tool_choice' is given without 'tools'.", param="tool_choice")
    return _bad_tool_schemas(body["tools"])


def _bad_tool_schemas(tools: object) -> Reply | None:
    """A grammar may be made of the tools' schemas: they have the bounds of other schemas."""
    for number, tool in enumerate(tools if isinstance(tools, list) else [tools]):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return refusal(400, f"tools[{number}] is no function with a name.", param="tools")
        parameters = function.get("parameters")
        problem = schema_problem(parameters) if isinstance(parameters, dict) else None
        if problem is not None:
            return refusal(400, f"tools[{number}].function: {problem}.", param="tools")
    return None


def _too_many_prompts(body: Mapping[str, Any]) -> Reply | None:
    if body.get("prompt") is None:
        return refusal(400, "'prompt' is missing.", param="prompt")
    if count_prompts(body) > MAX_PROMPTS:
        return refusal(400, f"At most {MAX_PROMPTS} prompts in one request.", param="prompt")
    return None


def _bad_messages(body: Mapping[str, Any]) -> Reply | None:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return refusal(
            400, "'messages' must be a list with at least one message.", param="messages"
        )
    for index, message in enumerate(messages):
        if problem := _message_problem(message):
            param = f"messages[{index}]"
            return refusal(400, f"{param}: {problem}", param=param)
    return None


def _message_problem(message: object) -> str | None:
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        return f"a message is an object with a role, one of {', '.join(_ROLES)}"
    content = message.get("content")
    if content is None and message["role"] != "assistant":
        return "'content' is missing"
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict) or part.get("type") not in _TEXT_PARTS:
            return "only text content is supported"
    return None


def _bad_input(body: Mapping[str, Any]) -> Reply | None:
    problem = embedding_problem(body)
    return None if problem is None else refusal(400, problem[0], param=problem[1])


_CONTENT_CHECKS: Mapping[Kind, Callable[[Mapping[str, Any]], Reply | None]] = {
    "chat": _bad_messages,
    "completion": _too_many_prompts,
    "embedding": _bad_input,
}


def event(data: Mapping[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(data, separators=(',', ':'))}\n\n"


#: What ends every event, and stands nowhere within one: JSON escapes it.
EVENT_END = "\n\n"
DONE_EVENT = f"data: [DONE]{EVENT_END}"


def event_error(text: str) -> dict[str, Any] | None:
    """The error object that a server-sent event carries, if it carries one."""
    if not text.startswith('data: {"error"'):
        return None
    error = json.loads(text.removeprefix("data: "))["error"]
    return error if isinstance(error, dict) else None
