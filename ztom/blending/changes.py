"""How far one member of a chain is from another, streamed slice by slice.

Two figures that users of checkpoint histories know: the *weight score* is the mean of
``|W_new - W_old|`` over every element of every floating-point tensor whose name does not end in
``bias``, the *bias score* the same over those whose name does. They are in the units of the weights
themselves; where there is no tensor of a kind its score is 0. For adapters, W is the base with the
adapter merged in. Tensor by tensor it is `ztom.blending.tensor_differences`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch

from ztom.blending.apply import TermSum, file_reader
from ztom.blending.chain import Chain
from ztom.blending.plan import TensorPlan, plan_blend
from ztom.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class ChangeScores:
    """Mean absolute change of weights and of biases; 0 where there are none of the kind."""

    weights: float
    biases: float


def slice_pairs(
    chain: Chain, old: int, new: int, names: Collection[str] | None = None
) -> Iterator[tuple[TensorPlan, int, torch.Tensor, torch.Tensor]]:
    """Two members side by side.

    Args:
        chain: Chain that was opened and checked.
        old: Position of the member to compare with, from 0.
        new: Position of the member that is looked at, from 0.
        names: Tensors to look at; None for all.

    Yields:
        The tensor, where the slice starts in it (elements), and the slice of both members as
        float32 [n]. Tensors that are not floating-point are left out.
    """
    read = file_reader(chain)
    for before, after in zip(member_plan(chain, old), member_plan(chain, new), strict=True):
        if not before.dtype.is_floating_point or (names is not None and before.name not in names):
            continue
        olds, news = TermSum(before, read), TermSum(after, read)
        size = min(olds.slice_size(torch.device("cpu")), news.slice_size(torch.device("cpu")))
        for start in range(0, before.count, size):
            count = min(size, before.count - start)
            a, b = torch.empty(count), torch.empty(count)
            olds.into(a, start)
            news.into(b, start)
            yield before, start, a, b


def change_scores(chain: Chain, old: int, new: int) -> ChangeScores:
    """How far member ``new`` is from member ``old``.

    Raises:
        CheckpointError: A value of ``new`` is NaN or infinite; names checkpoint and tensor.
    """
    sums = {False: [0.0, 0], True: [0.0, 0]}
    for tensor, _, a, b in slice_pairs(chain, old, new):
        require_finite(chain, new, tensor.name, b)
        kind = sums[is_bias(tensor.name)]
        kind[0] += float((b - a).abs_().sum(dtype=torch.float64))
        kind[1] += b.numel()
    mean = {kind: total / count if count else 0.0 for kind, (total, count) in sums.items()}
    return ChangeScores(weights=mean[False], biases=mean[True])


def check_finite(chain: Chain, member: int) -> None:
    """Read one member whole.

    Raises:
        CheckpointError: A value is NaN or infinite; names checkpoint and tensor.
    """
    read = file_reader(chain)
    for tensor in member_plan(chain, member):
        if not tensor.dtype.is_floating_point:
            continue
        values = TermSum(tensor, read)
        size = values.slice_size(torch.device("cpu"))
        for start in range(0, tensor.count, size):
            part = torch.empty(min(size, tensor.count - start))
            values.into(part, start)
            require_finite(chain, member, tensor.name, part)


def is_bias(name: str) -> bool:
    """Whether a tensor counts as a bias."""
    return name == "bias" or name.endswith((".bias", "_bias"))


def member_plan(chain: Chain, member: int) -> tuple[TensorPlan, ...]:
    """A plan that gives back one member: removing every later step, or taking one sibling."""
    alone = [0.0] * len(chain.members)
    alone[member] = 1.0
    return plan_blend(chain, chain.expand(factors_for(chain, alone))).tensors


def factors_for(chain: Chain, coefficients: list[float]) -> list[float]:
    """The factor of each step that gives these coefficients, one per member."""
    wanted = list(coefficients)
    wanted[chain.latest] -= 1.0
    if chain.topology == "siblings":
        return wanted[1:]
    factors, carried = [], 0.0
    for value in reversed(wanted[1:]):  # c_j = alpha_j - alpha_(j+1)
        carried += value
        factors.append(carried)
    return factors[::-1]


def require_finite(chain: Chain, member: int, name: str, values: torch.Tensor) -> None:
    """Refuse a tensor of a member with a value that is NaN or infinite.

    Raises:
        CheckpointError: It has one; names checkpoint and tensor.
    """
    if math.isfinite(float(values.sum(dtype=torch.float64))):
        return
    if not bool(torch.isfinite(values).all()):
        raise CheckpointError(
            f"{chain.tags[member] or chain.members[member].reference}: {name} holds values that "
            "are NaN or infinite",
            fix="The training went wrong, or the file was damaged: upload another one.",
        )
