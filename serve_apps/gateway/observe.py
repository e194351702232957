"""What one gateway process counts for releases, and writes to the ledger every second.

It writes all that it has counted of a step so far, in a row of its own, so a row that is written
twice counts once and the rows of several gateways add up.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from dataclasses import dataclass, field
from http import HTTPStatus

from serve_apps.gateway.shadow import Compared
from ztom.errors import NotOnRecordError, ZtomError
from ztom.ledger.endpoints import Endpoints
from ztom.rollout.observations import (
    BOUNDARIES_S,
    ArmCounts,
    Comparison,
    LatencyHistogram,
    StepObservations,
    bucket_of,
)
from ztom.rollout.routing import Choice, Role

logger = logging.getLogger(__name__)

_EVERY_S = 1.0
CLIENT_GONE = 499


@dataclass(slots=True)
class _Arm:
    """`ArmCounts` in the making."""

    requests: int = 0
    errors: int = 0
    empty: int = 0
    latency: list[int] = field(default_factory=lambda: [0] * (len(BOUNDARIES_S) + 1))

    def add(self, status: int, seconds: float, *, empty: bool) -> None:
        if status == CLIENT_GONE:
            return
        self.requests += 1
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
            self.errors += 1
            return
        if status != HTTPStatus.OK:
            # refused: clients' mistakes fall on both sides alike, a shorter context does not
            self.empty += 1
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
    """What was seen in one step of a release."""

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
        )


class Observer:
    """Counts, and writes the counts down.

    Args:
        endpoints: The ledger's part.
    """

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._source = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._steps: dict[tuple[str, int], _Step] = {}

    def answered(self, choice: Choice, *, status: int, seconds: float, empty: bool) -> None:
        """A user got an answer."""
        step = self._step(choice)
        if step is not None:
            arm = step.candidate if choice.role is Role.CANARY else step.stable
            arm.add(status, seconds, empty=empty)

    def compared(self, compared: Compared) -> None:
        """A shadow's answer was compared."""
        step = self._step(compared.mirrored.choice)
        if step is not None:
            step.candidate.add(compared.status, compared.seconds, empty=compared.empty)
            step.compared.add(compared.disagreement)
            step.floor.add(compared.floor)

    async def keep_writing(self) -> None:
        """Write again and again, until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_S)
            await asyncio.to_thread(self.write)

    def write(self) -> None:
        """Write what is new; what cannot be written is kept for the next time."""
        for (release, number), step in list(self._steps.items()):
            if not step.is_new:
                continue
            step.is_new = False
            content = step.counts().model_dump(mode="json")
            try:
                self._endpoints.rollouts.observe(release, number, self._source, content)
            except NotOnRecordError:
                del self._steps[release, number]
            except ZtomError as error:
                step.is_new = True
                logger.warning("observations wait to be written: %s", error)

    def _step(self, choice: Choice) -> _Step | None:
        if choice.release is None:
            return None
        step = self._steps.setdefault((choice.release, choice.step), _Step())
        step.is_new = True
        return step
