"""A blend as a plan: for each tensor, what is added up, before anything is read.

A plan is small (names, shapes, coefficients), so it can be printed, digested and tested without
weights. Carrying it out is `ztom.blending.apply`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ztom.blending.chain import Chain
from ztom.blending.rows import rows_held
from ztom.checkpoints.derived import is_derived
from ztom.checkpoints.heads import tensor_of
from ztom.checkpoints.lora import LoraFactors
from ztom.checkpoints.tensors import TensorSpec
from ztom.errors import ChainError, ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class DenseTerm:
    """``coefficient * W`` of one member, or of some rows of it."""

    member: int
    spec: TensorSpec  # [shape of the tensor; rows that the blend lacks are not read]
    coefficient: float
    reference: str = ""  # of the member, for messages
    rows: tuple[int, int] | None = None  # first, and one past the last; None for all of the blend's


@dataclass(frozen=True, slots=True)
class LowRankTerm:
    """``coefficient * scale * B @ A`` of one adapter."""

    member: int
    factors: LoraFactors  # A [rank, in], B [out, rank]
    coefficient: float
    reference: str = ""  # of the member, for messages
    rows: tuple[int, int] | None = None  # of the change, first and one past the last; None for all
    columns: tuple[int, int] | None = None  # the same


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """One tensor of a blend: the sum of its terms, in float32, cast once to ``dtype``."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    dense: tuple[DenseTerm, ...]
    low_rank: tuple[LowRankTerm, ...] = ()

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the blended tensor."""
        return self.dtype.itemsize * self.count

    @property
    def is_copy(self) -> bool:
        """Whether the blend is one pristine tensor as it is stored."""
        return (
            not self.low_rank
            and len(self.dense) == 1
            and self.dense[0].coefficient == 1.0
            and self.dense[0].rows is None
            and self.dense[0].spec.dtype == self.dtype
        )


@dataclass(frozen=True, slots=True)
class BlendPlan:
    """A whole blend.

    Attributes:
        factors: Scaling factors, one per transition, or per transition and group.
        coefficients: Coefficients, one per member, or per member and group.
        tensors: Sorted by name.
    """

    factors: tuple[float, ...]
    coefficients: tuple[float, ...]
    tensors: tuple[TensorPlan, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all blended tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)


def parse_dtype(name: str) -> torch.dtype | None:
    """``auto`` (as stored) is None.

    Raises:
        ConfigError: Not a dtype that weights are deployed in.
    """
    if name == "auto":
        return None
    try:
        return DTYPES[name]
    except KeyError:
        raise ConfigError(
            "unknown dtype", got=name, expected=f"auto or {', '.join(DTYPES)}"
        ) from None


def plan_blend(
    chain: Chain, factors: Sequence[float], *, dtype: torch.dtype | None = None
) -> BlendPlan:
    """What has to be added up for these factors.

    Args:
        chain: Chain that was opened and checked.
        factors: One per transition, or per transition and group of the chain.
        dtype: Dtype that floating-point tensors are cast to; None keeps the dtype they are stored
            in.

    Raises:
        FactorError: Not one finite factor per transition, or per transition and group.
    """
    alpha = chain.check_factors(factors)
    coefficients = chain.coefficients(alpha)
    names = sorted(chain.members[chain.model].tensors)
    return BlendPlan(
        factors=alpha,
        coefficients=coefficients,
        tensors=tuple(
            _plan_tensor(chain, name, chain.step_factors(alpha, name), dtype) for name in names
        ),
    )


def _plan_tensor(
    chain: Chain, name: str, alpha: Sequence[float], dtype: torch.dtype | None
) -> TensorPlan:
    """The plan of one tensor, from its own factors, one per transition."""
    kept = chain.model
    spec = chain.members[kept].tensors[name]
    # equal over the chain, or a counter; or what the model computes itself
    if not spec.dtype.is_floating_point or is_derived(name, spec.shape):
        terms = [DenseTerm(kept, spec, 1.0, chain.members[kept].reference)]
        return TensorPlan(name, spec.shape, spec.dtype, tuple(terms))
    return TensorPlan(
        name,
        spec.shape,
        dtype or spec.dtype,
        _dense(chain, name, spec, alpha),
        _low_rank(chain, name, chain.step_coefficients(alpha)),
    )


def _low_rank(chain: Chain, name: str, coefficients: Sequence[float]) -> tuple[LowRankTerm, ...]:
    terms = []
    for i, (adapter, coefficient) in enumerate(zip(chain.adapters, coefficients, strict=True)):
        factors = None if adapter is None else adapter.factors.get(name)
        if factors is not None and coefficient != 0.0:
            terms.append(LowRankTerm(i, factors, coefficient, chain.members[i].reference))
    return tuple(terms)


def _dense(
    chain: Chain, name: str, kept: TensorSpec, alpha: Sequence[float]
) -> tuple[DenseTerm, ...]:
    """Terms of the whole tensor, or of each range of rows that the same members have."""
    held = rows_held(chain.members, name, kept)
    if held is None:
        return _terms(chain, name, chain.step_coefficients(alpha))
    ends = sorted({min(rows, kept.shape[0]) for rows in (*held, kept.shape[0])})
    ranges = []
    for start, end in zip((0, *ends), ends, strict=False):
        holders = [i for i, rows in enumerate(held) if rows >= end]
        terms = _terms(chain, name, chain.step_coefficients(alpha, holders=holders))
        ranges.append((start, end, terms))
    if all(terms == ranges[0][2] for _, _, terms in ranges):
        return ranges[0][2]
    return tuple(replace(t, rows=(start, end)) for start, end, terms in ranges for t in terms)


def _terms(chain: Chain, name: str, coefficients: Sequence[float]) -> tuple[DenseTerm, ...]:
    """What full weights contribute; an adapter stands for the base and its factors."""
    dense = [0.0] * len(chain.members)
    for i, coefficient in enumerate(coefficients):
        dense[i if chain.adapters[i] is None else 0] += coefficient
    if chain.is_adapter_chain:
        dense[0] = 1.0  # they sum to 1; say so exactly, whatever the rounding of the sum
    return tuple(
        DenseTerm(i, _spec(chain, i, name), c, chain.members[i].reference)
        for i, c in enumerate(dense)
        if c != 0.0
    )


def _spec(chain: Chain, member: int, name: str) -> TensorSpec:
    spec = tensor_of(chain.members[member], name)
    if spec is None:
        raise ChainError(f"{chain.members[member].reference} has no {name}")
    return spec
