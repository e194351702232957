"""Held chains: what a blend yields when part of it fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toys import make_plain_chain

from ztom.blending.chain import ChainConfig, load_chain
from ztom.blending.plan import BlendPlan
from ztom.engines.pristine import HeldChain
from ztom.errors import BlendError
from ztom.settings import Settings

POSITION = 2


@pytest.fixture
def held(tmp_path: Path) -> HeldChain:
    paths = [str(path) for path in make_plain_chain(tmp_path)]
    chain = load_chain(ChainConfig.model_validate({"checkpoints": paths}), settings=Settings())
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
