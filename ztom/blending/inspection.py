"""What a chain is made of: sizes, how far each step moved each layer, what a bound can do.

Everything is measured from the weights, streamed: one pass over the chain for the norms, and one
for what the largest allowed factor on each step realises at the given dtype.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch

from ztom.blending.apply import file_reader
from ztom.blending.chain import Chain
from ztom.blending.changes import slice_pairs
from ztom.blending.plan import plan_blend
from ztom.blending.precision import PrecisionReport, measure_precision

_LAYER = re.compile(r"^(.*?\.\d+)\.")


@dataclass(frozen=True, slots=True)
class LayerChange:
    """How far one step moved one layer.

    Attributes:
        layer: ``model.layers.3``, or the tensor's name outside the layers.
        relative: Frobenius norm of the change over the norm of the weights before it.
    """

    layer: str
    relative: float


@dataclass(frozen=True, slots=True)
class StepReport:
    """One transition of a chain.

    Attributes:
        name: ``before -> after``.
        relative: Norm of the change over the norm of the weights before it, all layers.
        layers: The same by layer, in the model's order.
        bound: What the largest allowed factor on this step alone realises.
    """

    name: str
    relative: float
    layers: tuple[LayerChange, ...]
    bound: PrecisionReport


@dataclass(frozen=True, slots=True)
class ChainReport:
    """A chain at a glance.

    Attributes:
        tags: Names of the members, base first.
        digests: Lower-case hex sha256 of each member's content.
        parameters: Number of parameters of one full model.
        nbytes: Size of each member's weights as stored, bytes.
        dtype: Dtype that the bounds were measured at.
        limit: The bound on each factor.
        steps: One per transition.
    """

    tags: tuple[str, ...]
    digests: tuple[str, ...]
    parameters: int
    nbytes: tuple[int, ...]
    dtype: str
    limit: float
    steps: tuple[StepReport, ...]


def inspect_chain(chain: Chain, *, limit: float, dtype: torch.dtype | None) -> ChainReport:
    """Measure a chain.

    Args:
        chain: Chain that was opened and checked.
        limit: The bound on each factor, above zero.
        dtype: Dtype that blends are deployed in; None is what is stored.
    """
    read = file_reader(chain)
    steps = []
    for step in range(chain.transitions):
        alone = [limit if i == step else 0.0 for i in range(chain.transitions)]
        changes, total = _changes(chain, step)
        bound = measure_precision(chain, chain.expand(alone), read, dtype=dtype)
        steps.append(StepReport(chain.names[step], total, changes, bound))
    plan = plan_blend(chain, [0.0] * chain.factor_count, dtype=dtype)
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in plan.tensors})
    return ChainReport(
        tags=chain.tags,
        digests=tuple(member.digest for member in chain.members),
        parameters=sum(tensor.count for tensor in plan.tensors),
        nbytes=tuple(sum(s.nbytes for s in m.tensors.values()) for m in chain.members),
        dtype=", ".join(dtypes),
        limit=limit,
        steps=tuple(steps),
    )


def _changes(chain: Chain, step: int) -> tuple[tuple[LayerChange, ...], float]:
    """Relative change by layer, and of the whole."""
    sums: dict[str, list[float]] = {}
    before = step if chain.topology == "sequence" else 0
    for tensor, _, a, b in slice_pairs(chain, before, step + 1):
        layer = sums.setdefault(_layer(tensor.name), [0.0, 0.0])
        layer[0] += float((b - a).double().square().sum())
        layer[1] += float(a.double().square().sum())
    changes = tuple(LayerChange(name, _ratio(*pair)) for name, pair in sums.items())
    whole = [sum(column) for column in zip(*sums.values(), strict=True)]
    return changes, _ratio(*whole)


def _ratio(change: float, before: float) -> float:
    return math.sqrt(change / before) if before > 0 else 0.0


def _layer(name: str) -> str:
    match = _LAYER.match(name)
    return match[1] if match else name
