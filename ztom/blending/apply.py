"""Carry out a plan: read pristine tensors, add up in float32, cast once, check that it is finite.

The kernel works on slices that stay in the processor's cache, so a blend moves each byte once and runs
near the speed of a memory copy (`benchmarks/blend_bandwidth.py`). It never adds to what is already
blended: every blend starts from the checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from ztom.blending.chain import Chain
from ztom.blending.plan import BlendPlan, LowRankTerm, TensorPlan
from ztom.checkpoints.lora import LoraFactors
from ztom.checkpoints.tensors import TensorSpec
from ztom.errors import BlendError

#: Reads one pristine tensor of a member: ``(member, spec) -> tensor``.
Reader = Callable[[int, TensorSpec], torch.Tensor]

_SLICE = {"cpu": 2**16, "cuda": 2**26}  # elements; a few slices fit in a core's cache


def file_reader(chain: Chain) -> Reader:
    """Reads from the checkpoints' own files."""
    return lambda member, spec: chain.members[member].read(spec.name)


def apply_plan(plan: BlendPlan, read: Reader) -> Iterator[tuple[str, torch.Tensor]]:
    """The blended tensors, one at a time, in the plan's order.

    Raises:
        BlendError: A blended value is NaN or infinite at the deployed dtype.
    """
    for tensor in plan.tensors:
        yield tensor.name, blend_tensor(tensor, read)


def blend_tensor(plan: TensorPlan, read: Reader) -> torch.Tensor:
    """One blended tensor, shape and dtype as planned.

    A sum of one term with coefficient 1 is returned as read: bit for bit.

    Raises:
        BlendError: A blended value is NaN or infinite at the deployed dtype.
    """
    sources = [read(term.member, term.spec) for term in plan.dense]
    coefficients = [term.coefficient for term in plan.dense]
    if plan.low_rank:
        update = low_rank_update(plan.low_rank, read).reshape(plan.shape)
        sources, coefficients = [*sources, update], [*coefficients, 1.0]
    if coefficients == [1.0] and sources[0].dtype == plan.dtype:
        return sources[0]
    return combine(sources, coefficients, dtype=plan.dtype, name=plan.name)


def combine(
    sources: Sequence[torch.Tensor],
    coefficients: Sequence[float],
    *,
    dtype: torch.dtype,
    name: str = "tensor",
) -> torch.Tensor:
    """``sum_j coefficients[j] * sources[j]``, accumulated in float32 and cast once.

    Args:
        sources: Same shape, any floating dtype, contiguous.
        coefficients: One per source.
        dtype: Of the result.
        name: For the error message.

    Raises:
        BlendError: A value of the result is NaN or infinite.
    """
    for source in sources:
        if source.shape != sources[0].shape:
            raise BlendError(
                f"{name}: terms of a blend have different shapes",
                got=list(source.shape),
                expected=list(sources[0].shape),
            )
    device = sources[0].device
    flat = [source.reshape(-1) for source in sources]
    out = torch.empty(flat[0].numel(), dtype=dtype, device=device)
    step = _SLICE["cpu" if device.type == "cpu" else "cuda"]
    work = torch.empty(min(step, out.numel()), dtype=torch.float32, device=device)
    total = torch.zeros((), dtype=torch.float32, device=device)
    for start in range(0, out.numel(), step):
        end = min(start + step, out.numel())
        # float32 results are accumulated where they end up; others in a scratch slice
        part = out[start:end] if dtype == torch.float32 else work[: end - start]
        torch.mul(flat[0][start:end].to(torch.float32), coefficients[0], out=part)
        for source, coefficient in zip(flat[1:], coefficients[1:], strict=True):
            part.add_(source[start:end], alpha=coefficient)
        if dtype != torch.float32:
            out[start:end].copy_(part)
        total += out[start:end].sum(dtype=torch.float32)
    # A NaN or infinity anywhere makes the sum so; a sum can also overflow on its own, so look again.
    if not torch.isfinite(total) and not bool(torch.isfinite(out).all()):
        raise BlendError(
            f"{name}: the blend is not finite in {dtype}",
            got=f"{int((~torch.isfinite(out)).sum())} of {out.numel()} values are NaN or infinite",
            fix="Use smaller factors, or deploy in float32 or bfloat16.",
        )
    return out.reshape(sources[0].shape)


def low_rank_update(terms: Sequence[LowRankTerm], read: Reader) -> torch.Tensor:
    """``sum_j c_j * s_j * B_j @ A_j`` in float32, as one product of the concatenated factors.

    Returns:
        float32, [out, in], or [in, out] where the base stores the weight transposed.
    """
    a, b = concatenate(terms, read)
    product = b @ a
    return product.T.contiguous() if terms[0].factors.transposed else product


def concatenate(
    terms: Sequence[LowRankTerm], read: Reader
) -> tuple[torch.Tensor, torch.Tensor]:
    """One pair of factors that stands for a sum of adapters, exactly.

    ``sum_j c_j s_j B_j A_j = [c_1 s_1 B_1 | c_2 s_2 B_2 | ...] @ [A_1; A_2; ...]``: ranks add up, and
    the coefficient and the scale go into B.

    Returns:
        A, float32 [sum of ranks, in], and B, float32 [out, sum of ranks].
    """
    a = [read(t.member, t.factors.a).to(torch.float32) for t in terms]
    b = [
        read(t.member, t.factors.b).to(torch.float32) * (t.coefficient * t.factors.scale)
        for t in terms
    ]
    return torch.cat(a, dim=0), torch.cat(b, dim=1)


__all__ = [
    "LoraFactors",
    "Reader",
    "apply_plan",
    "blend_tensor",
    "combine",
    "concatenate",
    "file_reader",
    "low_rank_update",
]
