"""A tensor of a blend that is made only where it is copied from, and only as much of it.

A model's own loader takes from each tensor what its layers need: a range of rows, of columns, of
the vocabulary, of experts, all of it. Given a `LazyTensor`, its slices and transposes stay views of
what is not made yet; the copy into a parameter makes what the view shows, where the parameter is.
So a rank of a split model blends its shard alone, and nothing here knows how the model is split.

What is neither a view nor a copy is done with the whole tensor, made for the purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_map

from ztom.blending.regions import Region, find_box

#: Makes a part of a tensor, flat; where the second argument is memory for it, in that memory.
Maker = Callable[[Region, torch.Tensor | None], torch.Tensor]

_COPY = torch.ops.aten.copy_.default
_TO = torch.ops.aten._to_copy.default
_DETACH = torch.ops.aten.detach.default


class LazyTensor(torch.Tensor):
    """A view of a tensor that is not made yet; see the module.

    Args:
        shape: Shape of the whole tensor.
        view: Tensor on the device ``meta`` whose shape, strides and offset are the view's.
        make: Function that makes parts of the whole tensor.
        device: Device that parts are made on.
    """

    _shape: tuple[int, ...]
    _view: torch.Tensor
    _make: Maker
    _value: torch.Tensor | None

    @staticmethod
    def __new__(
        cls, shape: Sequence[int], view: torch.Tensor, make: Maker, device: torch.device
    ) -> LazyTensor:
        """The wrapper that PyTorch sees: it has no memory."""
        wrapper: LazyTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            view.shape,
            strides=view.stride(),
            storage_offset=view.storage_offset(),
            dtype=view.dtype,
            device=device,
        )
        wrapper._shape, wrapper._view, wrapper._make = tuple(shape), view, make
        wrapper._value = None
        return wrapper

    def __init__(self, *_: object) -> None:
        super().__init__()

    @classmethod
    def of(
        cls, shape: Sequence[int], dtype: torch.dtype, make: Maker, device: torch.device
    ) -> LazyTensor:
        """A whole tensor.

        Args:
            shape: Shape of the tensor.
            dtype: Dtype of the tensor.
            make: Function that makes parts of it.
            device: Device that parts are made on.
        """
        return cls(shape, torch.empty(tuple(shape), dtype=dtype, device="meta"), make, device)

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        return f"LazyTensor({tuple(self._view.shape)}, {self._view.dtype})"

    def made(self) -> torch.Tensor:
        """What the view shows, as a tensor of its own."""
        if self._value is not None:
            return self._value
        box = find_box(self._shape, self._view)
        if box is not None:
            part = self._make(box.region, None)
            return part.reshape(-1).as_strided(self._view.shape, box.strides)
        whole = self._make(_whole(self._shape), None).reshape(-1)
        view = self._view
        return whole.as_strided(view.shape, view.stride(), view.storage_offset())

    def copy_into(self, target: torch.Tensor) -> None:
        """Make what the view shows in ``target``, of the same shape."""
        view = self._view
        if view.numel() == 0:
            return
        box = None if self._value is not None else find_box(self._shape, view)
        if (
            box is not None
            and target.is_contiguous()
            and target.dtype == view.dtype
            and target.device == self.device
            and target.shape == view.shape
            and _follows(view.shape, box.strides)
        ):
            self._make(box.region, target.view(-1))
            return
        target.copy_(self.made())

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Views stay lazy, copies are made where they go, everything else is done for real."""
        first: Any = args[0] if args else None
        if func is _COPY and isinstance(args[1], cls) and not isinstance(first, cls):
            if first.device.type != "meta":
                args[1].copy_into(first)
            return first
        if isinstance(first, cls):
            device = (kwargs or {}).get("device")
            if func is _TO and device is not None and torch.device(device).type == "meta":
                return func(first._view, **(kwargs or {}))  # only counted, not made
            if first._value is None and (func is _DETACH or func.is_view):
                seen = func(first._view, *args[1:], **(kwargs or {}))
                return tree_map(first._seen_as, seen)
            if func._schema.is_mutable:  # what is written to is real from here on
                first._value = first.made().clone()
        done = func(*tree_map(_real, args), **tree_map(_real, kwargs or {}))
        return first if isinstance(first, cls) and func._schema.is_mutable else done

    def _seen_as(self, view: Any) -> Any:
        if not isinstance(view, torch.Tensor):
            return view
        return LazyTensor(self._shape, view, self._make, self.device)


def _real(value: Any) -> Any:
    return value.made() if isinstance(value, LazyTensor) else value


def _whole(shape: Sequence[int]) -> Region:
    count = 1
    for size in shape:
        count *= size
    return Region(0, count, count)


def _follows(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether elements in the order of the shape follow each other in memory."""
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and stride != step:
            return False
        step *= size
    return True
