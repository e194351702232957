"""What a run asks an engine, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ztom.engines.protocol import Generates, GenerationConfig
from ztom.stimuli.records import Prompt


@dataclass(frozen=True, slots=True)
class Question:
    """Something to ask.

    Attributes:
        position: Of the item in the suite.
        repeat: From 0.
        prompt: As it is given to the engine.
        key: Of its answer in the cache.
    """

    position: int
    repeat: int
    prompt: Prompt
    key: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: a text, or why there is none."""

    text: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Asking:
    """How questions are asked.

    Attributes:
        engine: Answers.
        decode: Settings of the suite.
        batch_size: Questions that the engine gets at once.
        answered: Told the texts of every batch, by key.
        should_stop: Asked before every batch.
    """

    engine: Generates
    decode: GenerationConfig
    batch_size: int
    answered: Callable[[Mapping[str, str]], None]
    should_stop: Callable[[], bool]
