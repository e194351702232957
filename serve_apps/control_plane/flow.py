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
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_apps.control_plane.places import TERMS, Terms

#: For ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH``.
IMPORT_PATH = "serve_apps.control_plane.flow.middlewares"
WINDOW_BYTES = 8 * 2**20

_KEY = "ztom.window"
#: A form slower than this, on average after its first pause, is somebody holding a connection.
_SLOWEST_BYTES_S = 4096
#: A body that nobody wants is read on for so long, and after that if it is so fast.
_DISCARD_S, _DISCARD_BYTES_S, _DISCARD_MOST_S = 1.0, 64 * 2**10, 30.0


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """How long bodies may be, and how long they may take.

    Attributes:
        max_bytes: Largest body, bytes.
        form_bytes: Largest multipart body, bytes.
        pause_s: Longest pause in a body, and longest time for one that is no form, seconds.
        whole_s: Longest time for any body, seconds; None for no such limit.
    """

    max_bytes: int
    form_bytes: int
    pause_s: float
    whole_s: float | None = None


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


class BodyGuard:
    """Refuses bodies that are too long (413) or that stand still (408).

    How long a body may be, and how long it may take, depends on whether it is known who sends it
    (`serve_apps.control_plane.places.Terms`). An answer that is given before the body has ended
    ends the connection, once the client has stopped sending or is too slow.

    Args:
        app: ASGI application that gets the requests.
        known: Limits of bodies of callers who are known.
        unknown: Limits of all other bodies.
    """

    def __init__(self, app: ASGIApp, *, known: BodyLimits, unknown: BodyLimits) -> None:
        self._app = app
        self._known = known
        self._unknown = unknown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(scope, receive, self._limits_of)
        if body.ended:
            await self._app(scope, receive, send)
            return
        await self._app(scope, body.receive, partial(_send_early, send, body))

    def _limits_of(self, scope: Scope) -> BodyLimits:
        terms: Terms | None = scope.get(TERMS)
        return self._known if terms is None or terms.is_known else self._unknown


class _Body:
    """The body of one request, on its way."""

    def __init__(
        self, scope: Scope, receive: Receive, limits_of: Callable[[Scope], BodyLimits]
    ) -> None:
        headers = dict(scope["headers"])
        announced = headers.get(b"content-length", b"0")
        self._announced = int(announced) if announced.isdigit() else 0
        self.ended = not self._announced and b"transfer-encoding" not in headers
        self._is_form = headers.get(b"content-type", b"").startswith(b"multipart/form-data")
        self._scope = scope
        self._receive = receive
        self._limits_of = limits_of
        self._window: Window | None = scope.get(_KEY)
        self._total = self._last = 0
        self._began: float | None = None

    async def receive(self) -> Message:
        """ASGI's ``receive``, within the limits.

        Raises:
            HTTPException: 413, the body is too long; 408, it does not come, or too slowly.
        """
        limits = self._limits_of(self._scope)
        longest = limits.form_bytes if self._is_form else limits.max_bytes
        if self.ended:
            self._use()
            return await self._receive()
        if self._began is None:
            self._began = time.monotonic()
        self._require_short(max(self._total, self._announced), longest)
        pause_s = limits.pause_s
        if limits.whole_s is not None:
            pause_s = max(0.0, self._began + limits.whole_s - time.monotonic())
        try:
            message = await asyncio.wait_for(self.pull(), pause_s)
        except TimeoutError:
            raise HTTPException(408, "The body did not arrive.") from None
        self._require_short(self._total, longest)
        taken = time.monotonic() - self._began
        enough = taken * _SLOWEST_BYTES_S if self._is_form else longest + 1
        if not self.ended and taken > limits.pause_s and self._total < enough:
            raise HTTPException(408, "The body arrives too slowly.")
        return message

    async def pull(self) -> Message:
        """The next message, whatever it is."""
        self._use()
        message = await self._receive()
        size = len(message.get("body", b""))
        self._total += size
        self.ended = not message.get("more_body", False)
        self._last = 0 if self.ended else size
        return message

    async def discard(self) -> None:
        """Read what still comes of a body that nobody wants, for a while: it holds no place."""
        terms: Terms | None = self._scope.get(TERMS)
        if terms is not None:
            terms.leave()
        began, before = time.monotonic(), self._total
        while not self.ended:
            try:
                await asyncio.wait_for(self.pull(), _DISCARD_S)
            except TimeoutError:
                return
            taken = time.monotonic() - began
            is_slow = self._total - before < taken * _DISCARD_BYTES_S
            if taken > _DISCARD_MOST_S or (taken > _DISCARD_S and is_slow):
                return

    def _use(self) -> None:
        """Say that what was pulled last has been used."""
        if self._window is not None and self._last:
            self._window.used(self._last)
            self._last = 0

    @staticmethod
    def _require_short(size: int, longest: int) -> None:
        if size > longest:
            raise HTTPException(413, f"The body is longer than {longest} bytes.")


async def _send_early(send: Send, body: _Body, message: Message) -> None:
    """Send an answer; the connection ends with one that is given before the body has ended.

    A client that still sends has time to read the answer: a connection that is closed on it would
    take the answer along.
    """
    if body.ended:
        await send(message)
    elif message["type"] == "http.response.start":
        await send({**message, "headers": [*message["headers"], (b"connection", b"close")]})
    elif message.get("more_body", False):
        await send(message)
    else:
        await send({**message, "more_body": True})
        await body.discard()
        await send({"type": "http.response.body", "body": b""})
