"""The event stream of one answer: stamped, counted, and joined where events come together.

vLLM is always asked for the usage, which is exact and comes as the last event; a client that did
not ask does not see that event. Every event gets the fingerprint of what generated it, which vLLM
gives to some only. Events are otherwise passed on as text: only the first few of a stream are
parsed, until every choice is known to have text.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any, Self

from serve_apps.variants.wire import DONE_EVENT, Reply, event, event_error, openai_error

_PREFIX = "data: {"
_USAGE_MARK = '"choices":[]'


class EventStream:
    """Server-sent events, ready to be sent. Iterate it to its end, or `aclose` it.

    Args:
        first: The first event, taken already to see whether the request was accepted.
        rest: Events that follow; closing it ends the generation.
        fingerprint: Fingerprint that every event bears as ``system_fingerprint``.
        choices: Number of choices that the answer has.
        shows_usage: Whether the client asked for the usage.
        explain: Function that turns what the engine raised into a reply.

    Attributes:
        prompt_tokens: Tokens of all prompts, once the stream has ended.
        completion_tokens: Tokens that were generated, once the stream has ended.
        failed: Whether the stream broke off, which its last events tell.
    """

    def __init__(
        self,
        first: str,
        rest: AsyncGenerator[str, None],
        *,
        fingerprint: str,
        choices: int,
        shows_usage: bool,
        explain: Callable[[Exception], Reply],
    ) -> None:
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.failed = False
        self._silent = set(range(choices))
        self._shows_usage = shows_usage
        self._explain = explain
        self._stamp = f'{_PREFIX}"system_fingerprint":{json.dumps(fingerprint)},'
        self._rest = rest
        self._events = self._run(first)

    @property
    def empty(self) -> bool:
        """Whether some choice has had no text yet."""
        return bool(self._silent)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        return await anext(self._events)

    async def aclose(self) -> None:
        """End the generation, if it has not ended."""
        await self._events.aclose()
        await self._rest.aclose()

    async def _run(self, first: str) -> AsyncGenerator[str, None]:
        try:
            if text := self._pass(first):
                yield text
            async for raw in self._rest:
                if text := self._pass(raw):
                    yield text
        except Exception as error:
            self.failed = True
            yield event(self._explain(error).body)
            yield DONE_EVENT

    def _pass(self, raw: str) -> str | None:
        """An event as the client gets it; None for one it does not get."""
        if not raw.startswith(_PREFIX):
            return raw
        error = event_error(raw)
        if error is not None:
            self.failed = True
            return event(openai_error(error).body)
        if _USAGE_MARK in raw:
            usage = _parsed(raw).get("usage")
            if usage:
                self.prompt_tokens = usage["prompt_tokens"]
                self.completion_tokens = usage["completion_tokens"]
                if not self._shows_usage:
                    return None
        elif self._silent:
            self._silent -= {c["index"] for c in _parsed(raw)["choices"] if _has_text(c)}
        return self._stamp + raw.removeprefix(_PREFIX)


async def joined(events: EventStream, *, interval_s: float = 0.0) -> AsyncGenerator[str, None]:
    """The same events, those of one interval in one piece.

    What is yielded crosses processes, at a fixed price each. The first piece and the last wait for
    nothing; any other one until the interval since the last is over.

    Args:
        events: Events of one answer.
        interval_s: Least seconds between two pieces; with 0 a piece is what has come since the
            last one was taken.
    """
    ready: list[str] = []
    due = asyncio.Event()
    loop = asyncio.get_running_loop()
    next_s = loop.time()
    timer: asyncio.TimerHandle | None = None

    async def collect() -> None:
        nonlocal timer
        try:
            async for text in events:
                ready.append(text)
                if loop.time() >= next_s:
                    due.set()
                elif len(ready) == 1:
                    timer = loop.call_at(next_s, due.set)
        finally:
            due.set()

    collecting = asyncio.create_task(collect())
    try:
        while not collecting.done() or ready:
            await due.wait()
            due.clear()
            if ready:
                piece = "".join(ready)
                ready.clear()
                next_s = loop.time() + interval_s
                yield piece
        await collecting
    finally:
        if timer is not None:
            timer.cancel()
        collecting.cancel()
        await asyncio.wait([collecting])
        await events.aclose()


def _parsed(raw: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(raw.removeprefix("data: "))
    return parsed


def _has_text(choice: dict[str, Any]) -> bool:
    return bool(choice.get("text") or (choice.get("delta") or {}).get("content"))
