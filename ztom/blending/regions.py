"""Parts of a tensor: boxes of it, as a rank of a split model takes them, and their blends.

A box is found from a view's shape, strides and offset, so nothing has to be known of how a model
splits its layers: rows of a column-parallel weight, columns of a row-parallel one, a range of the
vocabulary, one expert of many. Its elements lie in runs of equal length at equal distances.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ztom.blending.plan import DenseTerm, LowRankTerm, TensorPlan

Dimension = tuple[int, int]  # size and stride


@dataclass(frozen=True, slots=True)
class Region:
    """A box of a tensor that lies contiguously, flat.

    Attributes:
        start: First element.
        run: Number of elements of a run.
        step: Distance from the start of a run to that of the next, in elements.
        runs: Number of runs.
    """

    start: int
    run: int
    step: int
    runs: int = 1

    @property
    def count(self) -> int:
        """Number of elements."""
        return self.run * self.runs

    @property
    def end(self) -> int:
        """One past the last element, in the tensor."""
        return self.start + (self.runs - 1) * self.step + self.run


@dataclass(frozen=True, slots=True)
class Box:
    """A region, and how a view of the tensor lies in it.

    Attributes:
        region: What of the tensor the view shows.
        strides: Strides of the view over the region's elements, which lie without gaps.
    """

    region: Region
    strides: tuple[int, ...]


def find_box(shape: Sequence[int], view: torch.Tensor) -> Box | None:
    """What of a contiguous tensor a view shows; None where it is no box, or not one of runs.

    Args:
        shape: Shape of the whole tensor.
        view: A view of it; only shape, strides and offset are looked at.
    """
    whole = _contiguous(shape)
    if view.numel() == 0 or any(n > 1 and s == 0 for n, s in _dimensions(view)):
        return None
    first = int(view.storage_offset())
    last = first + sum((n - 1) * s for n, s in _dimensions(view))
    low, high = _coordinates(first, whole), _coordinates(last, whole)
    sizes = [b - a + 1 for a, b in zip(low, high, strict=True)]
    if min(sizes, default=1) < 1:
        return None
    box = [(n, stride) for n, (_, stride) in zip(sizes, whole, strict=True)]
    if _joined(box) != _joined(sorted(_dimensions(view), key=lambda d: -d[1])):
        return None
    region = _region(first, _joined(box), math.prod(shape))
    if region is None:
        return None
    inside = _contiguous(sizes)
    return Box(region, tuple(_stride_inside(s, whole, inside) for _, s in _dimensions(view)))


def plan_region(plan: TensorPlan, region: Region) -> TensorPlan | None:
    """The plan of a part of a tensor, flat; None where it cannot be planned on its own.

    Its terms name the whole tensors: they are read through a reader that knows the region.
    """
    columns = plan.count // plan.shape[0] if plan.shape and plan.shape[0] else 1
    if region.runs > 1 and any(term.rows is not None for term in plan.dense):
        return None
    dense = tuple(
        part for term in plan.dense if (part := _dense_part(term, region, columns)) is not None
    )
    changes = [_low_rank_part(term, region, plan.shape) for term in plan.low_rank]
    low_rank = tuple(change for change in changes if change is not None)
    if len(low_rank) < len(changes):
        return None
    shape = (region.runs, region.run)
    if region.runs == 1 and plan.low_rank:
        shape = (region.run // columns, columns)
    elif region.runs == 1:
        shape = (region.run, 1)
    return replace(plan, shape=shape, dense=dense, low_rank=low_rank)


def _dense_part(term: DenseTerm, region: Region, columns: int) -> DenseTerm | None:
    if term.rows is None:
        return term
    first = max(term.rows[0] * columns, region.start) - region.start
    last = min(term.rows[1] * columns, region.end) - region.start
    return replace(term, rows=(first, last)) if first < last else None


def _low_rank_part(term: LowRankTerm, region: Region, shape: tuple[int, ...]) -> LowRankTerm | None:
    """The rows and columns of the region; None where it is not made of whole ones."""
    if len(shape) != 2:
        return None
    width = shape[1]
    row, column = divmod(region.start, width)
    if region.runs == 1:
        if column or region.run % width:
            return None
        return replace(term, rows=(row, row + region.run // width), columns=(0, width))
    if region.step != width:
        return None
    return replace(term, rows=(row, row + region.runs), columns=(column, column + region.run))


def _region(first: int, box: list[Dimension], count: int) -> Region | None:
    """A joined box as runs; None where it would need runs of runs."""
    if not box:
        return Region(first, 1, 1)
    if len(box) > 2 or (len(box) == 2 and box[1][1] != 1):
        return None
    if len(box) == 1:
        size, stride = box[0]
        return Region(first, size, size) if stride == 1 else Region(first, 1, stride, size)
    (runs, step), (run, _) = box
    return Region(first, run, step, runs)


def _dimensions(view: torch.Tensor) -> list[Dimension]:
    return [(int(n), int(s)) for n, s in zip(view.shape, view.stride(), strict=True)]


def _contiguous(sizes: Sequence[int]) -> list[Dimension]:
    """Sizes and strides of a tensor without gaps."""
    strides = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
    return list(zip(sizes, strides, strict=True))


def _joined(dimensions: Sequence[Dimension]) -> list[Dimension]:
    """Outermost first, those that follow each other without a gap as one, those of size 1 none."""
    joined: list[Dimension] = []
    for size, stride in dimensions:
        if size == 1:
            continue
        if joined and joined[-1][1] == size * stride:
            joined[-1] = (joined[-1][0] * size, stride)
        else:
            joined.append((size, stride))
    return joined


def _coordinates(flat: int, whole: Sequence[Dimension]) -> list[int]:
    coordinates = []
    for _, stride in whole:
        index, flat = divmod(flat, stride) if stride else (0, flat)
        coordinates.append(index)
    return coordinates


def _stride_inside(stride: int, whole: Sequence[Dimension], inside: Sequence[Dimension]) -> int:
    """What a stride over the whole tensor is over the box."""
    for (_, outer), (_, inner) in zip(whole, inside, strict=True):
        if outer and outer <= stride:
            return stride // outer * inner
    return 0
