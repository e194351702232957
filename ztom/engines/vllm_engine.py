"""vLLM as an engine: fast batched generation and log-probabilities, blended in place.

The worker process holds the chain (`BlendWorker`, loaded through vLLM's ``worker_extension_cls``)
and hands blended tensors to vLLM's own ``reload_weights``, which knows fused layers, tensor
parallel shards and the packed weights of the CPU build. They are lazy: a rank reads, holds and
blends what its layers copy of them (`ztom.engines.shards`). After a blend the prefix cache is
reset; besides, every prompt carries the blend's number as its cache salt, so a block that was
computed with other weights can never be found again. This is the only file of the package that
imports vLLM.
"""

from __future__ import annotations

import logging
import os
import pickle
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

# One process for engine and scheduler; set before vLLM reads its environment.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")

import numpy as np
import torch

# On a CPU the engine runs eagerly, but vLLM compiles its prompt log-probabilities all the same: the
# first call takes seconds, and its numbers are the same bit for bit. Torch reads this when vLLM is
# imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

import vllm
from numpy.typing import NDArray
from vllm.inputs import TokensPrompt
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.platforms import current_platform

from ztom.blending.chain import Chain
from ztom.blending.files import tokenizer_folder
from ztom.blending.plan import BlendPlan, parse_dtype
from ztom.engines.collector import collection_paused
from ztom.engines.config import EngineConfig
from ztom.engines.device_plan import DevicePlan, plan_device
from ztom.engines.model_fit import check_chain_fit, check_folder_fit
from ztom.engines.pristine import Placement, pristine_bytes
from ztom.engines.prompts import PromptEncoder, check_length
from ztom.engines.protocol import (
    BlendStats,
    Capability,
    Completion,
    EngineInfo,
    GenerationConfig,
)
from ztom.engines.shards import HeldShards, ShardNeed, placed_together
from ztom.engines.vllm_classes import register_classes
from ztom.engines.vllm_dtype import vllm_dtype
from ztom.errors import CapabilityError, EngineError, FactorError, ZtomError
from ztom.stimuli.records import Prompt

logger = logging.getLogger(__name__)

_CAPABILITIES = frozenset({Capability.GENERATE, Capability.LOG_PROBS})


class BlendWorker:
    """Mixed into vLLM's worker; with tensor parallelism every rank blends and holds its shard.

    Every method name holds ``ztom_``: vLLM refuses names that its worker has already.
    """

    model_runner: Any
    model_config: Any
    device: torch.device
    _ztom_held: HeldShards

    def ztom_hold(self, chain: bytes) -> ShardNeed | ZtomError:
        """Load the latest checkpoint of a chain (pickled); returns what this rank takes of it."""
        return self._ztom_hold(chain, self.model_config.dtype)

    def ztom_place(self, placement: Placement) -> ZtomError | None:
        """Hold what this rank takes of the chain where all ranks hold it."""
        try:
            self._ztom_held.place(placement)
        except ZtomError as error:
            return error
        return None

    def ztom_blend(self, factors: tuple[float, ...]) -> tuple[int, int]:
        """Replace the weights by the blend; returns bytes read and bytes written.

        Raises:
            BlendError: The blend has values that cannot be deployed.
        """
        plan: BlendPlan = self._ztom_held.plan(factors)
        self._ztom_reload(self._ztom_held.tensors(plan))
        self._ztom_held.check()
        return self._ztom_held.bytes_read, plan.nbytes

    def ztom_blend_or_error(self, factors: tuple[float, ...]) -> tuple[int, int] | ZtomError:
        """Call `ztom_blend`, but return an error of ours: a raised one arrives as text."""
        try:
            return self.ztom_blend(factors)
        except ZtomError as error:
            return error

    def _ztom_hold(self, chain: bytes, dtype: torch.dtype | None) -> ShardNeed | ZtomError:
        self._ztom_held = HeldShards(
            pickle.loads(chain), device=torch.device(self.device), dtype=dtype
        )
        zeros = (0.0,) * self._ztom_held.chain.factor_count
        done = self.ztom_blend_or_error(zeros)
        return done if isinstance(done, ZtomError) else self._ztom_held.need()

    def _ztom_reload(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        with torch.inference_mode(False), torch.no_grad():
            self.model_runner.reload_weights(weights_iterator=tensors)
            _refresh_tied_heads(self.model_runner.get_model())


def _refresh_tied_heads(model: torch.nn.Module) -> None:
    """Repack output heads that share the embedding's weight.

    ``reload_weights`` processes a layer when its own tensors arrive; a tied head has none, and
    would go on multiplying with what it packed when the model was loaded.
    """
    for module in model.modules():
        if isinstance(module, ParallelLMHead):
            module.quant_method.process_weights_after_loading(module)


class VllmEngine:
    """Implements `ztom.engines.protocol.Engine` with vLLM, inside the calling process.

    Args:
        config: Options of the engine.
        folder: A checkpoint with the model's config and tokenizer.
        chain: Chain to blend; None for one fixed model.

    Raises:
        EngineError: vLLM does not start, with its reason, or the tensors do not fit the model.
    """

    def __init__(self, config: EngineConfig, folder: Path, chain: Chain | None) -> None:
        check_folder_fit(folder)
        if chain is not None:
            check_chain_fit(folder, chain)
        with tokenizer_folder(chain, folder) as place, collection_paused():
            self._encoder = PromptEncoder(
                place, chat_template=config.chat_template, template=config.template
            )
            plan = _plan_gpu(config, chain)
            self._llm = _start(config, folder, tokenizer=place, plan=plan)
        self._config = config
        self._blends = 0
        self._placement = "host"
        self._chain = chain
        self._factors: tuple[float, ...] | None = (0.0,) * (chain.factor_count if chain else 0)
        if chain is not None:
            with placed_together(self._rpc("ztom_hold", pickle.dumps(chain))) as placement:
                if plan is not None and plan.holds_chain:
                    placement = "device"  # its memory was left free for it
                self._placement = placement
                self._rpc("ztom_place", placement)
            self.blend(self.factors)

    @property
    def info(self) -> EngineInfo:
        """What this engine is."""
        model_config = self._llm.llm_engine.model_config
        return EngineInfo(
            name="vllm",
            version=vllm.__version__,
            dtype=str(model_config.dtype).removeprefix("torch."),
            device="cuda" if torch.cuda.is_available() else "cpu",
            capabilities=_CAPABILITIES,
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
        """Blend inside the worker; see the protocol."""
        if self._chain is None:
            if factors:
                raise FactorError("this engine runs one fixed model, it has no factors")
            return BlendStats(seconds=0.0, bytes_read=0, bytes_written=0, placement="host")
        started = time.perf_counter()
        checked = self._chain.check_factors(factors)
        self._factors = None
        self._blends += 1  # from here on no block of the prefix cache is found again
        try:
            ranks = self._rpc("ztom_blend_or_error", checked)
        finally:
            self._llm.reset_prefix_cache()
        self._factors = checked
        return BlendStats(
            seconds=time.perf_counter() - started,
            bytes_read=sum(read for read, _ in ranks),
            bytes_written=ranks[0][1],
            placement=self._placement,
        )

    def generate(self, prompts: Sequence[Prompt], config: GenerationConfig) -> list[Completion]:
        """Generate in vLLM's own batches; see the protocol."""
        ids = [self._encoder.prompt_ids(prompt) for prompt in prompts]
        for row in ids:
            check_length(row, [], limit=self._max_length() - 1)
        params = [
            vllm.SamplingParams(
                max_tokens=config.max_new_tokens,
                temperature=config.temperature,
                top_p=config.top_p,
                top_k=config.top_k,
                repetition_penalty=config.repetition_penalty,
                stop=list(config.stop),
                seed=config.seed + position if config.temperature > 0 else None,
            )
            for position in range(len(ids))
        ]
        answers = [result.outputs[0] for result in self._run(ids, params)]
        return [
            Completion(
                text=answer.text,
                tokens=len(answer.token_ids),
                finish_reason="length" if answer.finish_reason == "length" else "stop",
            )
            for answer in answers
        ]

    def log_probs(
        self, prompts: Sequence[Prompt], continuations: Sequence[str]
    ) -> list[NDArray[np.float64]]:
        """Teacher-forced through vLLM's prompt log-probabilities; see the protocol."""
        pairs = [
            (self._encoder.prompt_ids(prompt), self._encoder.continuation_ids(continuation))
            for prompt, continuation in zip(prompts, continuations, strict=True)
        ]
        for prompt_ids, continuation_ids in pairs:
            # vLLM always generates one token, which needs a place too
            check_length(prompt_ids, continuation_ids, limit=self._max_length() - 1)
        params = vllm.SamplingParams(
            max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False
        )
        results = self._run([a + b for a, b in pairs], [params] * len(pairs))
        rows = []
        for result, (prompt_ids, continuation_ids) in zip(results, pairs, strict=True):
            scored = result.prompt_logprobs[len(prompt_ids) :]
            rows.append(
                np.array(
                    [step[t].logprob for step, t in zip(scored, continuation_ids, strict=True)],
                    dtype=np.float64,
                )
            )
        return rows

    def values(self, prompts: Sequence[Prompt]) -> NDArray[np.float64]:
        """Refuse: classifiers run on the torch engine."""
        raise CapabilityError(
            "the vllm engine has no output rows", fix="Set engine.name: torch for a classifier."
        )

    def close(self) -> None:
        """Shut vLLM down and drop the weights."""
        llm, self._llm = self._llm, None
        if llm is not None:
            llm.llm_engine.engine_core.shutdown()

    def _run(self, ids: list[list[int]], params: list[Any]) -> list[Any]:
        self.factors  # noqa: B018 - raises when there are no usable weights
        salt = f"blend-{self._blends}"
        prompts = [TokensPrompt(prompt_token_ids=row, cache_salt=salt) for row in ids]
        try:
            results: list[Any] = self._llm.generate(prompts, params, use_tqdm=False)
        except Exception as error:  # vLLM raises whatever its layers raise
            raise EngineError("vLLM failed", reason=f"{type(error).__name__}: {error}") from error
        return results

    def _rpc(self, method: str, argument: object) -> list[Any]:
        try:
            results: list[Any] = self._llm.collective_rpc(method, args=(argument,))
        except ZtomError:
            raise
        except Exception as error:  # vLLM raises whatever its layers raise
            raise EngineError(
                "vLLM could not blend", reason=f"{type(error).__name__}: {error}"
            ) from error
        for result in results:
            if isinstance(result, ZtomError):
                raise result
        return results

    def _max_length(self) -> int:
        return int(self._llm.llm_engine.model_config.max_model_len)


def _plan_gpu(config: EngineConfig, chain: Chain | None) -> DevicePlan | None:
    """How a GPU's memory is divided; None on a CPU, and where the configuration says the share."""
    is_told = "gpu_memory_utilization" in config.model_fields_set
    if chain is None or is_told or not torch.cuda.is_available():
        return None
    ranks, dtype = config.tensor_parallel_size, parse_dtype(config.dtype)
    specs = chain.members[chain.model].tensors.values()
    weights = sum(spec.count * (dtype or spec.dtype).itemsize for spec in specs)
    memory = int(current_platform.get_device_total_memory())
    return plan_device(memory, weights=weights // ranks, pristine=pristine_bytes(chain) // ranks)


def _start(config: EngineConfig, folder: Path, *, tokenizer: Path, plan: DevicePlan | None) -> Any:
    on_gpu = torch.cuda.is_available()
    share = config.gpu_memory_utilization if plan is None else plan.share
    memory: dict[str, Any] = {"gpu_memory_utilization": share}
    if not on_gpu:  # otherwise vLLM asks for most of the machine's memory
        memory = {
            "gpu_memory_utilization": 0.01,
            "kv_cache_memory_bytes": int(config.kv_cache_gib * 2**30),
        }
        register_classes(vllm.ModelRegistry, folder)
    dtype = vllm_dtype(config.dtype, folder)
    try:
        return vllm.LLM(
            model=str(folder),
            tokenizer=str(tokenizer),
            load_format="safetensors",  # "auto" would prefer a consolidated.safetensors
            dtype=dtype,
            tensor_parallel_size=config.tensor_parallel_size,
            # inside a placement group of Ray's, vLLM would ask it for GPUs that this process has
            distributed_executor_backend="mp" if config.tensor_parallel_size > 1 else None,
            max_model_len=config.max_model_len,
            max_num_seqs=config.max_num_seqs,
            trust_remote_code=False,
            enforce_eager=not on_gpu,
            worker_extension_cls=f"{__name__}.{BlendWorker.__name__}",
            seed=0,
            disable_log_stats=True,
            **memory,
        )
    except Exception as error:  # vLLM raises whatever its layers raise
        logger.error("vLLM does not start on %s", folder)
        raise EngineError(
            "vLLM does not start on the model",
            reason=f"{type(error).__name__}: {error}",
            fix="Try a smaller max_model_len or kv_cache_gib."
            if "memory" in str(error).lower() or "kv cache" in str(error).lower()
            else "Try engine.name: torch, which runs whatever transformers does.",
        ) from error
