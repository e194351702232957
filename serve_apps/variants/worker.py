"""What is mixed into vLLM's worker of a replica: the chain it holds, and its blends.

Imported by name in the engine's own process.
"""

from __future__ import annotations

import pickle
from dataclasses import asdict
from typing import Any

import torch

from ztom.blending.groups import GroupedFactors
from ztom.blending.plan import parse_dtype
from ztom.engines.pristine import HeldChain, Placement, pristine_bytes
from ztom.engines.shards import free_here
from ztom.engines.vllm_engine import BlendWorker


class VariantWorker(BlendWorker):
    """`BlendWorker` with what a replica needs besides.

    A replica answers while it takes hold of a chain, so nothing can be loaded to see which parts a
    rank takes: each rank holds whole tensors, in a place that is chosen for all ranks together.
    """

    _ztom_whole: HeldChain

    def ztom_need(self, chain: bytes) -> dict[str, Any]:
        """What holding a pickled chain takes: a `ShardNeed`, as what crosses processes."""
        return asdict(free_here(torch.device(self.device), pristine_bytes(pickle.loads(chain))))

    def ztom_hold_as(self, chain: bytes, dtype: str, placement: Placement) -> None:
        """Hold a pickled chain whose blends are cast to a dtype."""
        self._ztom_whole = HeldChain(
            pickle.loads(chain),
            device=torch.device(self.device),
            dtype=parse_dtype(dtype),
            placement=placement,
        )

    def ztom_try_blend(self, factors: str, instead: str) -> str:
        """Replace the weights by a blend; returns what went wrong, and nothing if all went well.

        Both are `GroupedFactors` as JSON, the second of the blend to take should the first fail.
        vLLM cannot leave a reload half-way: what it has buffered for a layer would be taken for
        part of the next one. So a blend that fails is finished with tensors of another.
        """
        held = self._ztom_whole
        plan, other = (
            held.plan_grouped(GroupedFactors.model_validate_json(text))
            for text in (factors, instead)
        )
        self._ztom_reload(held.blend(plan, instead=other))
        return held.failure

    def ztom_blend_grouped(self, factors: str) -> None:
        """Replace the weights by the blend of `GroupedFactors` as JSON."""
        held = self._ztom_whole
        self._ztom_reload(
            held.blend(held.plan_grouped(GroupedFactors.model_validate_json(factors)))
        )

    def ztom_device_bytes(self) -> int:
        """Bytes that PyTorch has reserved on the device."""
        return int(torch.cuda.memory_reserved(self.device))
