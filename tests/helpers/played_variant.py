"""A variant that is played, not computed: on a stage here, or as a replica of Ray Serve.

Both offer the same to tests of what calls them: a placement, and a way to say how it behaves. The
replica plays the same `Stage`, so that what differs is the way there.
"""

# No `from __future__ import annotations`: Serve reads these annotations at run time.
import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Protocol

from ray import serve
from server_helpers import Stage

from serve_apps.endpoints.specs import AppSpec
from serve_apps.gateway.backends import Backends, Overloaded, ServeBackends, Unavailable
from serve_apps.variants.args import VARIANT_DEPLOYMENT, VariantArgs
from serve_apps.variants.calls import Answer, Call, StreamItem
from ztom.rollout.routing import Placement

APP = "variant-played"
DIGEST = "a" * 64
#: Seconds that a hanging replica takes: longer than any test waits for it.
HANGS_S = 3.0
PLACEMENT = Placement(
    name="played", app=APP, deployment=VARIANT_DEPLOYMENT, folder="/nowhere", timeout_s=60
)


def call(**more: Any) -> Call:
    body = {"messages": [{"role": "user", "content": "How do I open a file?"}]}
    return Call("chat", body, DIGEST, "r-1", **more)


class Played(Protocol):
    """A variant whose behaviour a test chooses."""

    backends: Backends

    async def behave(self, **behaviour: Any) -> None:
        """Behave like an `Actor` with these fields; without any, as usual."""

    def crowded(self) -> contextlib.AbstractAsyncContextManager[None]:
        """While its queue is full."""


def _stage() -> Stage:
    stage = Stage()
    stage.apps[APP] = AppSpec(APP, VARIANT_DEPLOYMENT, VariantArgs.model_construct())
    return stage


class PlayedHere:
    """On the stage."""

    def __init__(self) -> None:
        self.stage = _stage()
        self.backends: Backends = self.stage

    async def behave(self, **behaviour: Any) -> None:
        _behave(self.stage, behaviour)

    @contextlib.asynccontextmanager
    async def crowded(self) -> AsyncIterator[None]:
        await self.behave(overloaded=True)
        yield
        await self.behave()


class PlayedByServe:
    """As an application of Ray Serve, with one place and one place to wait."""

    def __init__(self) -> None:
        self.backends: Backends = ServeBackends()
        self._handle = serve.run(Replica.bind(), name=APP, route_prefix=None)

    async def behave(self, **behaviour: Any) -> None:
        await self._handle.options(method_name="behave").remote(behaviour)

    @contextlib.asynccontextmanager
    async def crowded(self) -> AsyncIterator[None]:
        await self.behave(delay_s=4 * HANGS_S)
        runs = asyncio.ensure_future(self.backends.ask(PLACEMENT, call()))
        while True:
            waits = asyncio.ensure_future(self.backends.ask(PLACEMENT, call()))
            await asyncio.sleep(HANGS_S / 6)
            if not waits.done():
                break
            with contextlib.suppress(Overloaded):  # the first one is still in the queue itself
                await waits
        yield
        await asyncio.gather(runs, waits)
        await self.behave()


def _behave(stage: Stage, behaviour: dict[str, Any]) -> None:
    behaviour = dict(behaviour)
    stage.current = {APP: behaviour.pop("current", DIGEST)}
    stage.actors.pop(DIGEST, None)
    for name, value in behaviour.items():
        setattr(stage.actor(DIGEST), name, value)


@serve.deployment(name=VARIANT_DEPLOYMENT, max_ongoing_requests=1, max_queued_requests=1)
class Replica:
    """Plays in a process of its own."""

    def __init__(self) -> None:
        self._stage = _stage()

    async def behave(self, behaviour: dict[str, Any]) -> None:
        _behave(self._stage, behaviour)

    async def ask(self, call: Call) -> Answer:
        await self._may_hang()
        return await self._stage.ask(PLACEMENT, call)

    async def stream(self, call: Call) -> AsyncGenerator[StreamItem, None]:
        await self._may_hang()
        async for item in self._stage.stream(PLACEMENT, call):
            yield item

    async def _may_hang(self) -> None:
        if self._stage.actor(DIGEST).hangs:
            await asyncio.sleep(HANGS_S)
            raise Unavailable
