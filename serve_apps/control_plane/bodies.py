"""JSON bodies: bounded before they are parsed, and long ones parsed in another process.

FastAPI parses a body in the event loop, where nothing else happens meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from ztom.io.bounded import OverLimitError
from ztom.io.json import ASIDE_BYTES, check_size, parse_tolerant, parsers

_CPU_S = 5.0


class BoundedRoute(APIRoute):
    """A route whose JSON body is bounded."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI."""
        handler = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            return await handler(_BoundedRequest(request.scope, request.receive))

        return bounded


class _BoundedRequest(Request):
    """A request whose JSON is bounded."""

    async def json(self) -> Any:
        """The body's value.

        Raises:
            JSONDecodeError: It is no JSON.
            HTTPException: It holds more than is taken.
        """
        raw = await self.body()
        try:
            if len(raw) <= ASIDE_BYTES:
                return parse_tolerant(raw)
            check_size(raw)
            return await parsers().call_async("ztom.io.json:parse_tolerant", raw, cpu_s=_CPU_S)
        except json.JSONDecodeError:
            raise
        except (ValueError, RecursionError, OverLimitError) as error:
            raise HTTPException(422, f"The body cannot be taken: {error}.") from None
