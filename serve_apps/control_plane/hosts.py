"""Requests to a name that is not the server's are refused; looks at its health are not.

A page of a browser that has its own name point at this machine sends that name (DNS rebinding), so
names are checked. Load balancers and Kubernetes look at a server's health by its address, which
changes; what they get says nothing that anybody may not know.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_apps.control_plane.places import ALWAYS_ANSWERED
from serve_apps.control_plane.prefix import PREFIX

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_OPEN = frozenset((ALWAYS_ANSWERED, PREFIX + ALWAYS_ANSWERED))


class KnownHosts:
    """Lets requests through that are for this server.

    Args:
        app: ASGI application that gets them.
        names: Names of the server besides those of the machine for itself.
    """

    def __init__(self, app: ASGIApp, names: Sequence[str] = ()) -> None:
        self._app = app
        self._checked = TrustedHostMiddleware(app, allowed_hosts=[*_LOOPBACK, *names])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        is_open = scope["type"] == "http" and scope["path"] in _OPEN
        await (self._app if is_open else self._checked)(scope, receive, send)
