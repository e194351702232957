"""Bodies of requests: how fast they are taken in, how long they may be, how long they may pause.

Ray Serve reads a body ahead into a queue without bounds, as fast as the client sends. `Paced`
stands where bytes enter the process (Serve takes it by name, see `middlewares`) and lets in no more
than a window's worth that the application has not used yet; `BodyGuard` stands around the
application and says what was used. Together they bound the memory of an upload of any size.
"""

from __future__ import annotations

import asyncio
import threading
import time

from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_apps.control_plane.errors import BUSY, OPENAI_PATHS, problem

#: For ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH``.
IMPORT_PATH = "serve_apps.control_plane.flow.middlewares"
WINDOW_BYTES = 8 * 2**20

_KEY = "ztom.window"
#: A form slower than this, on average after its first pause, is somebody holding a connection.
_SLOWEST_BYTES_S = 4096


class Window:
    """Bytes that were received and not used yet, of one request.

    The two sides may be in different event loops.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._open = asyncio.Event()
        self._open.set()
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()

    async def room(self) -> None:
        """Wait, on the receiving side, until there is room."""
        await self._open.wait()

    def received(self, count: int) -> None:
        """Take note of ``count`` bytes that were received; a full window closes."""
        with self._lock:
            self._held += count
            if self._held >= self._limit:
                self._open.clear()

    def used(self, count: int) -> None:
        """Take note of ``count`` bytes that the application has read; the window may open again."""
        with self._lock:
            self._held -= count
            opens = self._held < self._limit
        if opens:
            self._loop.call_soon_threadsafe(self._open.set)


class Paced:
    """Receives no further than the window allows.

    Args:
        app: ASGI application that gets the requests.
        window_bytes: Largest number of received bytes that the application has not read yet.
    """

    def __init__(self, app: ASGIApp, window_bytes: int = WINDOW_BYTES) -> None:
        self._app = app
        self._window_bytes = window_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        window = Window(self._window_bytes)
        scope[_KEY] = window

        async def paced() -> Message:
            await window.room()
            message = await receive()
            # the end of a body, and what follows it, is never waited for
            if message.get("more_body", False):
                window.received(len(message.get("body", b"")))
            return message

        await self._app(scope, paced, send)


def middlewares() -> list[Middleware]:
    """What Serve puts around its own application in each process that takes requests in."""
    return [Middleware(Paced)]


class Ceiling:
    """Refuses requests beyond so many at once (503; 429 to models' clients), but never health.

    Args:
        app: ASGI application that gets the requests.
        most: Largest number of requests at once.
    """

    def __init__(self, app: ASGIApp, *, most: int) -> None:
        self._app = app
        self._most = most
        self._now = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["path"] == "/health":
            await self._app(scope, receive, send)
            return
        if self._now >= self._most:
            # to clients of models, too many requests at once are too many requests
            status = 429 if scope["path"].startswith(OPENAI_PATHS) else 503
            answer = problem(status, "The server is busy.", BUSY, path=scope["path"])
            await answer(scope, receive, send)
            return
        self._now += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._now -= 1


class BodyGuard:
    """Refuses bodies that are too long (413) or that stand still (408).

    Args:
        app: ASGI application that gets the requests.
        max_bytes: Largest body, bytes.
        max_form_bytes: Largest multipart body, bytes.
        timeout_s: Longest pause in a body, and longest time for one that is no form, seconds.
    """

    def __init__(
        self, app: ASGIApp, *, max_bytes: int, max_form_bytes: int, timeout_s: float
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_form_bytes = max_form_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        is_form = headers.get(b"content-type", b"").startswith(b"multipart/form-data")
        limit = self._max_form_bytes if is_form else self._max_bytes
        announced = headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > limit:
            answer = problem(413, f"The body is longer than {limit} bytes.", path=scope["path"])
            await answer(scope, receive, send)
            return
        await self._app(scope, self._guarded(receive, scope.get(_KEY), limit, is_form), send)

    def _guarded(
        self, receive: Receive, window: Window | None, limit: int, is_form: bool
    ) -> Receive:
        total, last, ended, began = 0, 0, False, time.monotonic()

        async def guarded() -> Message:
            nonlocal total, last, ended
            if window is not None and last:
                window.used(last)
                last = 0
            if ended:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), self._timeout_s)
            except TimeoutError:
                raise HTTPException(408, "The body did not arrive.") from None
            size = len(message.get("body", b""))
            total += size
            ended = not message.get("more_body", False)
            last = 0 if ended else size
            if total > limit:
                raise HTTPException(413, f"The body is longer than {limit} bytes.")
            taken = time.monotonic() - began
            enough = taken * _SLOWEST_BYTES_S if is_form else limit + 1
            if not ended and taken > self._timeout_s and total < enough:
                raise HTTPException(408, "The body arrives too slowly.")
            return message

        return guarded
