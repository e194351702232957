"""The way from a trial to an engine in another process.

A dead process is started again by Ray. Where it is the only one, the trial that finds it gone gives
it its engine anew, however long Ray takes; beside others the trial ends with `EngineLostError` and
goes to one of them (`tune_search.replacements`). A call without an answer before its deadline kills
the process: an engine can be alive and stuck.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayTaskError
from ray.util.placement_group import PlacementGroup

from tune_search.engine_actor import NewProcessError, ProcessGoneError
from tune_search.payload import Answers, Needs, Slopes
from ztom.engines.protocol import Completion, EngineInfo, GenerationConfig
from ztom.errors import (
    BlendError,
    CapabilityError,
    EngineError,
    EngineTimeoutError,
    FactorError,
    ZtomError,
)
from ztom.search.space import Factors
from ztom.stimuli.records import Prompt

logger = logging.getLogger(__name__)

_DEADLINE_KEYS = {
    "start": "engine_start_deadline_s",
    "evaluate": "generation_deadline_s",
    "generate": "generation_deadline_s",
    "differentiate": "generation_deadline_s",
}
#: Errors that a fresh engine would raise again.
_NOT_THE_ENGINES_FAULT = (BlendError, CapabilityError, FactorError)
#: How many times an engine is made before its process is given up: loading it may be what kills it.
_STARTS = 3
#: Seconds between two looks whether Ray has started an actor's process again.
_LOOK_S = 0.2


class EngineLostError(EngineError):
    """The engine is gone, and others are there that can answer instead."""


@dataclass(frozen=True)
class EngineClient:
    """A way to one engine actor; the driver and the trials have one each.

    Attributes:
        actor: Handle of the engine actor.
        make_engine: Reference into Ray's object store: how to make the engine.
        questions: Reference into Ray's object store: the stimuli.
        deadline_s: Seconds for blending and answering everything once.
        start_deadline_s: Seconds for making an engine.
        callers: Number of trials that may wait for this engine at once: it answers one at a time.
        is_alone: Whether no other engine can answer instead, so that this one is waited for.
        slot: Place of the actor and of what scores its answers.
    """

    actor: ActorHandle
    make_engine: ObjectRef
    questions: ObjectRef
    deadline_s: float
    start_deadline_s: float
    callers: int = 1
    is_alone: bool = True
    slot: PlacementGroup | None = None

    def start(self) -> EngineInfo:
        """Wait until the engine can answer, making it if need be.

        Raises:
            ZtomError: Whatever making the engine raised.
            EngineError: Its process died each time that it was made.
            EngineTimeoutError: It did not start in time.
        """
        return self.await_start(self.begin_start())

    def begin_start(self) -> ObjectRef:
        """Ask for the engine to be made, without waiting for it."""
        return self.actor.start.remote(self.make_engine, self.questions)

    def await_start(self, started: ObjectRef) -> EngineInfo:
        """Wait for what `begin_start` gave; raises as `start` does."""
        for _ in range(_STARTS - 1):
            try:
                return self._wait_for_start(started)
            except ProcessGoneError as error:
                logger.warning("the engine's process is waited for: %s", error)
            self._await_process()
            started = self.begin_start()
        return self._wait_for_start(started)

    def _wait_for_start(self, started: ObjectRef) -> EngineInfo:
        info: EngineInfo = _wait(started, "start", self.start_deadline_s)
        return info

    def _await_process(self) -> None:
        """Wait until Ray has a process for the actor again: calls fail at once until then."""
        deadline = time.monotonic() + self.start_deadline_s
        while True:
            try:
                _wait(self.actor.__ray_ready__.remote(), "start", self.start_deadline_s)
                return
            except ProcessGoneError as error:
                if not isinstance(error.__cause__, ActorUnavailableError):
                    raise
                if time.monotonic() > deadline:
                    raise _late("start", self.start_deadline_s) from error
            time.sleep(_LOOK_S)

    def answer(self, factors: Factors, needs: Needs) -> Answers:
        """Blend and answer, once more on a fresh engine if the first one died, hung or broke.

        Raises:
            ZtomError: What the engine raised.
            EngineError: The engine died twice.
            EngineTimeoutError: It gave no answer in time, twice.
            EngineLostError: It died, hung or broke, and is not the only one.
        """
        deadline_s = self.deadline_s * self.callers
        answers: Answers = self._twice(
            lambda: _wait(self.actor.evaluate.remote(factors, needs), "evaluate", deadline_s)
        )
        return answers

    def answer_block(
        self, factors: Factors, needs: Needs, places: Sequence[int], *, others: bool
    ) -> Answers:
        """Answer some stimuli of the search set; raises and goes on as `answer` does."""
        call = partial(self.actor.evaluate_block.remote, factors, needs, places, others=others)
        answers: Answers = self._twice(
            lambda: _wait(call(), "evaluate", self.deadline_s * self.callers)
        )
        return answers

    def differentiate(self, factors: Factors) -> Slopes:
        """Blend and take derivatives; raises and goes on as `answer` does."""
        slopes: Slopes = self._twice(
            lambda: _wait(
                self.actor.differentiate.remote(factors), "differentiate", self.deadline_s
            )
        )
        return slopes

    def generate(
        self, factors: Factors, prompts: Sequence[Prompt], config: GenerationConfig
    ) -> list[Completion]:
        """Generate with a blend; raises and goes on as `answer` does."""
        call = partial(self.actor.generate.remote, factors, prompts, config)
        completions: list[Completion] = self._twice(
            lambda: _wait(call(), "generate", self.deadline_s)
        )
        return completions

    def _twice(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except _NOT_THE_ENGINES_FAULT:
            raise
        except ProcessGoneError as error:
            logger.warning("the engine has to be made again: %s", error)
            self._require_alone(error)
        except EngineError as error:
            logger.warning("the engine is replaced: %s", error)
            ray.kill(self.actor, no_restart=False)
            self._require_alone(error)
        self.start()
        try:
            return call()
        except NewProcessError:  # the process that was to be killed lived until now
            self.start()
            return call()

    def _require_alone(self, error: EngineError) -> None:
        if not self.is_alone:
            raise EngineLostError("the engine is gone", reason=error) from error


def _wait(call: ObjectRef, what: str, deadline_s: float) -> Any:
    """The call's value, or the error behind whatever Ray raises."""
    try:
        return ray.get(call, timeout=deadline_s)
    except GetTimeoutError as error:
        raise _late(what, deadline_s) from error
    except RayTaskError as error:
        if isinstance(error.cause, ZtomError):
            raise error.cause from None
        raise EngineError("the engine failed", reason=error.cause) from error
    except RayActorError as error:
        reason = str(error).partition("\n")[0]
        raise ProcessGoneError("the engine's process died", reason=reason) from error


def _late(what: str, deadline_s: float) -> EngineTimeoutError:
    return EngineTimeoutError(
        f"the engine did not {what} in time",
        expected=f"an answer within {deadline_s:g} s",
        fix=f"Raise {_DEADLINE_KEYS[what]} if it is only slow.",
    )
