"""CORS for a server of one variant: which pages of other origins may call it from a browser.

The application that Serve is given exists before any option is known, so the origins are asked for
with each request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

_METHODS = ("GET", "POST", "OPTIONS")


class CorsByOption:
    """Answers preflights and adds headers for the origins that are allowed; none is by default.

    Args:
        app: Application behind it.
        origins: Function that gives the allowed origins; ``*`` is any.
    """

    def __init__(self, app: ASGIApp, *, origins: Callable[[], Sequence[str]]) -> None:
        self._app = app
        self._origins = origins
        self._with_cors: tuple[tuple[str, ...], CORSMiddleware] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; before the first, at the start, there are no options yet."""
        origins = tuple(self._origins()) if scope["type"] == "http" else ()
        if not origins:
            await self._app(scope, receive, send)
            return
        if self._with_cors is None or self._with_cors[0] != origins:
            made = CORSMiddleware(
                self._app, allow_origins=origins, allow_methods=_METHODS, allow_headers=["*"]
            )
            self._with_cors = origins, made
        await self._with_cors[1](scope, receive, send)
