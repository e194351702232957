"""Bytes a second of a blend of held checkpoints, against a plain memory copy of the same bytes.

    python benchmarks/blend_bandwidth.py

A blend of n checkpoints reads n tensors and writes one; the copy reads and writes as many bytes in
all. Both write into memory that is there already. The aim is 50 % or more.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from ztom.blending.apply import TermSum
from ztom.blending.plan import DenseTerm, TensorPlan
from ztom.checkpoints.tensors import TensorSpec

ELEMENTS = 24_000_000
MEMBERS = 5
REPEATS = 9


def best(call: Callable[[], object]) -> float:
    """Seconds of the fastest of several calls."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def blend_into(out: torch.Tensor, sources: list[torch.Tensor], plan: TensorPlan) -> None:
    """The kernel as `ztom.blending.apply.blend_tensor` runs it, into memory that is there."""
    terms = TermSum(plan, lambda member, spec, start, end: sources[member][start:end])
    step = terms.slice_size(out.device)
    work = torch.empty(step)
    for start in range(0, out.numel(), step):
        part = out[start : start + step]
        exact = part if out.dtype == torch.float32 else work[: part.numel()]
        terms.into(exact, start)
        if exact is not part:
            part.copy_(exact)


def main() -> None:
    """Print one line per dtype."""
    for dtype in (torch.float32, torch.bfloat16):
        sources = [torch.randn(ELEMENTS).to(dtype) for _ in range(MEMBERS)]
        nbytes = ELEMENTS * dtype.itemsize
        specs = [TensorSpec(str(i), dtype, (ELEMENTS,), "", 0, nbytes) for i in range(MEMBERS)]
        dense = tuple(DenseTerm(i, spec, 0.1 + i) for i, spec in enumerate(specs))
        plan = TensorPlan("tensor", (ELEMENTS,), dtype, dense)
        out = torch.zeros(ELEMENTS, dtype=dtype)
        moved = (MEMBERS + 1) * nbytes
        source = torch.ones(moved // 2, dtype=torch.uint8)
        target = torch.zeros_like(source)
        copy_s = best(lambda target=target, source=source: target.copy_(source))
        blend_s = best(lambda out=out, sources=sources, plan=plan: blend_into(out, sources, plan))
        print(
            f"{str(dtype).removeprefix('torch.')}: blend of {MEMBERS} checkpoints "
            f"{moved / blend_s / 1e9:.1f} GB/s, memory copy {moved / copy_s / 1e9:.1f} GB/s, "
            f"ratio {copy_s / blend_s:.2f}"
        )


if __name__ == "__main__":
    main()
