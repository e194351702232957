"""Checkpoints as engines hold them, and what a blend yields when part of it fails."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine_calls import FACTORS, open_chain
from toys import make_plain_chain, reference_blend

from ztom.blending.plan import BlendPlan
from ztom.engines.pristine import HeldChain, choose_placement
from ztom.errors import BlendError, ChainError

POSITION = 2


@pytest.fixture
def held(tmp_path: Path) -> HeldChain:
    chain = open_chain(make_plain_chain(tmp_path))
    return HeldChain(chain, device=torch.device("cpu"), dtype=None, placement="host")


def overflowing(plan: BlendPlan) -> BlendPlan:
    """The plan with one tensor whose blend is beyond what its dtype holds."""
    tensors = list(plan.tensors)
    terms = [replace(term, coefficient=3e38) for term in tensors[POSITION].dense]
    tensors[POSITION] = replace(tensors[POSITION], dense=tuple(terms))
    return replace(plan, tensors=tuple(tensors))


def test_a_blend_that_fails_goes_on_with_the_other_one(held: HeldChain) -> None:
    plan, other = held.plan((0.5, -0.4)), held.plan((0.0, 0.0))
    mixed = list(held.blend(overflowing(plan), instead=other))
    assert held.failure.startswith("BlendError: ")
    assert held.bytes_read > 0
    wanted = [*list(held.blend(plan))[:POSITION], *list(held.blend(other))[POSITION:]]
    assert [name for name, _ in mixed] == [name for name, _ in wanted]
    for (_, got), (_, want) in zip(mixed, wanted, strict=True):
        assert torch.equal(got, want)
    assert held.failure == ""


def test_a_blend_that_succeeds_takes_nothing_of_the_other_one(held: HeldChain) -> None:
    plan = held.plan((0.5, -0.4))
    alone = list(held.blend(plan))
    both = list(held.blend(plan, instead=held.plan((0.0, 0.0))))
    assert held.failure == ""
    for (_, got), (_, want) in zip(both, alone, strict=True):
        assert torch.equal(got, want)


def test_a_failure_is_raised_where_nothing_can_stand_in(held: HeldChain) -> None:
    broken = overflowing(held.plan((0.5, -0.4)))
    with pytest.raises(BlendError):
        list(held.blend(broken))
    with pytest.raises(BlendError):
        list(held.blend(broken, instead=broken))


@pytest.mark.parametrize("placement", ["host", "file"])
def test_held_and_streamed_checkpoints_blend_alike(llama_chain: list[Path], placement) -> None:
    chain = open_chain(llama_chain)
    held = HeldChain(chain, device=torch.device("cpu"), dtype=None, placement=placement)
    want = reference_blend(llama_chain, FACTORS)
    for name, tensor in held.blend(held.plan(FACTORS)):
        torch.testing.assert_close(tensor.double(), want[name], rtol=1e-5, atol=1e-6)
    assert held.bytes_read > 0


def test_placement_follows_free_memory() -> None:
    assert choose_placement(10, device_free=100, host_free=100) == "device"
    assert choose_placement(90, device_free=100, host_free=1000) == "host"
    assert choose_placement(90, device_free=None, host_free=100) == "file"


@pytest.mark.abuse(16)
def test_a_checkpoint_with_nan_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    paths = make_plain_chain(tmp_path, members=2)
    state = load_file(paths[1] / "model.safetensors")
    state["model.norm.weight"][3] = math.nan
    save_file(state, paths[1] / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ChainError, match=r"01 cannot be blended.*model\.norm\.weight"):
        HeldChain(open_chain(paths), device=torch.device("cpu"), dtype=None)
