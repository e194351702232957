"""The one protocol that every engine implements, and the records that cross it.

An engine holds a chain's weights, takes scaling factors, and answers prompts with the blend that
the factors describe. It does not score, split or store anything. Implementations:
`ztom.engines.torch_engine`, `ztom.engines.vllm_engine`, and `ztom.testing.fake_engine` for tests;
the same conformance suite runs on all of them (`ztom.testing.engines`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ztom.scoring.differentiable import LossTerm
from ztom.stimuli.records import Prompt, Stimulus


class Capability(StrEnum):
    """What an engine can be asked for."""

    GENERATE = "generate"
    LOG_PROBS = "log_probs"
    VALUES = "values"
    GRADIENT = "gradient"


class GenerationConfig(BaseModel):
    """How text is generated; the field names are those of transformers' ``GenerationConfig``.

    ``temperature`` 0 is greedy decoding, which is deterministic and the default.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_new_tokens: int = Field(default=64, ge=1, le=131_072)
    temperature: float = Field(default=0.0, ge=0.0, le=10.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    top_k: int = Field(default=0, ge=0, description="0 keeps every token")
    repetition_penalty: float = Field(default=1.0, gt=0.0, le=10.0)
    stop: tuple[str, ...] = ()
    seed: int = Field(default=0, ge=0, lt=2**31)


@dataclass(frozen=True, slots=True)
class Completion:
    """One generated answer.

    Attributes:
        text: Generated text without the prompt and without special tokens.
        tokens: Number of generated tokens.
        finish_reason: Reason of the end: ``stop`` (end of sequence or a stop string) or ``length``.
    """

    text: str
    tokens: int
    finish_reason: str


@dataclass(frozen=True, slots=True)
class BlendStats:
    """What one change of factors cost.

    Attributes:
        seconds: Seconds from the call until the engine can answer.
        bytes_read: Bytes of checkpoint data that were read for the blend.
        bytes_written: Bytes of blended parameters that were written.
        placement: Place of the checkpoints: ``device``, ``host`` or ``file``.
    """

    seconds: float
    bytes_read: int
    bytes_written: int
    placement: str


#: ``forward`` takes one pass a factor and keeps nothing of it; ``reverse`` one pass, and one back,
#: for all factors, with a batch's activations kept. Weights are never changed.
DerivativeMode = Literal["forward", "reverse"]


@dataclass(frozen=True, slots=True)
class Derivatives:
    """The error of a blend on some stimuli and its exact derivatives by the factors.

    Attributes:
        error: Weighted sum of the terms, aggregated as the error functions do.
        per_stimulus: Error of each stimulus, in order.
        gradient: Derivative of the error by each factor.
    """

    error: float
    per_stimulus: tuple[float, ...]
    gradient: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What is recorded about an engine with each result.

    Attributes:
        name: ``torch``, ``vllm``, or what an engine of somebody else calls itself.
        version: Version of the library underneath.
        dtype: The dtype of the deployed weights, e.g. ``bfloat16``.
        device: ``cpu`` or ``cuda``.
        capabilities: Capabilities that may be asked of it.
    """

    name: str
    version: str
    dtype: str
    device: str
    capabilities: frozenset[Capability]


class Generates(Protocol):
    """Answers prompts with text from the blend that is loaded; for one caller at a time."""

    @property
    def info(self) -> EngineInfo:
        """What this engine is."""

    @property
    def factors(self) -> tuple[float, ...]:
        """The scaling factors of the blend now loaded, one per transition; zeros at the start."""

    def generate(self, prompts: Sequence[Prompt], config: GenerationConfig) -> list[Completion]:
        """Generate one completion per prompt, in order; the engine batches on its own.

        Raises:
            CapabilityError: The engine does not generate.
            EngineError: Anything that went wrong inside.
        """


class Engine(Generates, Protocol):
    """Holds a chain and answers prompts with a blend of it; for one caller at a time."""

    def blend(self, factors: Sequence[float]) -> BlendStats:
        """Load ``latest + sum(alpha_i * delta_i)``, recomputed from the pristine checkpoints.

        Args:
            factors: One finite factor per transition of the chain.

        Raises:
            FactorError: Wrong length, or a factor that is not finite.
            BlendError: The blend overflows the deployed dtype or holds NaN; the engine then
                has no usable weights until the next successful blend, and says so when asked.
        """

    def log_probs(
        self, prompts: Sequence[Prompt], continuations: Sequence[str]
    ) -> list[NDArray[np.float64]]:
        """Teacher-forced natural-log probabilities of each continuation's tokens after its prompt.

        Returns:
            One float64 array per prompt, shape (tokens of the continuation,).

        Raises:
            CapabilityError: The engine has no token probabilities.
        """

    def values(self, prompts: Sequence[Prompt]) -> NDArray[np.float64]:
        """The model's raw output row per prompt (class logits, regression outputs).

        Returns:
            float64, shape (prompts, outputs).

        Raises:
            CapabilityError: The engine is not a classifier, regressor or plain module.
        """

    def close(self) -> None:
        """Give back memory and processes; calling it twice is harmless."""


class Differentiates(Engine, Protocol):
    """An engine with `Capability.GRADIENT`: it can say how errors change with the factors."""

    def differentiate(
        self,
        factors: Sequence[float],
        sets: Sequence[tuple[Sequence[Stimulus], Sequence[LossTerm]]],
        *,
        mode: DerivativeMode,
    ) -> list[Derivatives]:
        """Blend, and take errors and their derivatives by every factor in float32.

        Args:
            factors: One finite factor per transition of the chain.
            sets: Stimuli of each data set with the terms of its error.
            mode: How derivatives are taken; both are exact.

        Raises:
            CapabilityError: The model has an operation without such derivatives, or no answer of
                the kind that a term needs.
            FactorError: As `Engine.blend` does.
            BlendError: As `Engine.blend` does.
        """
