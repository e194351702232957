"""A weighted sum of bfloat16 tensors in float32, in one pass over the memory of a CPU.

PyTorch widens and adds one source after the other, each time over the whole accumulator: about a
quarter of the speed of the memory. Here a small block of the accumulator stays in the first-level
cache while every source is added to it. The kernel is compiled by Numba at its first use and kept
beside this file; importing this module imports Numba, so it is imported where it is used. It
multiplies the first source and then fuses each multiplication with its addition, in the order of
the sources, as PyTorch's own loop does: the results are equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

#: Elements of the accumulator that are finished before the next ones: 32 KiB.
_BLOCK = 8192


def weighted_sum(
    out: torch.Tensor, sources: Sequence[torch.Tensor], coefficients: Sequence[float]
) -> None:
    """Write ``sum_i coefficients[i] * sources[i]`` to ``out``.

    Args:
        out: float32 [n], on the CPU, contiguous.
        sources: bfloat16 [n] each, at least one, on the CPU, contiguous.
        coefficients: One per source.
    """
    bits = tuple(source.view(torch.uint16).numpy() for source in sources)
    scales = np.array(coefficients, dtype=np.float32)
    total = out.numpy()
    parts = torch.get_num_threads()
    edges = [len(total) * i // parts for i in range(parts + 1)]
    calls = [
        _threads(parts).submit(_sum, total[a:b], tuple(each[a:b] for each in bits), scales)
        for a, b in zip(edges, edges[1:], strict=False)
    ]
    for call in calls:
        call.result()


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="weighted-sum")


@intrinsic  # type: ignore[untyped-decorator]
def _as_float32(_context: Any, _bits: Any) -> Any:
    """The float32 with these bits, uint32."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.bitcast(values[0], ir.FloatType())

    return types.float32(types.uint32), generate


# Without any other liberty of fast-math: only a multiplication and its addition are fused.
_compiled = njit(nogil=True, cache=True, fastmath={"contract"})


@_compiled  # type: ignore[untyped-decorator]
def _scale(out: Any, source: Any, coefficient: Any) -> None:
    for i in range(source.shape[0]):
        out[i] = _as_float32(np.uint32(source[i]) << np.uint32(16)) * coefficient


@_compiled  # type: ignore[untyped-decorator]
def _add(out: Any, source: Any, coefficient: Any) -> None:
    for i in range(source.shape[0]):
        out[i] += _as_float32(np.uint32(source[i]) << np.uint32(16)) * coefficient


@_compiled  # type: ignore[untyped-decorator]
def _sum(out: Any, sources: Any, coefficients: Any) -> None:
    for start in range(0, out.shape[0], _BLOCK):
        end = min(start + _BLOCK, out.shape[0])
        block = out[start:end]
        _scale(block, sources[0][start:end], coefficients[0])
        for j in range(1, len(sources)):
            _add(block, sources[j][start:end], coefficients[j])
