"""How much of the intended change survives the cast to the deployed dtype.

A small step can vanish: bfloat16 keeps 8 bits, so a change of less than half a unit in the last
place rounds back to the old weight. Realised over intended is the part of the intended step that
the deployed weights took: ``<realised, intended> / <intended, intended>`` with ``intended = blend -
latest`` in float32 and ``realised = cast(blend) - cast(latest)``; 1.0 is exact, 0.0 is no change at
all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ztom.blending.apply import Reader, TermSum, blend_tensor
from ztom.blending.chain import Chain
from ztom.blending.plan import TensorPlan, plan_blend

#: Below this the search's factors do not mean in deployment what they meant in float32.
LOW = 0.5

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True, slots=True)
class StepPrecision:
    """The realised step of a group of tensors, or of all.

    Attributes:
        group: Tensor names with layer numbers replaced by ``*``; ``all`` for the whole.
        realised: Realised over intended step; None where nothing was to change.
        changed: Share of the weights whose deployed value changed at all, 0 to 1.
        weights: Number of weights in the group.
    """

    group: str
    realised: float | None
    changed: float
    weights: int


@dataclass(frozen=True, slots=True)
class PrecisionReport:
    """The realised step over all tensors and by group.

    Attributes:
        overall: Realised step over all tensors.
        groups: Realised step of each group of tensors, sorted by name.
    """

    overall: StepPrecision
    groups: tuple[StepPrecision, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to tell the user; empty when the step is realised well."""
        realised = self.overall.realised
        if realised is None or realised >= LOW:
            return ()
        return (
            f"only {realised:.0%} of the intended step is realised at the deployed dtype "
            f"({self.overall.changed:.1%} of the weights change): deploy in float32, or raise the "
            "limit of the factors",
        )


class PrecisionMeter:
    """Adds up what `blend_tensor` shows it; give `observe` as its observer."""

    def __init__(self, chain: Chain, read: Reader, *, dtype: torch.dtype | None) -> None:
        latest = plan_blend(chain, [0.0] * chain.factor_count, dtype=dtype)
        self._latest = {tensor.name: tensor for tensor in latest.tensors}
        self._read = read
        self._sums: dict[str, torch.Tensor] = {}
        self._current: tuple[str, TermSum] | None = None

    def observe(
        self, plan: TensorPlan, start: int, exact: torch.Tensor, deployed: torch.Tensor
    ) -> None:
        """Compare one slice with the latest checkpoint's."""
        if not plan.dtype.is_floating_point:
            return
        if self._current is None or self._current[0] != plan.name:
            self._current = (plan.name, TermSum(self._latest[plan.name], self._read))
        latest = torch.empty_like(exact, dtype=torch.float32)
        self._current[1].into(latest, start)
        realised = deployed.to(torch.float32) - latest.to(deployed.dtype).to(torch.float32)
        intended = exact - latest
        changed = torch.count_nonzero(realised)
        group = self._sums.setdefault(
            group_of(plan.name), torch.zeros(4, dtype=torch.float64, device=exact.device)
        )
        group += torch.stack(
            [
                torch.dot(realised, intended).double(),
                torch.dot(intended, intended).double(),
                changed.double(),
                torch.tensor(float(exact.numel()), dtype=torch.float64, device=exact.device),
            ]
        )

    def report(self) -> PrecisionReport:
        """What was seen so far."""
        sums = {name: group.tolist() for name, group in sorted(self._sums.items())}
        overall = [sum(column) for column in zip(*sums.values(), strict=True)] or [0.0] * 4
        return PrecisionReport(
            overall=_step("all", overall),
            groups=tuple(_step(name, group) for name, group in sums.items()),
        )


def measure_precision(
    chain: Chain, factors: Sequence[float], read: Reader, *, dtype: torch.dtype | None
) -> PrecisionReport:
    """The precision report of a blend that is not kept."""
    meter = PrecisionMeter(chain, read, dtype=dtype)
    for tensor in plan_blend(chain, factors, dtype=dtype).tensors:
        blend_tensor(tensor, read, observe=meter.observe)
    return meter.report()


def group_of(name: str) -> str:
    """``model.layers.3.mlp.up_proj.weight`` belongs to ``model.layers.*.mlp.up_proj.weight``."""
    return _NUMBER.sub("*", name)


def _step(group: str, sums: Sequence[float]) -> StepPrecision:
    dot, intended, changed, weights = sums
    return StepPrecision(
        group=group,
        realised=dot / intended if intended > 0 else None,
        changed=changed / weights if weights else 0.0,
        weights=int(weights),
    )
