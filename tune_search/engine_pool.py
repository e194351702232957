"""The engine actors that all trials share, one per replica, and the way trials talk to them.

An actor blends and answers in one call, so what it answered with are the factors of that call,
whatever happened before it. A dead process is started again by Ray and given its engine anew by the
trial that finds it gone, however long Ray takes. A call without an answer before its deadline kills
the process: an engine can be alive and stuck.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayTaskError

from tune_search.payload import Answers, Needs, Questions, Work
from ztom.engines.protocol import Completion, Engine, EngineInfo, GenerationConfig
from ztom.engines.respond import respond
from ztom.errors import (
    BlendError,
    CapabilityError,
    EngineError,
    EngineTimeoutError,
    FactorError,
    ZtomError,
)
from ztom.scoring.protocol import Need
from ztom.search.space import Factors
from ztom.stimuli.batches import batches
from ztom.stimuli.records import Output, Prompt, Stimulus

logger = logging.getLogger(__name__)

_DEADLINE_KEYS = {
    "start": "engine_start_deadline_s",
    "evaluate": "generation_deadline_s",
    "generate": "generation_deadline_s",
}
#: Errors that a fresh engine would raise again.
_NOT_THE_ENGINES_FAULT = (BlendError, CapabilityError, FactorError)
#: How often an engine is made before its process is given up: loading it may be what kills it.
_STARTS = 3
#: Between two looks whether Ray has started an actor's process again.
_LOOK_S = 0.2


class _ProcessGoneError(EngineError):
    """The actor's process ended."""


class _NewProcessError(_ProcessGoneError):
    """The actor's process is a new one that has no engine yet."""


class EngineActor:
    """Runs in a process of its own and holds one engine, from `start` on."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._questions: Questions | None = None

    def start(self, make_engine: Callable[[], Engine], questions: Questions) -> EngineInfo:
        """Make the engine if there is none yet, and say what it is.

        Args:
            make_engine: Opens what the engine needs by itself.
            questions: The stimuli, the same for every trial.
        """
        if self._engine is None:
            self._engine, self._questions = make_engine(), questions
        return self._engine.info

    def evaluate(self, factors: Factors, needs: Needs) -> Answers:
        """Blend and answer every data set."""
        if self._engine is None or self._questions is None:
            raise _NewProcessError("the engine's process is a new one")
        with _engine_errors():
            return _answer(self._engine, self._questions, factors, needs)

    def generate(
        self, factors: Factors, prompts: Sequence[Prompt], config: GenerationConfig
    ) -> list[Completion]:
        """Blend, unless that is what is loaded, and generate."""
        if self._engine is None:
            raise _NewProcessError("the engine's process is a new one")
        with _engine_errors():
            if self._engine.factors != factors:
                self._engine.blend(factors)
            return self._engine.generate(prompts, config)


@contextmanager
def _engine_errors() -> Iterator[None]:
    """Whatever an engine raises, as an error of ours."""
    try:
        yield
    except ZtomError:
        raise
    except Exception as error:
        raise EngineError(f"the engine raised {type(error).__name__}", got=error) from error


def _answer(engine: Engine, questions: Questions, factors: Factors, needs: Needs) -> Answers:
    stats = engine.blend(factors)
    started = time.perf_counter()
    outputs = {
        name: _ask(engine, questions, stimuli, needs=needs[name], labels=labels)
        for name, stimuli, labels in questions.sets
    }
    return Answers(
        outputs=outputs,
        seconds={"blend": stats.seconds, "generate": time.perf_counter() - started},
        bytes_moved=stats.bytes_read + stats.bytes_written,
        process=os.getpid(),
    )


def _ask(
    engine: Engine,
    questions: Questions,
    stimuli: Sequence[Stimulus],
    *,
    needs: frozenset[Need],
    labels: Sequence[str],
) -> list[Output]:
    size = questions.batch_size or len(stimuli)
    outputs: list[Output] = []
    for batch in batches(stimuli, size):
        outputs += respond(
            engine, batch, needs=needs, generation=questions.generation, labels=labels
        )
    return outputs


@dataclass(frozen=True)
class EngineClient:
    """A way to one engine actor; the driver and the trials have one each.

    Attributes:
        actor: The engine actor.
        make_engine: In Ray's object store: how to make the engine.
        questions: In Ray's object store: the stimuli.
        deadline_s: For blending and answering everything once.
        start_deadline_s: For making an engine.
    """

    actor: ActorHandle
    make_engine: ObjectRef
    questions: ObjectRef
    deadline_s: float
    start_deadline_s: float

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
                return self._started(started)
            except _ProcessGoneError as error:
                logger.warning("the engine's process is waited for: %s", error)
            self._await_process()
            started = self.begin_start()
        return self._started(started)

    def _started(self, started: ObjectRef) -> EngineInfo:
        info: EngineInfo = _wait(started, "start", self.start_deadline_s)
        return info

    def _await_process(self) -> None:
        """Wait until Ray has a process for the actor again: calls fail at once until then."""
        deadline = time.monotonic() + self.start_deadline_s
        while True:
            try:
                _wait(self.actor.__ray_ready__.remote(), "start", self.start_deadline_s)
                return
            except _ProcessGoneError as error:
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
        """
        answers: Answers = self._twice(
            lambda: _wait(self.actor.evaluate.remote(factors, needs), "evaluate", self.deadline_s)
        )
        return answers

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
        except _ProcessGoneError as error:
            logger.warning("the engine has to be made again: %s", error)
        except EngineError as error:
            logger.warning("the engine is replaced: %s", error)
            ray.kill(self.actor, no_restart=False)
        self.start()
        try:
            return call()
        except _NewProcessError:  # the process that was to be killed lived until now
            self.start()
            return call()


def _wait(call: ObjectRef, what: str, deadline_s: float) -> Any:
    """The call's value, or the error behind whatever Ray raises."""
    try:
        return ray.get(call, timeout=deadline_s)
    except GetTimeoutError as error:
        raise _late(what, deadline_s) from error
    except RayTaskError as error:
        if isinstance(error.cause, ZtomError):
            raise error.cause from None
        raise EngineError("the engine failed", got=error.cause) from error
    except RayActorError as error:
        reason = str(error).partition("\n")[0]
        raise _ProcessGoneError("the engine's process died", got=reason) from error


def _late(what: str, deadline_s: float) -> EngineTimeoutError:
    return EngineTimeoutError(
        f"the engine did not {what} in time",
        expected=f"an answer within {deadline_s:g} s",
        fix=f"Raise {_DEADLINE_KEYS[what]} if it is only slow.",
    )


def make_clients(
    work: Work, *, replicas: int, deadline_s: float, start_deadline_s: float
) -> tuple[EngineClient, ...]:
    """Make the actors, which have no engines yet.

    Args:
        work: How to make an engine, and the stimuli.
        replicas: Number of actors.
        deadline_s: For one evaluation.
        start_deadline_s: For making an engine.
    """
    resources = ray.cluster_resources()
    gpus = work.gpus if resources.get("GPU", 0) else 0
    if gpus * replicas > resources.get("GPU", 0):
        logger.warning(
            "%d engines of %d GPUs are more than the %g that Ray has now: they wait for more",
            replicas,
            gpus,
            resources.get("GPU", 0),
        )
    actor = ray.remote(EngineActor).options(
        # On a small machine an engine must not wait for cores that trials are holding.
        num_cpus=1 if resources.get("CPU", 0) >= 2 * replicas else 0,
        num_gpus=gpus,
        max_restarts=-1,
        max_task_retries=0,
    )
    make, questions = ray.put(work.engine), ray.put(Questions.of(work))
    return tuple(
        EngineClient(actor.remote(), make, questions, deadline_s, start_deadline_s)
        for _ in range(replicas)
    )


def stop_engines(clients: Sequence[EngineClient]) -> None:
    """End the actors and their processes."""
    for client in clients:
        ray.kill(client.actor, no_restart=True)
