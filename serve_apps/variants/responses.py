"""Between HTTP and plain values: bodies in, JSON and event streams out."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from fastapi import Request
from fastapi.responses import JSONResponse, StreamingResponse

from serve_apps.variants.wire import Reply, refusal


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


def json_response(reply: Reply) -> JSONResponse:
    """A reply as HTTP."""
    return JSONResponse(reply.body, status_code=reply.status)


def event_stream(events: AsyncGenerator[str, None]) -> StreamingResponse:
    """Server-sent events as HTTP, which nothing on the way should hold back."""
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)
