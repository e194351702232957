"""A model with its engine in one, for commands that evaluate models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from gate_helpers import model

from ztom.engines.protocol import Capability, Completion, EngineInfo


class ScriptedModel:
    """Answers every question with one word and the question's number; notes what happened."""

    def __init__(self, name: str, answer: str, events: list[str]) -> None:
        self.ref = model(name)
        self.info = EngineInfo("scripted", "1", "float32", "cpu", frozenset({Capability.GENERATE}))
        self.factors: tuple[float, ...] = ()
        self._answer, self._events = answer, events

    def load(self, config: Any, *, settings: Any) -> ScriptedModel:
        self._events.append(f"load {self.ref.name}")
        return self

    def generate(self, prompts: Sequence[Any], config: Any) -> list[Completion]:
        number = [re.findall(r"\d+", str(prompt))[0] for prompt in prompts]
        return [Completion(f"{self._answer} {n}", 2, "stop") for n in number]

    def close(self) -> None:
        self._events.append(f"close {self.ref.name}")
