"""Calling the replicas of a variant: Ray Serve's handles, with deadlines and one more try.

`Backends` is what the gateway sees; `ServeBackends` is the real one, there is no other in the
package. A call that a replica had not begun to answer when it died is sent to another one; what has
begun to arrive is never sent twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import Any, Protocol

from serve_apps.variants.calls import Answer, Call, StreamItem
from ztom.rollout.routing import Placement

logger = logging.getLogger(__name__)

#: Times a call is sent while nothing of its answer has arrived.
_TRIES = 3
_BETWEEN_TRIES_S = 0.05
#: A stream that has begun and then says nothing for so long has died.
_SILENCE_S = 60.0


class Overloaded(Exception):
    """The variant's queue is full."""


class Unavailable(Exception):
    """No replica answered: the variant does not run, or its replicas die."""


class Late(Exception):
    """No answer within the deadline."""


class Backends(Protocol):
    """Calls variants where they run."""

    async def ask(self, placement: Placement, call: Call) -> Answer:
        """One whole answer.

        Raises:
            Overloaded: The queue is full.
            Unavailable: No replica answered.
            Late: Not within the placement's ``timeout_s``.
        """

    def stream(self, placement: Placement, call: Call) -> AsyncGenerator[StreamItem, None]:
        """A stream: `Opened`, pieces of text, `StreamEnd`; or one `Answer` that refuses.

        What `ask` raises is raised before the first item; later only `Unavailable` is.
        """

    def forget(self, app: str) -> None:
        """An application is not called any more."""


class ServeBackends:
    """Calls variants by the handles of Ray Serve, which pick the replica with the shorter queue."""

    def __init__(self) -> None:
        self._handles: dict[tuple[str, str], Any] = {}

    async def ask(self, placement: Placement, call: Call) -> Answer:
        """See `Backends.ask`."""
        answer: Answer
        answer, _ = await self._begin(placement, call, stream=False)
        return answer

    async def stream(self, placement: Placement, call: Call) -> AsyncGenerator[StreamItem, None]:
        """See `Backends.stream`."""
        first, rest = await self._begin(placement, call, stream=True)
        try:
            yield first
            while True:
                async with asyncio.timeout(max(_SILENCE_S, placement.timeout_s)):
                    item = await anext(rest, None)
                if item is None:
                    return
                yield item
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except Exception as error:
            logger.warning("a stream of %s broke: %s", placement.app, type(error).__name__)
            raise Unavailable from error
        finally:
            # of a stream that has ended this is no more than a look
            with contextlib.suppress(Exception):
                rest.cancel()

    async def _begin(self, placement: Placement, call: Call, *, stream: bool) -> tuple[Any, Any]:
        """What arrives first, an `Answer` or a stream's first item, and the response it is of."""
        try:
            async with asyncio.timeout(placement.timeout_s):
                for attempt in range(1, _TRIES + 1):
                    handle = await self._handle(placement, stream=stream)
                    response = handle.remote(call)
                    try:
                        return await (anext(response) if stream else response), response
                    except asyncio.CancelledError as error:
                        response.cancel()
                        _raise_if_ours(error)
                        raise Unavailable from error
                    except Exception as error:
                        await self._again_or_raise(error, placement, attempt)
        except TimeoutError:
            raise Late from None
        raise Unavailable

    def forget(self, app: str) -> None:
        """See `Backends.forget`."""
        for key in [key for key in self._handles if key[0] == app]:
            del self._handles[key]

    async def _handle(self, placement: Placement, *, stream: bool) -> Any:
        method = "stream" if stream else "ask"
        key = (placement.app, method)
        if key not in self._handles:
            # it asks Serve's controller, and waits for the answer
            handle = await asyncio.to_thread(_look_up, placement)
            self._handles[key] = handle.options(method_name=method, stream=stream)
        return self._handles[key]

    async def _again_or_raise(self, error: Exception, placement: Placement, attempt: int) -> None:
        from grpc import RpcError
        from ray.exceptions import RayActorError
        from ray.serve.exceptions import (
            BackPressureError,
            DeploymentUnavailableError,
            ReplicaUnavailableError,
        )

        if isinstance(error, BackPressureError):
            raise Overloaded from error
        logger.warning(
            "a call to %s failed before its answer began: %s", placement.app, type(error).__name__
        )
        lost = (RayActorError, RpcError, DeploymentUnavailableError, ReplicaUnavailableError)
        # what a replica itself raised, another one would raise again
        if not isinstance(error, lost) or attempt == _TRIES:
            raise Unavailable from error
        await asyncio.sleep(_BETWEEN_TRIES_S * attempt)


def _look_up(placement: Placement) -> Any:
    from ray import serve

    try:
        return serve.get_deployment_handle(placement.deployment, placement.app)
    except Exception as error:  # Serve says KeyError of what is not there
        logger.warning("%s cannot be called: %s", placement.app, type(error).__name__)
        raise Unavailable from error


def _raise_if_ours(error: asyncio.CancelledError) -> None:
    """Whoever asked is gone; otherwise it is the replica that cancelled."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise error
