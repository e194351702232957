"""Two members of a chain, tensor by tensor: signed differences, scores and histograms.

A difference is the chosen member's value minus the other's. The score of a tensor is the mean of
its absolute differences; the score of several is the mean over all of their elements, so a tensor
counts by its size: ``sum(n_t * score_t) / sum(n_t)``. Tensors are streamed slice by slice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch

from ztom.blending.chain import Chain
from ztom.blending.changes import is_bias, member_plan, require_finite, slice_pairs
from ztom.errors import ConfigError

_BINS = 50


@dataclass(frozen=True, slots=True)
class DifferenceHistogram:
    """How the differences of a tensor are distributed.

    Attributes:
        edges: Edges of the bins, ascending, one more than there are bins.
        counts: Number of elements in each bin; the last one holds its upper edge too.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """One tensor of two members.

    Attributes:
        count: Number of elements.
        score: Mean absolute difference.
        rows: Signed mean difference of each row, over all but the first dimension; of a vector, of
            each element.
        histogram: Distribution of the signed differences.
    """

    count: int
    score: float
    rows: tuple[float, ...]
    histogram: DifferenceHistogram


def tensor_differences(
    chain: Chain,
    other: int,
    chosen: int,
    *,
    weights: Collection[str] | None = None,
    biases: Collection[str] | None = None,
) -> Mapping[str, TensorDifference]:
    """How each tensor of one member differs from that of another.

    Args:
        chain: Chain that was opened and checked.
        other: Position of the member to compare with, from 0.
        chosen: Position of the member that is looked at, from 0.
        weights: Weights to look at; None for all.
        biases: Biases to look at; None for all.

    Raises:
        CheckpointError: A value is NaN or infinite; names the tensor.
        ConfigError: The chain has no tensor of one of the names.
    """
    plan = {tensor.name: tensor for tensor in member_plan(chain, chosen)}
    names = {name for name in plan if name in _chosen(plan, weights=weights, biases=biases)}
    sums: dict[str, _Sums] = {}
    for tensor, start, old, new in slice_pairs(chain, other, chosen, names):
        require_finite(chain, chosen, tensor.name, new)
        if tensor.name not in sums:
            sums[tensor.name] = _Sums(tensor.shape, tensor.count)
        sums[tensor.name].add(start, new - old)
    for tensor, _, old, new in slice_pairs(chain, other, chosen, names):
        sums[tensor.name].count_bins(new - old)
    return {name: total.result() for name, total in sums.items()}


def summary_score(differences: Iterable[TensorDifference]) -> float:
    """Mean absolute difference over every element of these tensors; 0 for none."""
    total, count = 0.0, 0
    for difference in differences:
        total += difference.count * difference.score
        count += difference.count
    return total / count if count else 0.0


def _chosen(
    names: Collection[str], *, weights: Collection[str] | None, biases: Collection[str] | None
) -> set[str]:
    """The names that are meant: of each kind those that are given, or all."""
    if unknown := sorted({*(weights or ()), *(biases or ())} - set(names)):
        raise ConfigError(
            "the checkpoint has no such tensor",
            got=", ".join(unknown[:5]),
            expected="names as the project's metadata lists them",
        )
    all_weights = {name for name in names if not is_bias(name)}
    all_biases = {name for name in names if is_bias(name)}
    return set(all_weights if weights is None else weights) | set(
        all_biases if biases is None else biases
    )


class _Sums:
    """What is known of one tensor's differences while its slices come by, twice."""

    def __init__(self, shape: tuple[int, ...], count: int) -> None:
        rows = shape[0] if shape else 1
        self._count = count
        self._columns = max(1, count // max(1, rows))
        self._rows = torch.zeros(rows, dtype=torch.float64)
        self._absolute = 0.0
        self._low, self._high = float("inf"), float("-inf")
        self._bins = torch.zeros(_BINS, dtype=torch.float64)

    def add(self, start: int, difference: torch.Tensor) -> None:
        """Take note of a slice [n] that begins at element ``start``."""
        at = torch.arange(start, start + difference.numel()) // self._columns
        self._rows.index_add_(0, at, difference.double())
        self._absolute += float(difference.abs().sum(dtype=torch.float64))
        self._low = min(self._low, float(difference.min()))
        self._high = max(self._high, float(difference.max()))

    def count_bins(self, difference: torch.Tensor) -> None:
        """Count a slice [n] into the bins, whose range is known by then."""
        low, high = self._range()
        self._bins += torch.histc(difference, bins=_BINS, min=low, max=high).double()

    def result(self) -> TensorDifference:
        """What came of it."""
        low, high = self._range()
        edges = torch.linspace(low, high, _BINS + 1, dtype=torch.float64)
        return TensorDifference(
            count=self._count,
            score=self._absolute / max(1, self._count),
            rows=tuple((self._rows / self._columns).tolist()),
            histogram=DifferenceHistogram(
                tuple(edges.tolist()), tuple(int(number) for number in self._bins.tolist())
            ),
        )

    def _range(self) -> tuple[float, float]:
        """The lowest and the highest difference; something around them where they are one."""
        if self._low < self._high:
            return self._low, self._high
        around = max(0.5, abs(self._low) * 0.01)
        return self._low - around, self._high + around
