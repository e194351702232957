"""A LoRA chain blended in factor form: one adapter that stands for the whole blend, exactly.

``sum_j c_j s_j B_j A_j`` becomes one pair of factors per module by concatenation (ranks add up, the
scale goes into B); averaging A and B separately would be something else. The result is a PEFT
adapter over the chain's base with ``lora_alpha = r``, so that its own scale is 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ztom.blending.apply import Reader, concatenate
from ztom.blending.chain import Chain
from ztom.blending.plan import plan_blend
from ztom.errors import BlendError, ChainError

_PREFIX = "base_model.model."


@dataclass(frozen=True)
class BlendedAdapter:
    """A PEFT adapter in memory.

    Attributes:
        tensors: A [rank, in] and B [out, rank] by their names in ``adapter_model.safetensors``.
        config: Content of ``adapter_config.json``.
    """

    tensors: dict[str, torch.Tensor]
    config: dict[str, Any]


def blend_adapter(chain: Chain, factors: Sequence[float], read: Reader) -> BlendedAdapter:
    """Blend a chain of adapters into one adapter, float32.

    Where one adapter alone remains (``alpha = 0`` leaves the latest), its own factors are kept bit
    for bit and its scale goes into ``lora_alpha``.

    Raises:
        ChainError: An iteration of the chain is not an adapter, or nothing remains of any.
        FactorError: Not one finite factor per transition.
        BlendError: A factor is not finite.
    """
    if not chain.is_adapter_chain:
        raise ChainError(
            "only a chain of adapters over one base can be blended into an adapter",
            fix="Write full weights instead (form: dense).",
        )
    tensors: dict[str, torch.Tensor] = {}
    ranks: dict[str, int] = {}
    scales: dict[str, float] = {}
    for plan in plan_blend(chain, factors).tensors:
        if not plan.low_rank:
            continue
        module = plan.name.removesuffix(".weight")
        only = plan.low_rank[0] if len(plan.low_rank) == 1 else None
        if only is not None and only.coefficient == 1.0:
            a = read(only.member, only.factors.a, 0, _count(only.factors.a.shape))
            b = read(only.member, only.factors.b, 0, _count(only.factors.b.shape))
            pair = a.reshape(only.factors.a.shape), b.reshape(only.factors.b.shape)
            scales[module] = only.factors.scale
        else:
            pair = concatenate(plan.low_rank, read)
            scales[module] = 1.0
        for side, tensor in zip("AB", pair, strict=True):
            if not bool(torch.isfinite(tensor).all()):
                raise BlendError(f"{plan.name}: lora_{side} of the blend is not finite")
            tensors[f"{_PREFIX}{module}.lora_{side}.weight"] = tensor.contiguous()
        ranks[module] = pair[0].shape[0]
    if not tensors:
        raise ChainError(
            "nothing remains of the adapters with these factors: the blend is the base itself",
            fix="Use the base, or write full weights (form: dense).",
        )
    return BlendedAdapter(tensors, _config(chain, ranks, scales))


def _config(chain: Chain, ranks: dict[str, int], scales: dict[str, float]) -> dict[str, Any]:
    """PEFT's config; modules whose rank or scale is not the usual one get a pattern."""
    rank = Counter(ranks.values()).most_common(1)[0][0]
    alphas = {module: scales[module] * ranks[module] for module in ranks}
    alpha = Counter(alphas.values()).most_common(1)[0][0]
    first = chain.members[-1].config
    return {
        "peft_type": "LORA",
        "task_type": first.get("task_type"),
        "base_model_name_or_path": first.get("base_model_name_or_path") or chain.base.reference,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": any(
            factors.transposed
            for adapter in chain.adapters
            if adapter is not None
            for factors in adapter.factors.values()
        ),
        "inference_mode": True,
        "init_lora_weights": True,
        "target_modules": sorted(ranks),
        "rank_pattern": {m: r for m, r in sorted(ranks.items()) if r != rank},
        "alpha_pattern": {m: a for m, a in sorted(alphas.items()) if a != alpha},
    }


def _count(shape: Sequence[int]) -> int:
    return shape[0] * shape[1]
