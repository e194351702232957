"""Where in a loaded model the tensors of a blend go.

A blend comes in the names that the checkpoints store, one tensor at a time; a model of transformers
has its own names for what they make (`ztom.checkpoints.own_names`). Tensors that only together make
one of the model, such as the experts of a layer, are kept until the last of them is there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ztom.checkpoints.derived import is_derived
from ztom.checkpoints.own_names import OwnNames, TensorGroup
from ztom.errors import EngineError


class Targets:
    """The parameters and buffers that one blend is copied into.

    Args:
        model: Model of transformers, or a plain module, whose own names are those that are stored.
        names: Names of all tensors of the blend.
    """

    def __init__(self, model: Any, names: Iterable[str]) -> None:
        self._state: dict[str, torch.Tensor] = model.state_dict()
        self._own = OwnNames(model) if hasattr(model, "base_model_prefix") else None
        self._groups: dict[str, TensorGroup] = {}
        if self._own is not None:
            for group in self._own.arrange(names).groups:
                self._groups |= dict.fromkeys(group.stored, group)
        self._waiting: dict[str, dict[str, torch.Tensor]] = {}
        self._missing = set(self._state)
        self._twins: dict[int, list[str]] = {}  # tied parameters share their storage
        for name, tensor in self._state.items():
            self._twins.setdefault(tensor.data_ptr(), []).append(name)

    def copy(self, name: str, tensor: torch.Tensor) -> None:
        """Copy one blended tensor, or keep it until its group is whole.

        Args:
            name: Name that the checkpoints store it under.
            tensor: Blended tensor, of the shape that they store.

        Raises:
            EngineError: The model has no place for it.
        """
        group = self._groups.get(name)
        if group is None and self._own is not None:
            # as when transformers loads: what every model computes, and what the class names
            if is_derived(name, tensor.shape) or self._own.ignored.search(name):
                return
            raise _no_place(name, tensor, None)
        if self._own is None or group is None:
            self._put(name, tensor)
            return
        waiting = self._waiting.setdefault(group.own, {})
        waiting[name] = tensor
        if len(waiting) < len(group.sources):
            return
        try:
            made = self._own.convert(group, self._waiting.pop(group.own))
        except Exception as error:  # transformers raises whatever its conversions raise
            raise _no_place(name, tensor, self._state.get(group.own)) from error
        for own, value in made.items():
            self._put(own, value)

    def check_complete(self) -> None:
        """Raise when a parameter was left as it was."""
        if self._missing:
            raise EngineError(
                "the blend does not cover the whole model", got=", ".join(sorted(self._missing)[:5])
            )

    def _put(self, own: str, tensor: torch.Tensor) -> None:
        target = self._state.get(own)
        if target is None or target.shape != tensor.shape:
            raise _no_place(own, tensor, target)
        target.copy_(tensor)
        self._missing.difference_update(self._twins[target.data_ptr()])


def _no_place(name: str, tensor: torch.Tensor, target: torch.Tensor | None) -> EngineError:
    return EngineError(
        f"the model has no place for {name}",
        got=list(tensor.shape),
        expected="a name that is known" if target is None else list(target.shape),
    )
