"""What one gateway process counts for releases, and writes to the ledger every second.

It writes all that it has counted of a step so far, in a row of its own, so a row that is written
twice counts once and the rows of several gateways add up. A step of which nothing was heard for
long is forgotten here; what comes after that begins another row.

Only what the engine did counts: answers, and errors of status 500 and above. What a caller caused
(a refusal, leaving early, asking more than a queue takes) says nothing of a variant, and nobody's
answers count for more than their share of the traffic before the release (`ztom.rollout.callers`).
Who asks stable how much, release or not, is written to the ledger too, now and then.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

from serve_apps.gateway.shadow import ShadowComparison
from ztom.errors import ZtomError
from ztom.ledger.endpoints import Endpoints
from ztom.rollout.callers import CallerCap, CallerShares
from ztom.rollout.observations import (
    BOUNDARIES_S,
    ArmCounts,
    Comparison,
    LatencyHistogram,
    StepObservations,
    bucket_of,
)
from ztom.rollout.routing import Choice, TrafficRole

logger = logging.getLogger(__name__)

_EVERY_S = 1.0
#: Seconds between two additions to what callers asked; the shares of a week need no more.
TRAFFIC_EVERY_S = 10.0
#: Seconds of silence after which a step is most likely over; if not, it costs a row of the ledger.
_FORGET_S = 3600.0


@dataclass(slots=True)
class _Arm:
    """`ArmCounts` in the making."""

    requests: int = 0
    errors: int = 0
    empty: int = 0
    latency: list[int] = field(default_factory=lambda: [0] * (len(BOUNDARIES_S) + 1))

    def add(self, status: int, seconds: float, *, empty: bool) -> None:
        self.requests += 1
        if status != HTTPStatus.OK:
            self.errors += 1
            return
        self.empty += empty
        self.latency[bucket_of(seconds)] += 1

    def counts(self) -> ArmCounts:
        latency = LatencyHistogram(counts=tuple(self.latency))
        return ArmCounts(
            requests=self.requests, errors=self.errors, empty=self.empty, latency=latency
        )


@dataclass(slots=True)
class _Pairs:
    """`Comparison` in the making."""

    n: int = 0
    total: float = 0.0

    def add(self, disagreement: float | None) -> None:
        if disagreement is not None:
            self.n += 1
            self.total += disagreement

    def counts(self) -> Comparison:
        return Comparison(n=self.n, disagreement=self.total)


@dataclass(slots=True)
class _Step:
    """What was seen in one step of a release, for one row of the ledger; `seen_s` is when last."""

    source: str
    seen_s: float
    candidate_cap: CallerCap
    stable_cap: CallerCap
    left_out: int = 0
    candidate: _Arm = field(default_factory=_Arm)
    stable: _Arm = field(default_factory=_Arm)
    compared: _Pairs = field(default_factory=_Pairs)
    floor: _Pairs = field(default_factory=_Pairs)
    is_new: bool = True

    def counts(self) -> StepObservations:
        return StepObservations(
            candidate=self.candidate.counts(),
            stable=self.stable.counts(),
            compared=self.compared.counts(),
            floor=self.floor.counts(),
            left_out=self.left_out,
        )


class Observer:
    """Counts, and writes the counts down.

    Args:
        endpoints: Endpoints in the ledger.
        callers_before: Function that gives the shares of callers before a release, by its id.
        clock: Monotonic clock, seconds.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        callers_before: Callable[[str], CallerShares],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoints = endpoints
        self._callers_before = callers_before
        self._clock = clock
        self._steps: dict[tuple[str, int], _Step] = {}
        self._traffic: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._wrote_traffic_s = clock()

    def answered(
        self, choice: Choice, caller: str, *, status: int, seconds: float, empty: bool
    ) -> None:
        """A user got an answer.

        Args:
            choice: Route that the request took.
            caller: Keyed hash of the caller.
            status: HTTP status of the answer.
            seconds: Seconds from the request to the end of the answer.
            empty: Whether the answer is empty.
        """
        is_canary = choice.role is TrafficRole.CANARY
        if choice.role is TrafficRole.STABLE and status == HTTPStatus.OK and choice.alias:
            self._traffic[choice.alias][caller] += 1
        if status != HTTPStatus.OK and status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return
        step = self._step(choice)
        if step is None:
            return
        if (step.candidate_cap if is_canary else step.stable_cap).admits(caller):
            (step.candidate if is_canary else step.stable).add(status, seconds, empty=empty)
        else:
            step.left_out += 1
        step.is_new = True  # at the end: what `write` read meanwhile is written again

    def admits_copy(self, choice: Choice, caller: str) -> bool:
        """Whether a copy of a request is worth making: one that would not count is not made."""
        step = self._step(choice)
        if step is None or step.candidate_cap.admits(caller):
            return True
        step.left_out += 1
        step.is_new = True
        return False

    def compared(self, compared: ShadowComparison) -> None:
        """A shadow's answer was compared."""
        step = self._step(compared.mirrored.choice)
        if step is not None:
            step.candidate.add(compared.status, compared.seconds, empty=compared.empty)
            step.compared.add(compared.disagreement)
            step.floor.add(compared.floor)
            step.is_new = True

    async def keep_writing(self) -> None:
        """Write again and again, until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_S)
            await asyncio.to_thread(self.write)
            await self.write_traffic()
            self.forget()

    async def write_traffic(self, *, at_once: bool = False) -> None:
        """Add to the ledger who asked stable variants how much, if it is time."""
        now = self._clock()
        is_time = at_once or now - self._wrote_traffic_s >= TRAFFIC_EVERY_S
        if not self._traffic or not is_time:
            return
        traffic, self._traffic = self._traffic, defaultdict(Counter)
        self._wrote_traffic_s = now
        try:
            await asyncio.to_thread(self._endpoints.rollouts.add_traffic, traffic)
        except ZtomError as error:
            logger.warning("callers of %.0f s are not on record: %s", TRAFFIC_EVERY_S, error)

    def write(self) -> None:
        """Write what is new, together; what cannot be written is kept for the next time."""
        new = {key: step for key, step in list(self._steps.items()) if step.is_new}
        if not new:
            return
        for step in new.values():
            step.is_new = False
        counted = [(*key, step.source, step.counts()) for key, step in new.items()]
        try:
            missing = self._endpoints.rollouts.observe_all(counted)
        except ZtomError as error:
            for step in new.values():
                step.is_new = True
            logger.warning("observations wait to be written: %s", error)
            return
        for key in [key for key in new if key[0] in missing]:
            del self._steps[key]

    def forget(self) -> None:
        """Let go of steps that were written and of which nothing was heard since, for long.

        Where `answered` is called, so that nothing is counted meanwhile.
        """
        limit = self._clock() - _FORGET_S
        self._steps = {
            key: step for key, step in self._steps.items() if step.is_new or step.seen_s > limit
        }

    def _step(self, choice: Choice) -> _Step | None:
        if choice.release is None:
            return None
        key, now = (choice.release, choice.step), self._clock()
        step = self._steps.get(key)
        if step is None:
            shares = self._callers_before(choice.release)
            caps = CallerCap(shares), CallerCap(shares)
            step = self._steps[key] = _Step(_new_source(), now, *caps)
        step.seen_s = now
        return step


def _new_source() -> str:
    """A name that no other row has."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
