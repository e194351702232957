"""What each scaling factor adds to a loaded model's weights, by the model's own names.

The tensors come from the pristine checkpoints as those of a blend do, in float32, one factor at a
time: memory is that of the tensors that one factor reaches.
"""

from __future__ import annotations

from typing import Any

import torch

from ztom.blending.factor_plans import plan_step, plan_zero
from ztom.blending.plan import TensorPlan
from ztom.checkpoints.own_names import OwnNames, TensorGroup
from ztom.engines.pristine import HeldChain


class FactorSteps:
    """Makes the step of a factor when it is called.

    Args:
        model: Model of transformers, or a plain module, whose own names are those that are stored.
        held: The chain that its weights are blended from.
    """

    def __init__(self, model: Any, held: HeldChain) -> None:
        self._held = held
        self._zero = plan_zero(held.chain)
        self._shapes = {tensor.name: tensor.shape for tensor in self._zero.tensors}
        names = list(self._shapes)
        self._own = OwnNames(model) if hasattr(model, "base_model_prefix") else None
        self._groups = (
            tuple(TensorGroup(name, ((name, name),)) for name in names)
            if self._own is None
            else self._own.arrange(names).groups
        )

    def __call__(self, factor: int) -> dict[str, torch.Tensor]:
        """The tensors that a factor changes, and what it adds to each per unit, float32.

        Args:
            factor: Position of the factor.
        """
        step = plan_step(self._held.chain, factor, zero=self._zero)
        made: dict[str, torch.Tensor] = {}
        for group in self._groups:
            if any(name in step for name in group.stored):
                made |= self._converted(group, step)
        return made

    def _converted(
        self, group: TensorGroup, step: dict[str, TensorPlan]
    ) -> dict[str, torch.Tensor]:
        """A group of tensors; of those that only together make one, some may not change."""
        tensors = {
            name: self._held.blend_one(step[name])
            if name in step
            else torch.zeros(self._shapes[name], device=self._held.device)
            for name in group.stored
        }
        if self._own is None:
            return tensors
        return self._own.convert(group, tensors)
