"""A deterministic engine without a model, for tests only.

Its answers depend on the prompt, and get worse smoothly as the factors leave a hidden optimum, so a
search over it has something to find. The distance is the mean of ``((alpha_i - optimum_i) /
0.1)^2``; token log-probabilities fall with it, and a growing share of the words of an answer (an
echo of the prompt) is replaced. It holds no checkpoints and is no model of how real blends behave.

Tests hand it over where an engine is made, or name `make_engine` as the engine of a configuration:
``engine: {name: "ztom.testing.fake_engine:make_engine"}``.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ztom.blending.chain import Chain
from ztom.engines.config import EngineConfig
from ztom.engines.protocol import (
    BlendStats,
    Capability,
    Completion,
    DerivativeMode,
    Derivatives,
    EngineInfo,
    GenerationConfig,
)
from ztom.errors import CapabilityError, EngineError, FactorError
from ztom.scoring.differentiable import LossTerm
from ztom.stimuli.records import Prompt, Stimulus

_SCALE = 0.1
_BASE_NATS = 2.0
_NATS_PER_DISTANCE = 0.5
_FILLER = ("lorem", "ipsum", "dolor", "sit", "amet", "elit", "nunc", "quam")


def make_engine(config: EngineConfig, folder: Path, chain: Chain | None) -> FakeEngine:
    """A fake engine for a chain, or for one fixed model."""
    return FakeEngine(0 if chain is None else chain.factor_count)


class FakeEngine:
    """Implements `ztom.engines.protocol.Engine` with arithmetic instead of a model.

    Args:
        transitions: Number of scaling factors; 0 is one fixed model.
        seed: Everything random is drawn from it, the optimum included.
        optimum: The best factors; drawn from [-0.06, 0.06] when None.
        noise: Standard deviation, in nats per token, of an offset redrawn at every blend, so that
            two evaluations of the same factors differ. Repeatable for a new engine only.
        outputs: Length of the rows that `values` returns.
    """

    def __init__(
        self,
        transitions: int,
        *,
        seed: int = 0,
        optimum: Sequence[float] | None = None,
        noise: float = 0.0,
        outputs: int = 3,
    ) -> None:
        if transitions < 0:
            raise EngineError("a chain has no fewer than 0 transitions", got=transitions)
        rng = np.random.default_rng(seed)
        drawn = rng.uniform(-0.06, 0.06, size=transitions)
        self._optimum = drawn if optimum is None else np.asarray(optimum, dtype=np.float64)
        if self._optimum.shape != (transitions,):
            raise EngineError(
                "the optimum has the wrong length", got=self._optimum.size, expected=transitions
            )
        self._seed = seed
        self._noise = noise
        self._outputs = outputs
        self._factors = (0.0,) * transitions
        self._blends = 0
        self._offset = 0.0
        self._closed = False

    @property
    def info(self) -> EngineInfo:
        """Every capability, on the CPU."""
        return EngineInfo(
            name="fake",
            version="1",
            dtype="float32",
            device="cpu",
            capabilities=frozenset(Capability),
        )

    @property
    def factors(self) -> tuple[float, ...]:
        """The factors of the last blend, zeros at the start."""
        return self._factors

    @property
    def distance(self) -> float:
        """Mean of ``((alpha_i - optimum_i) / 0.1)^2`` for the factors now loaded; 0 without any."""
        if not self._factors:
            return 0.0
        return float(np.mean(((np.array(self._factors) - self._optimum) / _SCALE) ** 2))

    def blend(self, factors: Sequence[float]) -> BlendStats:
        """Remember the factors; raises FactorError as the real engines do."""
        started = time.perf_counter()
        self._check_open()
        values = tuple(float(factor) for factor in factors)
        if len(values) != len(self._factors):
            raise FactorError(
                "wrong number of factors", got=len(values), expected=len(self._factors)
            )
        if not np.isfinite(values).all():
            raise FactorError("factors must be finite", got=values)
        self._factors = values
        self._blends += 1
        draw = np.random.default_rng((self._seed, self._blends)).standard_normal()
        self._offset = self._noise * float(draw)
        size = 8 * len(values)
        return BlendStats(
            seconds=time.perf_counter() - started,
            bytes_read=size,
            bytes_written=size,
            placement="host",
        )

    def generate(self, prompts: Sequence[Prompt], config: GenerationConfig) -> list[Completion]:
        """Echo the prompt, with more wrong words the further the factors are from the optimum."""
        self._check_open()
        return [self._complete(prompt, config) for prompt in prompts]

    def log_probs(
        self, prompts: Sequence[Prompt], continuations: Sequence[str]
    ) -> list[NDArray[np.float64]]:
        """One log-probability per word of the continuation, at least one.

        Returns:
            float64 arrays of shape (words of the continuation,).
        """
        self._check_open()
        if len(prompts) != len(continuations):
            raise EngineError(
                "prompts and continuations differ in number",
                got=len(continuations),
                expected=len(prompts),
            )
        level = _BASE_NATS + _NATS_PER_DISTANCE * self.distance + self._offset
        return [
            -(level + 0.5 * self._uniforms(f"{_text(prompt)}\x1f{text}", len(text.split()) or 1))
            for prompt, text in zip(prompts, continuations, strict=True)
        ]

    def values(self, prompts: Sequence[Prompt]) -> NDArray[np.float64]:
        """A row of logits per prompt that flattens with the distance.

        Returns:
            float64, shape (prompts, outputs).
        """
        self._check_open()
        sharpness = 4.0 * np.exp(-0.5 * self.distance)
        logits = np.zeros((len(prompts), self._outputs))
        for row, prompt in enumerate(prompts):
            logits[row] = sharpness * self._uniforms(_text(prompt), self._outputs) + self._offset
        return logits

    def differentiate(
        self,
        factors: Sequence[float],
        sets: Sequence[tuple[Sequence[Stimulus], Sequence[LossTerm]]],
        *,
        mode: DerivativeMode,
    ) -> list[Derivatives]:
        """The cross-entropy of tokens and its derivatives, the same in both modes."""
        self.blend(factors)
        return [self._derivatives(stimuli, terms) for stimuli, terms in sets]

    def _derivatives(self, stimuli: Sequence[Stimulus], terms: Sequence[LossTerm]) -> Derivatives:
        if any(term.kind != "tokens" for term in terms):
            raise CapabilityError("the fake engine has derivatives of the tokens' likelihood only")
        weight = sum(term.weight for term in terms)
        rows = self.log_probs([s.prompt for s in stimuli], [s.expected for s in stimuli])
        away = (np.array(self._factors) - self._optimum) / _SCALE**2
        slope = weight * _NATS_PER_DISTANCE * 2.0 * away / max(1, len(self._factors))
        return Derivatives(
            error=-weight * float(np.concatenate(rows).mean()),
            per_stimulus=tuple(-weight * float(row.mean()) for row in rows),
            gradient=tuple(slope.tolist()),
        )

    def close(self) -> None:
        """Refuse everything from now on; calling it twice is harmless."""
        self._closed = True

    def _complete(self, prompt: Prompt, config: GenerationConfig) -> Completion:
        words = _text(prompt).split() or ["empty"]
        salt = f"{config.seed}" if config.temperature > 0 else ""
        luck = self._uniforms(f"{' '.join(words)}\x1f{salt}", len(words))
        kept = np.exp(-0.7 * (self.distance + abs(self._offset)))
        answer = [
            word if u < kept else _FILLER[int(u * 1e6) % len(_FILLER)]
            for word, u in zip(words, luck, strict=True)
        ]
        reason = "length" if len(answer) > config.max_new_tokens else "stop"
        text = " ".join(answer[: config.max_new_tokens])
        for stop in config.stop:
            if stop and stop in text:
                text, reason = text[: text.index(stop)], "stop"
        return Completion(text=text, tokens=len(text.split()), finish_reason=reason)

    def _uniforms(self, text: str, count: int) -> NDArray[np.float64]:
        """Uniform numbers in [0, 1) that depend on nothing but the seed and the text, (count,)."""
        digest = hashlib.sha256(f"{self._seed}\x1f{text}".encode()).digest()
        return np.random.default_rng(list(digest)).random(count)

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("the engine is closed")


def _text(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    return " ".join(str(part) if isinstance(part, float) else part.content for part in prompt)
