"""Server-sent events as HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from fastapi.responses import StreamingResponse

#: Nothing on the way should hold events back.
_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


def event_stream(
    events: AsyncIterator[str], headers: Mapping[str, str] | None = None
) -> StreamingResponse:
    """A response that sends each text as it comes.

    Args:
        events: Texts of whole events.
        headers: Further headers of the response.
    """
    return StreamingResponse(
        events, media_type="text/event-stream", headers={**_HEADERS, **(headers or {})}
    )
