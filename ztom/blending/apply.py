"""Carry out a plan: read pristine tensors, add up in float32, cast once, check that it is finite.

Tensors are worked on in slices, so that a tensor of any size needs memory for its result and a few
slices only, whether its sources are held in memory or streamed from files. Nothing is ever added to
what is already blended: every blend starts from the checkpoints.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from types import ModuleType

import torch

from ztom.blending.chain import Chain
from ztom.blending.plan import DenseTerm, LowRankTerm, TensorPlan
from ztom.checkpoints.tensors import TensorSpec, check_finite, read_slice
from ztom.errors import BlendError, ChainError, TensorFileError

#: Reads elements [start, end) of a pristine tensor, flat: ``(member, spec, start, end) -> tensor``.
Reader = Callable[[int, TensorSpec, int, int], torch.Tensor]
#: Told of each slice: ``(tensor, start, blended in float32 [n], blended as deployed [n])``.
Observer = Callable[[TensorPlan, int, torch.Tensor, torch.Tensor], None]

#: Elements of a slice. On a CPU a slice and its sources should stay in the last-level cache.
SLICE = {"cpu": 2**19, "cuda": 2**26}


@functools.cache
def fused_kernel(device: torch.device) -> ModuleType | None:
    """`ztom.blending.fused` where it can run: on CUDA, with Triton; otherwise None."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return None
    return importlib.import_module("ztom.blending.fused")


def file_reader(chain: Chain) -> Reader:
    """Reads from the checkpoints' own files."""

    def read(member: int, spec: TensorSpec, start: int, end: int) -> torch.Tensor:
        return read_slice(chain.members[member].source, spec, start, end)

    return read


def blend_tensor(
    plan: TensorPlan,
    read: Reader,
    *,
    observe: Observer | None = None,
    device: torch.device | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """One blended tensor, shape and dtype as planned.

    A sum of one term with coefficient 1 is returned as read: bit for bit.

    Args:
        plan: Plan of the tensor: terms and coefficients to add up.
        read: Function that reads the pristine tensors.
        observe: Callback with the plan, the start of each slice, and its values in float32 and as
            cast.
        device: Device of the result; the CPU when None.
        out: Memory of the result, flat, of its size, dtype and device; new memory when None.

    Raises:
        BlendError: A blended value is NaN or infinite at the deployed dtype.
        ChainError: A value of a checkpoint is; names checkpoint and tensor.
    """
    device = device or torch.device("cpu")
    count = plan.count
    if plan.is_copy:
        copy = _copied(plan, read, observe)
        return copy if out is None else out.copy_(copy.reshape(-1)).reshape(plan.shape)
    term_sum = TermSum(plan, read)
    if out is None:
        out = torch.empty(count, dtype=plan.dtype, device=device)
    total = torch.zeros((), dtype=torch.float64, device=device)
    step = term_sum.slice_size(device)
    work = torch.empty(0 if plan.dtype == torch.float32 else min(step, count), device=device)
    fused = None if observe is not None or not term_sum.is_plain else fused_kernel(device)
    flag = torch.zeros(1, dtype=torch.int32, device=device)
    for start in range(0, count, step):
        part = out[start : start + step]
        if fused is not None and term_sum.fused_into(part, start, fused, flag):
            continue
        # float32 results are accumulated where they end up, others in a scratch slice
        exact = part if plan.dtype == torch.float32 else work[: part.numel()]
        term_sum.into(exact, start)
        if exact is not part:
            part.copy_(exact)
        total += part.sum(dtype=torch.float32)
        if observe is not None:
            observe(plan, start, exact, part)
    # A NaN or infinity anywhere makes the sum so; a sum can also overflow on its own, so look
    # again.
    if bool(flag) or (not torch.isfinite(total) and not bool(torch.isfinite(out).all())):
        refuse_sources(plan, read)
        raise BlendError(
            f"{plan.name}: the blend is not finite in {plan.dtype}",
            got=f"{int((~torch.isfinite(out)).sum())} of {count} values are NaN or infinite",
            fix="Use smaller factors, or deploy in float32 or bfloat16.",
        )
    return out.reshape(plan.shape)


def _copied(plan: TensorPlan, read: Reader, observe: Observer | None) -> torch.Tensor:
    """A pristine tensor as it is stored, whatever its dtype; what is observed is checked too."""
    term = plan.dense[0]
    out = read(term.member, term.spec, 0, plan.count)
    if observe is None or not plan.dtype.is_floating_point:
        return out.reshape(plan.shape)
    for start in range(0, plan.count, SLICE["cpu"]):
        part = out[start : start + SLICE["cpu"]]
        exact = part.to(torch.float32)
        if not torch.isfinite(exact.sum()):
            refuse_sources(plan, read)
        observe(plan, start, exact, part)
    return out.reshape(plan.shape)


def refuse_not_finite(tensor: torch.Tensor, name: str, reference: str) -> None:
    """Refuse a pristine tensor that holds NaN or infinity.

    Args:
        tensor: The tensor, or a part of it.
        name: Name of the tensor.
        reference: Reference of its checkpoint.

    Raises:
        ChainError: Names both, and the first such value.
    """
    try:
        check_finite(tensor, name)
    except TensorFileError as error:
        raise ChainError(
            f"{reference} cannot be blended, {error.what}",
            got=error.got,
            expected=error.expected,
            fix="Leave this checkpoint out, or save it again from a healthy run.",
        ) from error


def refuse_sources(plan: TensorPlan, read: Reader) -> None:
    """Name the checkpoint and the tensor where what is blended holds NaN or infinity itself.

    Raises:
        ChainError: One of them does.
    """
    terms = [(t.member, t.spec, t.reference) for t in plan.dense]
    for low_rank in plan.low_rank:
        pair = (low_rank.factors.a, low_rank.factors.b)
        terms += [(low_rank.member, spec, low_rank.reference) for spec in pair]
    for member, spec, reference in terms:
        refuse_not_finite(read(member, spec, 0, spec.count), spec.name, reference)


class TermSum:
    """Adds up the terms of one tensor, any slice of it, in float32."""

    def __init__(self, plan: TensorPlan, read: Reader) -> None:
        self._plan = plan
        self._read = read
        self._ranges = _ranges(plan)
        self._rows = 1
        self._factors: tuple[torch.Tensor, torch.Tensor] | None = None
        if plan.low_rank:
            self._rows = plan.shape[0]
            a, b = concatenate(plan.low_rank, read)
            # [rows, rank] @ [rank, columns] in the layout the base stores the weight in
            left, right = (a.T, b.T) if plan.low_rank[0].factors.transposed else (b, a)
            rows, columns = plan.low_rank[0].rows, plan.low_rank[0].columns
            if rows is not None and columns is not None:
                left, right = left[slice(*rows)], right[:, slice(*columns)]
            self._factors = (left, right)

    def slice_size(self, device: torch.device) -> int:
        """Elements to work on at a time: whole rows where low-rank terms are added, for speed."""
        size = SLICE["cpu" if device.type == "cpu" else "cuda"]
        if self._factors is None:
            return size
        columns = self._plan.count // self._rows
        return max(1, size // columns) * columns

    def into(self, out: torch.Tensor, start: int) -> None:
        """Write elements [start, start + len(out)) of the sum into ``out``, float32 [n]."""
        end = start + out.numel()
        for (first, last), terms in self._ranges.items():
            low, high = max(start, first), min(end, last)
            if low < high:
                self._add(terms, out[low - start : high - start], low)
        if not self._plan.dense:
            out.zero_()
        if self._factors is not None:
            columns = self._plan.count // self._rows
            left, right = self._factors
            first, last = start // columns, -(-end // columns)
            rows = (left[first:last] @ right).reshape(-1)
            out.add_(rows[start - first * columns : end - first * columns])

    @property
    def is_plain(self) -> bool:
        """Whether every element is the sum of the same full weights."""
        return self._factors is None and list(self._ranges) == [(0, self._plan.count)]

    def fused_into(
        self, out: torch.Tensor, start: int, fused: ModuleType, flag: torch.Tensor
    ) -> bool:
        """Write elements of the sum into ``out`` as deployed, in one pass; False where it cannot.

        Args:
            out: Memory of the elements, as deployed, [n].
            start: The first of them.
            fused: `ztom.blending.fused`.
            flag: Becomes 1 where one of them is NaN or infinite, int32 [1].
        """
        end = start + out.numel()
        sources = [self._read(t.member, t.spec, start, end) for t in self._plan.dense]
        if not fused.can_sum(sources, out):
            return False
        fused.weighted_sum(sources, [t.coefficient for t in self._plan.dense], out, flag)
        return True

    def _add(self, terms: Sequence[DenseTerm], out: torch.Tensor, start: int) -> None:
        """Write the sum of some terms, from element ``start`` on, into ``out``, float32 [n]."""
        end = start + out.numel()
        for position, term in enumerate(terms):
            source = self._read(term.member, term.spec, start, end)
            if position:
                out.add_(source, alpha=term.coefficient)
            elif source.dtype == torch.float32:
                torch.mul(source, term.coefficient, out=out)
            else:
                out.copy_(source).mul_(term.coefficient)


def _ranges(plan: TensorPlan) -> dict[tuple[int, int], list[DenseTerm]]:
    """Full weights to add up by the elements, first and one past the last, that they are of."""
    columns = plan.count // plan.shape[0] if plan.shape and plan.shape[0] else 0
    ranges: dict[tuple[int, int], list[DenseTerm]] = {}
    for term in plan.dense:
        place = (0, plan.count)
        if term.rows is not None:
            place = (term.rows[0] * columns, term.rows[1] * columns)
        ranges.setdefault(place, []).append(term)
    return ranges


def concatenate(terms: Sequence[LowRankTerm], read: Reader) -> tuple[torch.Tensor, torch.Tensor]:
    """One pair of factors that stands for a sum of adapters, exactly.

    ``sum_j c_j s_j B_j A_j = [c_1 s_1 B_1 | c_2 s_2 B_2 | ...] @ [A_1; A_2; ...]``: ranks add up,
    and the coefficient and the scale go into B.

    Returns:
        A, float32 [sum of ranks, in], and B, float32 [out, sum of ranks].
    """

    def whole(member: int, spec: TensorSpec) -> torch.Tensor:
        flat = read(member, spec, 0, spec.nbytes // spec.dtype.itemsize)
        return flat.reshape(spec.shape).to(torch.float32)

    a = [whole(t.member, t.factors.a) for t in terms]
    b = [whole(t.member, t.factors.b) * (t.coefficient * t.factors.scale) for t in terms]
    return torch.cat(a, dim=0), torch.cat(b, dim=1)
