"""Tensors that are made where they are copied: what a view shows of them, bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from ztom.blending.lazy import LazyTensor
from ztom.blending.regions import Region

SHAPE = (6, 4, 8)
VIEWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "whole": lambda t: t,
    "rows": lambda t: t.narrow(0, 2, 3),
    "columns": lambda t: t.narrow(2, 4, 4),
    "middle": lambda t: t.narrow(1, 1, 2),
    "expert": lambda t: t[4],
    "columns of an expert": lambda t: t[4].narrow(1, 2, 3),
    "rows of an expert": lambda t: t[4].narrow(0, 1, 2),
    "one column": lambda t: t[:, :, 3],
    "transposed": lambda t: t.transpose(0, 2),
    "transposed, then columns": lambda t: t.reshape(24, 8).t().narrow(0, 2, 4),
    "heads": lambda t: t.reshape(24, 8).view(3, 8, 8)[1],
    "chunks": lambda t: t.chunk(2, dim=1)[1],
    "pieces": lambda t: t.split([2, 4], dim=0)[1],
    "data": lambda t: t.data.narrow(0, 1, 2).contiguous(),
    "every second row": lambda t: t[::2],
    "rows and columns": lambda t: t[1:3, :, 2:5],
    "runs of runs": lambda t: t[1:3, 1:3, 2:5],
    "an element": lambda t: t[5, 3, 7],
}


class Source:
    """A tensor, and what was made of it."""

    def __init__(self) -> None:
        self.tensor = torch.randn(SHAPE)
        self.made: list[Region] = []

    def make(self, region: Region, out: torch.Tensor | None) -> torch.Tensor:
        self.made.append(region)
        flat = self.tensor.reshape(-1)
        part = flat.as_strided((region.runs, region.run), (region.step, 1), region.start)
        return part.reshape(-1) if out is None else out.copy_(part.reshape(-1))

    def lazy(self) -> LazyTensor:
        return LazyTensor.of(SHAPE, torch.float32, self.make, torch.device("cpu"))


@pytest.mark.parametrize("name", VIEWS)
@torch.no_grad()
def test_a_view_is_made_where_it_is_copied(name: str) -> None:
    source = Source()
    want = VIEWS[name](source.tensor)
    lazy = VIEWS[name](source.lazy())
    assert lazy.shape == want.shape
    assert not source.made  # until somebody copies
    torch.empty(want.shape, device="meta").copy_(lazy)
    assert not source.made
    target = torch.full(want.shape, torch.nan)
    target.copy_(lazy)
    assert torch.equal(target, want)
    elements = sum(region.count for region in source.made)
    whole = name in ("every second row", "runs of runs")
    assert elements == (source.tensor.numel() if whole else want.numel())


@torch.no_grad()
def test_a_copy_into_part_of_a_parameter_leaves_the_rest() -> None:
    source = Source()
    parameter = torch.zeros(8, 4, 8)
    parameter[: len(source.tensor)].copy_(source.lazy())
    parameter[6:].fill_(1)
    assert torch.equal(parameter[:6], source.tensor)
    assert bool((parameter[6:] == 1).all())


@torch.no_grad()
def test_what_is_computed_is_computed_with_the_whole() -> None:
    source = Source()
    lazy = source.lazy()
    assert torch.equal(lazy + 1, source.tensor + 1)
    assert torch.equal(torch.cat([lazy, lazy]), torch.cat([source.tensor] * 2))
    assert lazy[0, 0, 0].item() == source.tensor[0, 0, 0].item()
    assert torch.equal(lazy.to(torch.bfloat16), source.tensor.to(torch.bfloat16))
    made = len(source.made)
    assert lazy.to("meta").shape == SHAPE
    assert len(source.made) == made  # a loader that counts elements needs none of them
    target = torch.empty(SHAPE, dtype=torch.bfloat16)
    target.copy_(lazy)
    assert torch.equal(target, source.tensor.to(torch.bfloat16))


@torch.no_grad()
def test_a_tensor_that_is_written_to_keeps_what_was_written() -> None:
    source = Source()
    before = source.tensor.clone()
    lazy = source.lazy()
    lazy += 1
    target = torch.empty(SHAPE)
    target.copy_(lazy)
    assert torch.equal(target, before + 1)
    assert torch.equal(lazy.narrow(0, 1, 2), (before + 1).narrow(0, 1, 2))
    assert torch.equal(source.tensor, before)
