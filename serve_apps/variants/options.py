"""How vLLM is started for a replica, as the keyword arguments of its ``AsyncEngineArgs``."""

from __future__ import annotations

from typing import Any

from serve_apps.tracing import traces_endpoint, wants_traces
from serve_apps.variants.args import BaseArgs, VariantArgs
from serve_apps.variants.identity import ModelIdentity
from ztom.engines.embedding_models import gives_embeddings
from ztom.engines.vllm_dtype import vllm_dtype
from ztom.rollout.options import ServingArgs

_CPU_KV_CACHE_BYTES = 2**29
# vLLM's own default; what it leaves is for what it does not count.
_GPU_SHARE = 0.92
# Named, not imported: the engine's process imports it.
_WORKER = "serve_apps.variants.worker.VariantWorker"
# The ranks vLLM has kernels for.
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def engine_options(args: ServingArgs, identity: ModelIdentity, *, on_gpu: bool) -> dict[str, Any]:
    """Everything that is not left to vLLM's defaults."""
    return {
        "model": str(identity.folder),
        "tokenizer": str(identity.folder),
        "served_model_name": identity.pinned,
        "runner": "pooling" if gives_embeddings(identity.folder) else "generate",
        "trust_remote_code": False,
        "load_format": "safetensors",
        "dtype": vllm_dtype(args.dtype, identity.folder),
        "max_model_len": args.max_model_len,
        "tensor_parallel_size": args.tensor_parallel_size,
        "enable_log_requests": False,
        "disable_log_stats": True,
        **_memory_options(args, on_gpu=on_gpu),
        **_worker_options(args, on_gpu=on_gpu),
        **_adapter_options(args),
        **({"otlp_traces_endpoint": traces_endpoint()} if wants_traces() else {}),
    }


def _memory_options(args: ServingArgs, *, on_gpu: bool) -> dict[str, Any]:
    if not on_gpu:
        # Without these vLLM sizes its cache by the whole machine's memory, and often cannot start.
        return {
            "enforce_eager": True,
            "gpu_memory_utilization": 0.05,
            "kv_cache_memory_bytes": args.kv_cache_bytes or _CPU_KV_CACHE_BYTES,
        }
    if args.kv_cache_bytes is not None:
        return {"kv_cache_memory_bytes": args.kv_cache_bytes}
    if args.gpu_fraction < 1:
        return {"gpu_memory_utilization": _GPU_SHARE * args.gpu_fraction}
    return {}


def _worker_options(args: ServingArgs, *, on_gpu: bool) -> dict[str, Any]:
    swaps = isinstance(args, VariantArgs) and args.live_swap
    return {"worker_extension_cls": _WORKER} if swaps or on_gpu else {}


def _adapter_options(args: ServingArgs) -> dict[str, Any]:
    if not isinstance(args, BaseArgs):
        return {}
    return {
        "enable_lora": True,
        "max_loras": args.max_loras,
        "max_cpu_loras": args.max_cpu_loras,
        "max_lora_rank": next(rank for rank in _RANKS if rank >= args.max_lora_rank),
    }
