"""Routes whose handler reads the body and makes the response by itself.

FastAPI describes them and does nothing else: solving dependencies and stacking contexts costs as
much time as such a handler takes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send


def plain_route(guard: Callable[[Request], Awaitable[None]]) -> type[APIRoute]:
    """The class of such routes.

    Args:
        guard: Function that lets a caller in and leaves who it is in ``request.state.caller``, or
            raises.
    """

    class PlainRoute(APIRoute):
        """Calls its handler with request, caller and services."""

        def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
            super().__init__(path, endpoint, **options)
            self.app = self._answer

        async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
            request = Request(scope, receive, send)
            await guard(request)
            services = request.app.state.services
            response = await self.endpoint(request, request.state.caller, services)
            await response(scope, receive, send)

    return PlainRoute
