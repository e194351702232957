"""Hugging Face models and plain modules in PyTorch: classifiers, regressors, and a second opinion.

Slower than vLLM at generation; it is what classification runs on, and what vLLM's answers are
compared with. Which head a Hugging Face model gets is read from ``architectures`` in its config.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ztom.blending.chain import Chain
from ztom.blending.files import tokenizer_folder
from ztom.blending.plan import parse_dtype
from ztom.engines.config import EngineConfig
from ztom.engines.differentiator import Differentiator
from ztom.engines.losses import LossInputs, ModelInputs
from ztom.engines.pristine import HeldChain
from ztom.engines.prompts import PromptEncoder, check_length
from ztom.engines.protocol import (
    BlendStats,
    Capability,
    Completion,
    DerivativeMode,
    Derivatives,
    EngineInfo,
    GenerationConfig,
)
from ztom.engines.targets import Targets
from ztom.engines.torch_models import (
    CLASSIFIES,
    is_image_model,
    load_model,
    load_module,
    pixels,
    rows_of_numbers,
)
from ztom.errors import CapabilityError, EngineError, FactorError
from ztom.scoring.differentiable import LossTerm
from ztom.stimuli.batches import batches
from ztom.stimuli.records import Prompt, Stimulus


class TorchEngine:
    """Implements `ztom.engines.protocol.Engine` with transformers or a plain module.

    Args:
        config: Options of the engine.
        folder: A checkpoint with the model's config and tokenizer.
        chain: Chain to blend; None for one fixed model.
    """

    def __init__(self, config: EngineConfig, folder: Path, chain: Chain | None) -> None:
        self._config = config
        self._model: Any
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._dtype = parse_dtype(config.dtype)
        self._encoder: PromptEncoder | None = None
        if config.module is not None:
            self._model = load_module(config.module, folder)
            self._capabilities = CLASSIFIES
        else:
            self._model, self._capabilities = load_model(folder, self._dtype)
        if config.module is None and not is_image_model(self._model):
            with tokenizer_folder(chain, folder) as place:
                self._encoder = PromptEncoder(
                    place, chat_template=config.chat_template, template=config.template
                )
        self._model.to(self._device).eval().requires_grad_(False)
        if self._dtype is not None:
            self._model.to(self._dtype)
        count = 0 if chain is None else chain.factor_count
        self._factors: tuple[float, ...] | None = (0.0,) * count
        self._held: HeldChain | None = None
        self._differentiator: Differentiator | None = None
        if chain is not None:
            self._held = HeldChain(chain, device=self._device, dtype=self._dtype)
            self.blend(self.factors)

    @property
    def info(self) -> EngineInfo:
        """What this engine is."""
        dtype = next((p.dtype for p in self._model.parameters()), torch.float32)
        return EngineInfo(
            name="torch",
            version=torch.__version__,
            dtype=str(dtype).removeprefix("torch."),
            device=self._device.type,
            capabilities=self._capabilities | self._gradient(),
        )

    @property
    def factors(self) -> tuple[float, ...]:
        """The factors of the blend now loaded."""
        if self._factors is None:
            raise EngineError(
                "the last blend failed: there are no usable weights", fix="Blend again."
            )
        return self._factors

    def blend(self, factors: Sequence[float]) -> BlendStats:
        """Copy the blend into the model's parameters; see the protocol."""
        if self._held is None:
            if factors:
                raise FactorError("this engine runs one fixed model, it has no factors")
            return BlendStats(seconds=0.0, bytes_read=0, bytes_written=0, placement="host")
        started = time.perf_counter()
        plan = self._held.plan(factors)
        self._factors = None
        targets = Targets(self._model, [tensor.name for tensor in plan.tensors])
        for name, tensor in self._held.blend(plan):
            targets.copy(name, tensor)
        targets.check_complete()
        self._factors = plan.factors
        return BlendStats(
            seconds=time.perf_counter() - started,
            bytes_read=self._held.bytes_read,
            bytes_written=plan.nbytes,
            placement=self._held.placement,
        )

    def generate(self, prompts: Sequence[Prompt], config: GenerationConfig) -> list[Completion]:
        """Generate in batches with left padding; see the protocol."""
        encoder = self._language_model()
        ids = [encoder.prompt_ids(prompt) for prompt in prompts]
        for row in ids:
            check_length(row, [], limit=self._max_length() - 1)
        completions: list[Completion] = []
        for number, batch in enumerate(batches(ids, self._config.max_num_seqs)):
            completions += self._generate_batch(encoder, batch, config, seed=config.seed + number)
        return completions

    def log_probs(
        self, prompts: Sequence[Prompt], continuations: Sequence[str]
    ) -> list[NDArray[np.float64]]:
        """Teacher-forced, in batches with right padding; see the protocol."""
        encoder = self._language_model()
        pairs = [
            (encoder.prompt_ids(prompt), encoder.continuation_ids(continuation))
            for prompt, continuation in zip(prompts, continuations, strict=True)
        ]
        for prompt_ids, continuation_ids in pairs:
            check_length(prompt_ids, continuation_ids, limit=self._max_length())
        rows: list[NDArray[np.float64]] = []
        for batch in batches(pairs, self._config.max_num_seqs):
            logits = self._logits([a + b for a, b in batch])
            for row, (prompt_ids, continuation_ids) in zip(logits, batch, strict=True):
                start = len(prompt_ids) - 1
                scored = row[start : start + len(continuation_ids)].float().log_softmax(-1)
                picked = scored.gather(
                    1, torch.tensor(continuation_ids, device=scored.device)[:, None]
                )
                rows.append(picked[:, 0].double().cpu().numpy())
        return rows

    def values(self, prompts: Sequence[Prompt]) -> NDArray[np.float64]:
        """Class logits or the plain module's output rows; see the protocol."""
        if Capability.VALUES not in self._capabilities:
            raise CapabilityError("a causal language model has no output row")
        self.factors  # noqa: B018 - raises when there are no usable weights
        rows = [self._rows(batch) for batch in batches(prompts, self._config.max_num_seqs)]
        return np.concatenate(rows) if rows else np.empty((0, 0))

    def differentiate(
        self,
        factors: Sequence[float],
        sets: Sequence[tuple[Sequence[Stimulus], Sequence[LossTerm]]],
        *,
        mode: DerivativeMode,
    ) -> list[Derivatives]:
        """Errors and their exact derivatives; see the protocol."""
        if self._held is None or not self._gradient():
            raise CapabilityError(
                "derivatives are taken of blends of float32 weights",
                got=self.info.dtype if self._held is not None else "one fixed model",
                fix="Set dtype: float32.",
            )
        self.blend(factors)
        if self._differentiator is None:
            self._differentiator = Differentiator(self._held, self._loss_inputs())
        return self._differentiator.take(sets, mode=mode)

    def close(self) -> None:
        """Drop the weights."""
        self._differentiator = None
        self._held = None
        self._model = torch.nn.Module()

    def _gradient(self) -> frozenset[Capability]:
        """Derivatives, where there are factors and every weight is in float32."""
        dtypes = {t.dtype for t in self._model.state_dict().values() if t.is_floating_point()}
        able = self._held is not None and dtypes == {torch.float32}
        return frozenset({Capability.GRADIENT} if able else ())

    def _loss_inputs(self) -> LossInputs:
        return LossInputs(
            self._model,
            self._device,
            self._encoder,
            self._row_inputs if Capability.VALUES in self._capabilities else None,
            max_length=self._max_length(),
            max_rows=self._config.max_num_seqs,
        )

    def _language_model(self) -> PromptEncoder:
        if Capability.GENERATE not in self._capabilities or self._encoder is None:
            raise CapabilityError("this model does not generate text")
        self.factors  # noqa: B018 - raises when there are no usable weights
        return self._encoder

    def _max_length(self) -> int:
        if self._encoder is None:
            return 1_000_000
        text = self._model.config.get_text_config()
        own = getattr(text, "max_position_embeddings", None)
        limits = [limit for limit in (own, self._config.max_model_len) if limit]
        return int(min(limits)) if limits else 1_000_000

    @torch.inference_mode()
    def _logits(self, ids: Sequence[list[int]]) -> torch.Tensor:
        tokens, mask = self._padded(ids, left=False)
        logits: torch.Tensor = self._model(input_ids=tokens, attention_mask=mask).logits
        return logits

    def _padded(self, ids: Sequence[list[int]], *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and attention mask, both [rows, longest]."""
        longest = max(len(row) for row in ids)
        tokens = torch.zeros(len(ids), longest, dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for i, row in enumerate(ids):
            place = slice(longest - len(row), longest) if left else slice(0, len(row))
            tokens[i, place] = torch.tensor(row)
            mask[i, place] = 1
        return tokens.to(self._device), mask.to(self._device)

    @torch.inference_mode()
    def _generate_batch(
        self,
        encoder: PromptEncoder,
        ids: Sequence[list[int]],
        config: GenerationConfig,
        *,
        seed: int,
    ) -> list[Completion]:
        tokens, mask = self._padded(ids, left=True)
        room = self._max_length() - tokens.shape[1]
        options: dict[str, Any] = {"do_sample": config.temperature > 0}
        if config.temperature > 0:
            torch.manual_seed(seed)
            options |= {
                "temperature": config.temperature,
                "top_p": config.top_p,
                "top_k": config.top_k or None,
            }
        if config.stop:
            options |= {"stop_strings": list(config.stop), "tokenizer": encoder.tokenizer}
        out = self._model.generate(
            input_ids=tokens,
            attention_mask=mask,
            max_new_tokens=min(config.max_new_tokens, room),
            repetition_penalty=config.repetition_penalty,
            pad_token_id=self._pad_id(),
            **options,
        )
        return [self._completion(encoder, row[tokens.shape[1] :], config) for row in out.tolist()]

    def _completion(
        self, encoder: PromptEncoder, row: list[int], config: GenerationConfig
    ) -> Completion:
        ends = self._end_ids()
        length = next((i + 1 for i, token in enumerate(row) if token in ends), len(row))
        stopped = length < len(row) or (bool(row) and row[length - 1] in ends)
        text = encoder.decode(row[:length])
        for stop in config.stop:
            head, separator, _ = text.partition(stop)
            if separator:
                text, stopped = head, True
        return Completion(text=text, tokens=length, finish_reason="stop" if stopped else "length")

    def _end_ids(self) -> frozenset[int]:
        ends = self._model.generation_config.eos_token_id
        return frozenset([ends] if isinstance(ends, int) else ends or [])

    def _pad_id(self) -> int:
        return min(self._end_ids(), default=0)

    @torch.inference_mode()
    def _rows(self, prompts: Sequence[Prompt]) -> NDArray[np.float64]:
        positional, named = self._row_inputs(prompts)
        out = self._model(*positional, **named)
        out = getattr(out, "logits", out)
        if not isinstance(out, torch.Tensor) or out.ndim != 2 or out.shape[0] != len(prompts):
            raise EngineError(
                "the module's output is not one row per stimulus",
                got=list(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__,
                expected=f"[{len(prompts)}, outputs]",
            )
        result: NDArray[np.float64] = out.double().cpu().numpy()
        return result

    def _row_inputs(self, prompts: Sequence[Prompt]) -> ModelInputs:
        """What a model with one output row per prompt is given."""
        if self._encoder is not None:
            ids = [self._encoder.prompt_ids(prompt) for prompt in prompts]
            for row in ids:
                check_length(row, [], limit=self._max_length())
            tokens, mask = self._padded(ids, left=False)
            return (), {"input_ids": tokens, "attention_mask": mask}
        if is_image_model(self._model):
            images = pixels(prompts, self._model.config)
            return (), {"pixel_values": images.to(self._device, self._model.dtype)}
        numbers = rows_of_numbers(prompts)
        return (numbers.to(self._device, self._dtype or torch.float32),), {}
