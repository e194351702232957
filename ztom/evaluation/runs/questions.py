"""What a run asks an engine, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ztom.engines.protocol import Generates, GenerationConfig
from ztom.stimuli.records import Prompt


@dataclass(frozen=True, slots=True)
class Question:
    """One question to a model.

    Attributes:
        position: Position of the item in the suite, from 0.
        repeat: Number of the repeat, from 0.
        prompt: Prompt as it is given to the engine.
        key: Key of its answer in the cache.
    """

    position: int
    repeat: int
    prompt: Prompt
    key: str


@dataclass(frozen=True, slots=True)
class ModelReply:
    """What came back: a text, or why there is none."""

    text: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Asking:
    """How questions are asked.

    Attributes:
        engine: Engine that answers.
        decode: Settings of generation of the suite.
        batch_size: Number of questions that the engine gets at once.
        answered: Callback with the texts of every batch, by key.
        should_stop: Function that is asked before every batch.
    """

    engine: Generates
    decode: GenerationConfig
    batch_size: int
    answered: Callable[[Mapping[str, str]], None]
    should_stop: Callable[[], bool]
