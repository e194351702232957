"""An engine that answers what a test says."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ztom.engines.protocol import Capability, Completion, EngineInfo, GenerationConfig
from ztom.evaluation.runs.results import ModelRef
from ztom.stimuli.records import Prompt

MODEL = ModelRef(name="m", digest="1" * 64)
INFO = EngineInfo(
    name="scripted",
    version="1",
    dtype="float32",
    device="cpu",
    capabilities=frozenset({Capability.GENERATE, Capability.LOG_PROBS}),
)


class ScriptedEngine:
    """Answers with a function of prompt and seed; remembers what it was asked."""

    def __init__(self, answer: Callable[[str, int], str], *, info: EngineInfo = INFO) -> None:
        self.info = info
        self.factors: tuple[float, ...] = ()
        self.asked: list[tuple[list[Prompt], GenerationConfig]] = []
        self._answer = answer

    def generate(self, prompts: Sequence[Prompt], config: GenerationConfig) -> list[Completion]:
        self.asked.append((list(prompts), config))
        return [
            Completion(self._answer(str(prompt), config.seed + place), 1, "stop")
            for place, prompt in enumerate(prompts)
        ]

    def log_probs(
        self, prompts: Sequence[Prompt], continuations: Sequence[str]
    ) -> list[NDArray[np.float64]]:
        right = [text.strip() == "right" for text in continuations]
        return [np.array([math.log(0.9 if is_right else 0.1)]) for is_right in right]

    @property
    def count(self) -> int:
        return sum(len(prompts) for prompts, _ in self.asked)


def echo(prompt: str, seed: int) -> str:
    return prompt
