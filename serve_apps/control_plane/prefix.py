"""The same routes below ``/api/v2``, where later clients of the original product call them."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

PREFIX = "/api/v2"
#: What stands below ``/api`` already, and clients write after the prefix without it.
_BELOW_API = "/auth/"


class LaterPrefix:
    """Takes the prefix away.

    Args:
        app: ASGI application that gets the requests.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        path = scope.get("path", "")
        if scope["type"] == "http" and path.startswith(f"{PREFIX}/"):
            rest = path.removeprefix(PREFIX)
            plain = f"/api{rest}" if rest.startswith(_BELOW_API) else rest
            scope = {**scope, "path": plain, "raw_path": plain.encode()}
        await self._app(scope, receive, send)
