"""Turns HTTP bodies into plain values, and values into JSON and event streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from serve_apps.event_stream import event_stream
from serve_apps.variants.calls import Answer, StreamItem
from serve_apps.variants.wire import Reply, parse_body, refusal
from ztom.io.bounded import OverLimitError
from ztom.io.json import ASIDE_BYTES, check_size, parsers

_PARSE = "serve_apps.variants.wire:parsed_aside"
_CPU_S = 5.0


async def read_body(request: Request, limit: int) -> bytes | Reply:
    """The body of a request, or a 413 as soon as more than ``limit`` bytes of it have come."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            return refusal(413, f"The body is longer than {limit} bytes.", code="body_too_large")
        chunks.append(chunk)
    return b"".join(chunks)


async def read_openai(request: Request, limit: int) -> tuple[dict[str, Any] | Reply, int]:
    """The body of a request to a model, parsed within limits, or the refusal; and its bytes."""
    raw = await read_body(request, limit)
    if isinstance(raw, Reply):
        return raw, 0
    try:
        check_size(raw)
        if len(raw) <= ASIDE_BYTES:
            return parse_body(raw), len(raw)
        body, problem = await parsers().call_async(_PARSE, raw, cpu_s=_CPU_S)
    except (ValueError, OverLimitError) as error:
        refused = refusal(400, f"The body cannot be taken: {error}.", code="invalid_json")
        return refused, len(raw)
    return body if problem is None else Reply(*problem), len(raw)


def json_response(reply: Reply) -> JSONResponse:
    """A reply as HTTP."""
    return JSONResponse(reply.body, status_code=reply.status)


def answer_response(answer: Answer) -> Response:
    """An answer as HTTP."""
    return Response(answer.body, status_code=answer.status, media_type="application/json")


async def stream_response(items: AsyncGenerator[StreamItem, None]) -> Response:
    """The items of a stream as HTTP: its refusal, or server-sent events."""
    first = await anext(items)
    if isinstance(first, Answer):
        await items.aclose()
        return answer_response(first)
    return event_stream(_texts(items))


async def _texts(items: AsyncGenerator[StreamItem, None]) -> AsyncGenerator[str, None]:
    async with aclosing(items):
        async for item in items:
            if isinstance(item, str):
                yield item
