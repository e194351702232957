"""The process that holds one engine for all trials of a replica.

It blends and answers in one call, so what it answered with are the factors of that call, whatever
happened before it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

from tune_search.payload import Answers, Needs, Questions, Slopes
from ztom.engines.protocol import (
    Capability,
    Completion,
    Differentiates,
    Engine,
    EngineInfo,
    GenerationConfig,
)
from ztom.engines.respond import respond
from ztom.errors import EngineError, ZtomError
from ztom.scoring.protocol import Need
from ztom.search.space import Factors
from ztom.stimuli.batches import batches
from ztom.stimuli.records import Output, Prompt, Stimulus


class ProcessGoneError(EngineError):
    """The actor's process ended."""


class NewProcessError(ProcessGoneError):
    """The actor's process is a new one that has no engine yet."""


class EngineActor:
    """Runs in a process of its own and holds one engine, from `start` on.

    Args:
        name: Name that Ray's dashboard shows.
    """

    def __init__(self, name: str = "engine") -> None:
        self._name = name
        self._engine: Engine | None = None
        self._questions: Questions | None = None
        self._differentiator: Differentiates | None = None

    def __repr__(self) -> str:
        """The name: Ray shows it, and writes it before what the process prints."""
        return self._name

    def start(self, make_engine: Callable[[], Engine], questions: Questions) -> EngineInfo:
        """Make the engine if there is none yet, and say what it is.

        Args:
            make_engine: Factory of the engine; opens by itself what the engine needs.
            questions: The stimuli from now on, the same for every trial.
        """
        if self._engine is None:
            self._engine = make_engine()
        self._questions = questions
        self._differentiator = self._make_differentiator(self._engine, questions)
        return self._engine.info

    def _make_differentiator(self, engine: Engine, questions: Questions) -> Differentiates | None:
        """The engine itself where it takes derivatives, else one beside it; None: not wanted."""
        if questions.gradients is None:
            if self._differentiator is not None and self._differentiator is not engine:
                self._differentiator.close()
            return None
        if Capability.GRADIENT in engine.info.capabilities:
            return cast(Differentiates, engine)
        return self._differentiator or cast(Differentiates, questions.gradients.engine())

    def differentiate(self, factors: Factors) -> Slopes:
        """Blend, and take the errors of every data set with their derivatives."""
        if self._differentiator is None or self._questions is None:
            raise NewProcessError("the engine's process is a new one")
        with _engine_errors():
            return _differentiate(self._differentiator, self._questions, factors)

    def evaluate(self, factors: Factors, needs: Needs) -> Answers:
        """Blend and answer every data set."""
        if self._engine is None or self._questions is None:
            raise NewProcessError("the engine's process is a new one")
        with _engine_errors():
            return _evaluate(self._engine, self._questions, factors, needs)

    @property
    def _loaded(self) -> Factors | None:
        """Factors of the blend that is loaded; None where the last one failed."""
        try:
            return None if self._engine is None else self._engine.factors
        except EngineError:
            return None

    def evaluate_block(
        self, factors: Factors, needs: Needs, places: Sequence[int], *, others: bool
    ) -> Answers:
        """Blend, unless that is what is loaded, and answer some stimuli of the search set.

        Args:
            factors: Factors of the blend.
            needs: What the error functions need.
            places: Places of the stimuli in the search set.
            others: Whether every other data set is answered as well.
        """
        if self._engine is None or self._questions is None:
            raise NewProcessError("the engine's process is a new one")
        with _engine_errors():
            return _evaluate(
                self._engine,
                self._questions.part(places, others=others),
                factors,
                needs,
                is_loaded=self._loaded == factors,
            )

    def generate(
        self, factors: Factors, prompts: Sequence[Prompt], config: GenerationConfig
    ) -> list[Completion]:
        """Blend, unless that is what is loaded, and generate."""
        if self._engine is None:
            raise NewProcessError("the engine's process is a new one")
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
        raise EngineError(f"the engine raised {type(error).__name__}", reason=error) from error


def _evaluate(
    engine: Engine,
    questions: Questions,
    factors: Factors,
    needs: Needs,
    *,
    is_loaded: bool = False,
) -> Answers:
    blend_s = 0.0 if is_loaded else engine.blend(factors).seconds
    started = time.perf_counter()
    outputs = {
        name: _respond(engine, questions, stimuli, needs=needs[name], labels=labels)
        for name, stimuli, labels in questions.sets
    }
    return Answers(
        outputs=outputs,
        seconds={"blend": blend_s, "generate": time.perf_counter() - started},
        process=os.getpid(),
    )


def _differentiate(engine: Differentiates, questions: Questions, factors: Factors) -> Slopes:
    if questions.gradients is None:
        raise EngineError("derivatives were asked for in a study that takes none")
    started = time.perf_counter()
    sets = [
        (stimuli, losses)
        for (_, stimuli, _), losses in zip(questions.sets, questions.losses, strict=True)
    ]
    slopes = engine.differentiate(factors, sets, mode=questions.gradients.mode)
    names = [name for name, _, _ in questions.sets]
    seconds = {"generate": time.perf_counter() - started}
    return Slopes(dict(zip(names, slopes, strict=True)), seconds)


def _respond(
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
