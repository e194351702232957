"""Copies of requests for a shadow: bounded, after the user's answer, and never in its way.

A copy is made once the user has been answered. So many are in work at once and so many wait; what
comes beyond is dropped and counted. Half of the copies also go to the stable variant a second time:
how far two answers of the same model differ is the floor under any difference.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from serve_apps.gateway.backends import Backends
from serve_apps.gateway.metrics import GatewayMetrics
from serve_apps.variants.calls import Answer, Call
from ztom.rollout.routing import Choice, Placement, bucket, variant_id
from ztom.scoring.text import token_f1_error

logger = logging.getLogger(__name__)

_AT_ONCE, _WAITING = 4, 64
_STREAM_ONLY = ("stream", "stream_options")


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A request that the user has the answer to.

    Attributes:
        choice: Route that the request took.
        call: Call to the stable variant.
        shadow: Placement of the shadow.
        text: Text of the answer that the user got.
    """

    choice: Choice
    call: Call
    shadow: Placement
    text: str


@dataclass(frozen=True, slots=True)
class ShadowComparison:
    """What came of a copy.

    Attributes:
        mirrored: Request that was mirrored, with the user's answer.
        status: HTTP status of the shadow.
        seconds: Seconds until the shadow's answer.
        empty: Whether the shadow's answer is empty.
        disagreement: Disagreement with the user's answer, 0 to 1; None when the shadow failed.
        floor: Disagreement of the stable variant with itself, 0 to 1; None where it was not asked
            again.
    """

    mirrored: Mirrored
    status: int
    seconds: float
    empty: bool
    disagreement: float | None
    floor: float | None


class Mirror:
    """Sends copies and compares.

    Args:
        backends: Back ends through which variants are called.
        metrics: Counters of the gateway.
        report: Callback that gets each comparison.
        count: Callback that gets digest and project of the variant, and the answer, of each copy.
    """

    def __init__(
        self,
        backends: Backends,
        metrics: GatewayMetrics,
        report: Callable[[ShadowComparison], None],
        count: Callable[[str, str | None, Answer], None],
    ) -> None:
        self._count = count
        self._backends = backends
        self._metrics = metrics
        self._report = report
        self._queue: asyncio.Queue[Mirrored] = asyncio.Queue(_WAITING)

    def offer(self, mirrored: Mirrored) -> None:
        """Take a copy, if there is room."""
        try:
            self._queue.put_nowait(mirrored)
        except asyncio.QueueFull:
            self._metrics.mirrored(_name(mirrored), "dropped")

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            mirrored = await self._queue.get()
            try:
                compared = await self._compare(mirrored)
                outcome = "answered" if compared.status == 200 else "failed"
                self._metrics.mirrored(_name(mirrored), outcome)
                self._report(compared)
            except Exception as error:  # a shadow's trouble is its own
                logger.warning("a copy was lost: %s", type(error).__name__)

    async def _compare(self, mirrored: Mirrored) -> ShadowComparison:
        choice = mirrored.choice
        began = time.monotonic()
        answer = await self._ask(
            mirrored.shadow,
            replace(
                mirrored.call,
                digest=choice.shadow or choice.digest,
                folder=mirrored.shadow.folder,
                name=mirrored.shadow.name,
            ),
        )
        seconds = time.monotonic() - began
        if answer is None or answer.status != 200:
            # the stable variant has answered it: whatever this is, it is an error
            return ShadowComparison(mirrored, 503, seconds, False, None, None)
        floor = None
        if bucket("floor", mirrored.call.request_id) < 50:
            again = await self._ask(choice.placement, mirrored.call)
            if again is not None and again.status == 200:
                floor = token_f1_error(text_of(again.body), mirrored.text)
        difference = token_f1_error(text_of(answer.body), mirrored.text)
        return ShadowComparison(mirrored, 200, seconds, answer.empty, difference, floor)

    async def _ask(self, placement: Placement, call: Call) -> Answer | None:
        body = {key: value for key, value in call.body.items() if key not in _STREAM_ONLY}
        copy = replace(call, body=body, request_id=f"{call.request_id}-copy")
        try:
            answer = await self._backends.ask(placement, copy)
        except Exception as error:
            logger.info("a copy to %s failed: %s", placement.app, type(error).__name__)
            return None
        self._count(call.digest, placement.project, answer)
        return answer


def text_of(body: bytes) -> str:
    """The text of every choice of a whole answer."""
    return "\n".join(_texts(json.loads(body)))


def text_of_events(events: list[str]) -> str:
    """The text of a stream."""
    texts: dict[int, list[str]] = {}
    for event in "".join(events).split("\n\n"):
        data = event.removeprefix("data: ")
        if not data.startswith("{"):
            continue
        for choice in json.loads(data).get("choices", ()):
            delta = choice.get("delta")
            text = choice.get("text") if delta is None else delta.get("content")
            texts.setdefault(int(choice.get("index", 0)), []).append(text or "")
    return "\n".join("".join(texts[index]) for index in sorted(texts))


def _texts(document: Mapping[str, Any]) -> list[str]:
    choices = sorted(document.get("choices", ()), key=lambda choice: int(choice.get("index", 0)))
    return [
        (choice.get("message") or {}).get("content") or choice.get("text") or ""
        for choice in choices
    ]


def _name(mirrored: Mirrored) -> str:
    return variant_id(mirrored.shadow.name, mirrored.choice.shadow or mirrored.choice.digest)
