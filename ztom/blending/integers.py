"""Integers of a chain: they cannot be blended, so all members have to hold the same ones.

Integers beside floating-point weights are codes or tables whose meaning the weights share. Blending
floats over codes that differ yields the weights of no model, and no error. Known counters and
indices are no weights: the latest's are taken. Packed weights of methods that are known by name,
and floats of eight bits, are refused when a checkpoint is opened (`ztom.checkpoints.quantised`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ztom.checkpoints.checkpoint import Checkpoint
from ztom.checkpoints.derived import is_derived
from ztom.checkpoints.tensors import TensorSpec, read_slice
from ztom.errors import IncompatibleChainError

#: Last parts of the names of integers that say how a model was trained.
COUNTERS = frozenset({"num_batches_tracked"})
#: Bytes of one member that are compared at a time.
SLICE_BYTES = 16 * 2**20

_FIX = "Blend the weights that they were quantised from."


def check_integers(members: Sequence[Checkpoint]) -> None:
    """Compare every integer tensor of the full members of a chain, bit for bit.

    Streams the integers once, and nothing else: a checkpoint in floating point has none and costs
    no read; of packed ones all codes are read, about as much as copying them.

    Args:
        members: Base first, their tensors alike in name and shape; adapters are passed over.

    Raises:
        IncompatibleChainError: Names the tensor and the two checkpoints that differ.
    """
    full = [member for member in members if member.kind == "full"]
    base = full[0]
    for name in base.tensors:
        holders = [member for member in full if name in member.tensors]
        specs = [member.tensors[name] for member in holders]
        blended = all(spec.dtype.is_floating_point for spec in specs)
        counts = name.rpartition(".")[2] in COUNTERS or is_derived(name, specs[0].shape)
        if not blended and not counts:
            _check_dtypes(name, holders)
            _check_equal(name, holders)


def _check_dtypes(name: str, holders: Sequence[Checkpoint]) -> None:
    base = holders[0]
    for member in holders[1:]:
        ours, theirs = base.tensors[name].dtype, member.tensors[name].dtype
        if ours != theirs:
            raise IncompatibleChainError(
                f"{name} is stored differently in {base.reference} and {member.reference}",
                got=f"{ours} / {theirs}",
                expected="integers cannot be cast: one dtype over the chain",
                fix=_FIX,
            )


def _check_equal(name: str, holders: Sequence[Checkpoint]) -> None:
    """Compare slice by slice; every member is read once, up to the first difference."""
    base = holders[0]
    spec = base.tensors[name]
    count = math.prod(spec.shape)
    step = max(1, SLICE_BYTES // spec.dtype.itemsize)
    for start in range(0, count, step):
        end = min(start + step, count)
        ours = _read(base, spec, start, end)
        for member in holders[1:]:
            theirs = _read(member, member.tensors[name], start, end)
            if torch.equal(ours, theirs):
                continue
            index = int((ours != theirs).nonzero()[0, 0])
            raise IncompatibleChainError(
                f"{name} holds integers that differ between {base.reference} and "
                f"{member.reference}: they cannot be blended, and scales beside them only over "
                "equal ones",
                got=f"{ours[index].item()} / {theirs[index].item()} at flat index {start + index}",
                expected="equal integers over the chain",
                fix=_FIX,
            )


def _read(member: Checkpoint, spec: TensorSpec, start: int, end: int) -> torch.Tensor:
    return read_slice(member.source, spec, start, end)
