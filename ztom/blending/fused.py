"""One pass over the memory of an accelerator for a blend: sources in, result out, nothing between.

``out = cast(fma(c_n, s_n, ... fma(c_2, s_2, c_1 * s_1)))``, in float32, in the order of the terms.
That is what `ztom.blending.apply` computes step by step: PyTorch's ``add(alpha=...)`` multiplies
and adds with one rounding too, so both give the same bits. Of five checkpoints in bfloat16 an
element moves 12 bytes, where the steps move 62.

It is imported where Triton and CUDA are there. On a CPU Triton's interpreter runs it
(``TRITON_INTERPRET=1``), for tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl

#: Elements of one program.
_BLOCK = 1024
_TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


@triton.jit  # type: ignore[untyped-decorator]
def _sum_kernel(
    sources: Any,
    coefficients: Any,
    out: Any,
    flag: Any,
    count: Any,
    TERMS: tl.constexpr,
    TYPE: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = places < count
    source = tl.load(sources).to(tl.pointer_type(TYPE))
    total = tl.load(coefficients) * tl.load(source + places, mask=inside, other=0.0).to(tl.float32)
    for term in tl.static_range(1, TERMS):
        source = tl.load(sources + term).to(tl.pointer_type(TYPE))
        value = tl.load(source + places, mask=inside, other=0.0).to(tl.float32)
        total = tl.fma(value, tl.load(coefficients + term), total)
    result = total.to(out.dtype.element_ty)
    tl.store(out + places, result, mask=inside)
    # NaN is unequal to itself, and infinity minus itself is NaN
    exact = result.to(tl.float32)
    bad = tl.where(inside & ((exact - exact) != 0.0), 1, 0)
    tl.atomic_max(flag, tl.max(bad, axis=0))


def can_sum(sources: Sequence[torch.Tensor], out: torch.Tensor) -> bool:
    """Whether `weighted_sum` takes these: of one dtype that it knows, and without gaps.

    Args:
        sources: Parts of checkpoints, flat.
        out: Memory of the result.
    """
    dtypes = {source.dtype for source in sources}
    return (
        len(dtypes) == 1
        and dtypes <= _TYPES.keys()
        and out.dtype in _TYPES
        and all(source.is_contiguous() and source.device == out.device for source in sources)
    )


def weighted_sum(
    sources: Sequence[torch.Tensor],
    coefficients: Sequence[float],
    out: torch.Tensor,
    flag: torch.Tensor,
) -> None:
    """Write ``sum_j c_j s_j`` into ``out``, and 1 into ``flag`` where it holds NaN or infinity.

    Args:
        sources: Tensors of one dtype, [n] each, as `can_sum` says.
        coefficients: One for each, in the order in which they are added.
        out: float32, bfloat16 or float16, [n].
        flag: int32, [1]; what is 1 stays 1.
    """
    count = out.numel()
    if count == 0:
        return
    device = out.device
    addresses = torch.tensor([source.data_ptr() for source in sources], dtype=torch.int64)
    factors = torch.tensor(coefficients, dtype=torch.float32)
    _sum_kernel[(triton.cdiv(count, _BLOCK),)](
        addresses.to(device),
        factors.to(device),
        out,
        flag,
        count,
        TERMS=len(sources),
        TYPE=_TYPES[sources[0].dtype],
        BLOCK=_BLOCK,
    )
