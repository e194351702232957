"""Steps of a chain that say nothing of their own: members with the same weights.

Files with the same digest are the same; others are compared, first the beginning of each tensor and
only where these agree the whole, so that different checkpoints cost a few reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from ztom.blending.apply import Reader, TermSum, file_reader
from ztom.blending.chain import Chain
from ztom.blending.changes import member_plan, slice_pairs
from ztom.blending.plan import TensorPlan

#: Elements at the beginning of each tensor that are compared first.
_HEAD = 1024


def equal_members(chain: Chain) -> tuple[int, ...]:
    """For each member, the position of the first one with the same weights: its own where none is.

    Raises:
        CheckpointError: A tensor cannot be read.
    """
    first: list[int] = []
    for position in range(len(chain.members)):
        before = dict.fromkeys(first)
        first.append(next((i for i in before if _are_equal(chain, i, position)), position))
    return tuple(first)


def step_warnings(chain: Chain, same: Sequence[int]) -> tuple[str, ...]:
    """What is wrong with the steps of a chain, a sentence each.

    Args:
        chain: Chain that was opened and checked.
        same: What `equal_members` gives.
    """
    warnings, seen = [], dict[tuple[int, int], str]()
    for step, name in enumerate(chain.names, start=1):
        before = same[step - 1] if chain.topology == "sequence" else same[0]
        ends = (before, same[step])
        if ends[0] == ends[1]:
            warnings.append(
                f"step {name} changes nothing: both checkpoints have the same weights, so its "
                "factor has no effect"
            )
        elif ends in seen:
            warnings.append(
                f"step {name} is the same as {seen[ends]}: only the sum of their factors has an "
                "effect"
            )
        elif ends[::-1] in seen:
            warnings.append(
                f"step {name} undoes {seen[ends[::-1]]}: only the difference of their factors has "
                "an effect"
            )
        seen.setdefault(ends, name)
    return tuple(warnings)


def _are_equal(chain: Chain, first: int, second: int) -> bool:
    if chain.members[first].digest == chain.members[second].digest:
        return True
    if not all(torch.equal(a, b) for a, b in _heads(chain, first, second)):
        return False
    return all(torch.equal(a, b) for _, _, a, b in slice_pairs(chain, first, second))


def _heads(chain: Chain, first: int, second: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The beginning of each floating-point tensor of both members, float32 [n]."""
    read = file_reader(chain)
    for one, other in zip(member_plan(chain, first), member_plan(chain, second), strict=True):
        if one.dtype.is_floating_point:
            yield _head(one, read), _head(other, read)


def _head(tensor: TensorPlan, read: Reader) -> torch.Tensor:
    values = torch.empty(min(_HEAD, tensor.count))
    TermSum(tensor, read).into(values, 0)
    return values
