"""Engines that stay loaded between questions, so that a second one is answered at once.

`EngineKeeper` decides: one engine for each model, at most so many, the one that was idle the
longest goes when another needs its place, and whoever needs the whole machine (a search, a variant
that is to be served) has the idle ones gone. It knows nothing of Ray: how a process is started is
handed in.

A process that died is started once more and asked again; one that does not answer in time is
killed. What is kept is only what loading made, so nothing is lost with it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from serve_apps.control_plane.questions import EngineQuestion, EngineSpec
from ztom.errors import CapabilityError, EngineError, EngineTimeoutError

logger = logging.getLogger(__name__)


class EngineGoneError(EngineError):
    """The process of an engine died."""


class EngineProcess(Protocol):
    """A process that holds one engine; one question at a time."""

    async def start(self) -> None:
        """Load the engine.

        Raises:
            EngineGoneError: The process died.
            ZtomError: The model cannot be loaded.
        """

    async def ask(self, question: EngineQuestion) -> Any:
        """Ask the engine.

        Raises:
            EngineGoneError: The process died.
            ZtomError: What the question raised.
        """

    def kill(self) -> None:
        """End the process, whatever it does."""


@dataclass(frozen=True, slots=True)
class KeeperLimits:
    """How long and how many.

    Attributes:
        most: Largest number of engines that are loaded at once.
        idle_s: Seconds without a question after which an engine goes.
        answer_s: Seconds for one question, the loading of the engine included.
    """

    most: int = 1
    idle_s: float = 300.0
    answer_s: float = 600.0


@dataclass(eq=False)
class _Kept:
    """One engine, and who waits for it."""

    spec: EngineSpec
    process: EngineProcess | None = None
    users: int = 0
    leaving: bool = False
    idle_since: float = 0.0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class EngineKeeper:
    """Keeps engines and asks them; all of it in one event loop.

    Args:
        launch: Function that starts a process for a model, which has no engine yet.
        limits: How many engines there may be, and how long they are kept.

    Attributes:
        starts: Number of times that an engine was loaded.
    """

    def __init__(self, launch: Callable[[EngineSpec], EngineProcess], limits: KeeperLimits) -> None:
        self._launch = launch
        self._limits = limits
        self._kept: dict[str, _Kept] = {}
        self._changed = asyncio.Condition()
        self.starts = 0

    async def ask(self, spec: EngineSpec, question: EngineQuestion) -> Any:
        """Ask the engine of a model, which is loaded first if it is not there.

        Raises:
            EngineTimeoutError: There was no answer in time.
            EngineError: The engine's process died twice.
            ZtomError: The model cannot be loaded, or what the question raised.
        """
        kept = await self._enter(spec)
        try:
            async with kept.turn:
                return await self._answer(kept, question)
        finally:
            await self._leave(kept)

    async def make_room(self) -> None:
        """Have every engine go: the idle ones now, the others once they have answered."""
        async with self._changed:
            for kept in list(self._kept.values()):
                kept.leaving = True
            self._remove_finished()

    async def tidy(self, *, now: float | None = None) -> None:
        """Have the engines go that were idle for too long.

        Args:
            now: Monotonic time, seconds.
        """
        now = time.monotonic() if now is None else now
        async with self._changed:
            for kept in self._kept.values():
                if kept.users == 0 and now - kept.idle_since >= self._limits.idle_s:
                    kept.leaving = True
            self._remove_finished()

    async def _enter(self, spec: EngineSpec) -> _Kept:
        """The place of the model, once there is one."""
        async with self._changed:
            while True:
                kept = self._kept.get(spec.key)
                if kept is not None and not kept.leaving:
                    break
                if kept is None and self._has_place():
                    kept = self._kept[spec.key] = _Kept(spec)
                    break
                await self._changed.wait()
            kept.users += 1
            return kept

    def _has_place(self) -> bool:
        """Whether another engine may be loaded; the one that was idle the longest makes way."""
        if len(self._kept) < self._limits.most:
            return True
        idle = [kept for kept in self._kept.values() if kept.users == 0]
        if not idle:
            return False
        min(idle, key=lambda kept: kept.idle_since).leaving = True
        self._remove_finished()
        return True

    async def _leave(self, kept: _Kept) -> None:
        async with self._changed:
            kept.users -= 1
            kept.idle_since = time.monotonic()
            if kept.process is None and kept.users == 0:
                kept.leaving = True
            self._remove_finished()

    def _remove_finished(self) -> None:
        """Take out who is to leave and has nobody to answer; whoever waits for a place looks."""
        for key, kept in list(self._kept.items()):
            if kept.leaving and kept.users == 0:
                del self._kept[key]
                self._drop(kept)
        self._changed.notify_all()

    async def _answer(self, kept: _Kept, question: EngineQuestion) -> Any:
        try:
            async with asyncio.timeout(self._limits.answer_s):
                try:
                    return await self._ask(kept, question)
                except EngineGoneError as error:
                    logger.warning("an engine is loaded again: %s", error)
                    self._drop(kept)
                return await self._ask(kept, question)
        except EngineGoneError as error:
            self._drop(kept)
            raise EngineError("the engine's process died twice") from error
        except TimeoutError as error:
            self._drop(kept)
            raise EngineTimeoutError(
                "the model did not answer in time",
                expected=f"an answer within {self._limits.answer_s:g} s",
            ) from error
        except CapabilityError:
            raise  # the engine is as good as before
        except (EngineError, asyncio.CancelledError):
            self._drop(kept)  # nobody knows what it does now
            raise

    async def _ask(self, kept: _Kept, question: EngineQuestion) -> Any:
        if kept.process is None:
            process = self._launch(kept.spec)
            kept.process = process
            self.starts += 1
            try:
                await process.start()
            except BaseException:
                self._drop(kept)
                raise
        return await kept.process.ask(question)

    @staticmethod
    def _drop(kept: _Kept) -> None:
        process, kept.process = kept.process, None
        if process is not None:
            process.kill()
