"""Two ranks of a split model: each reads, holds and blends what its layers take, exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine_calls import FACTORS, open_chain
from toys import make_adapter_chain, make_plain_chain

from ztom.blending.apply import blend_tensor, file_reader
from ztom.blending.chain import Chain
from ztom.blending.plan import BlendPlan, plan_blend
from ztom.engines.shards import HeldShards, ShardNeed, choose_together
from ztom.errors import BlendError, ChainError

CPU = torch.device("cpu")
RANKS = 2
GIB = 2**30


def taken(name: str, tensor: torch.Tensor, rank: int) -> torch.Tensor:
    """What a rank takes: rows, columns, or everything, as Megatron splits layers."""
    if tensor.ndim != 2:
        return tensor
    dimension = 1 if name.endswith(("o_proj.weight", "down_proj.weight")) else 0
    size = tensor.shape[dimension] // RANKS
    return tensor.narrow(dimension, rank * size, size)


def load(tensors: Iterator[tuple[str, torch.Tensor]], rank: int) -> dict[str, torch.Tensor]:
    """As a model's loader: a copy for the count, and one into memory."""
    loaded = {}
    with torch.no_grad():
        for name, tensor in tensors:
            part = taken(name, tensor, rank)
            torch.empty(part.shape, device="meta", dtype=part.dtype).copy_(part)
            loaded[name] = torch.empty(part.shape, dtype=part.dtype)
            loaded[name].copy_(part)
    return loaded


def whole(chain: Chain, factors: tuple[float, ...]) -> dict[str, torch.Tensor]:
    plans = plan_blend(chain, factors).tensors
    return {plan.name: blend_tensor(plan, file_reader(chain)) for plan in plans}


def held(chain: Chain, rank: int, dtype: torch.dtype | None = None) -> HeldShards:
    """What a rank holds after its first load."""
    shards = HeldShards(chain, device=CPU, dtype=dtype)
    load(shards.tensors(shards.plan((0.0,) * chain.transitions)), rank)
    return shards


def factor_bytes(chain: Chain) -> int:
    return sum(
        factors.a.nbytes + factors.b.nbytes
        for adapter in chain.adapters
        if adapter is not None
        for factors in adapter.factors.values()
    )


def overflowing(plan: BlendPlan, position: int = 3) -> BlendPlan:
    tensors = list(plan.tensors)
    terms = [replace(term, coefficient=3e38) for term in tensors[position].dense]
    tensors[position] = replace(tensors[position], dense=tuple(terms))
    return replace(plan, tensors=tuple(tensors))


@pytest.mark.parametrize("placement", ["host", "file"])
def test_two_ranks_hold_and_read_half_each(llama_chain: list[Path], placement) -> None:
    chain = open_chain(llama_chain)
    want = whole(chain, FACTORS)
    matrices = sum(t.nbytes for t in want.values() if t.ndim == 2)
    vectors = sum(t.nbytes for t in want.values() if t.ndim != 2)
    for rank in range(RANKS):
        shards = held(chain, rank)
        share = matrices // RANKS + vectors
        assert shards.bytes_read == share  # factors of zero read the latest checkpoint alone
        assert shards.need().nbytes == share * len(chain.members)
        shards.place(placement)
        loaded = load(shards.tensors(shards.plan(FACTORS)), rank)
        shards.check()
        assert shards.bytes_read == share * len(chain.members)
        for name, tensor in loaded.items():
            assert torch.equal(tensor, taken(name, want[name], rank)), name


def test_adapters_stay_factored(tmp_path: Path) -> None:
    chain = open_chain(make_adapter_chain(tmp_path)[0])
    factors = (0.4,) * chain.transitions
    want = whole(chain, factors)
    for rank in range(RANKS):
        shards = held(chain, rank)
        shards.place("host")
        base = sum(taken(name, tensor, rank).nbytes for name, tensor in want.items())
        assert shards.need().nbytes == base + factor_bytes(chain)
        for name, tensor in load(shards.tensors(shards.plan(factors)), rank).items():
            torch.testing.assert_close(tensor, taken(name, want[name], rank))
        shards.check()


def test_a_failure_is_raised_when_all_is_loaded(tmp_path: Path) -> None:
    chain = open_chain(make_plain_chain(tmp_path))
    shards = held(chain, 0)
    shards.place("host")
    plan, other = shards.plan((0.5, -0.4)), shards.plan((0.0, 0.0))
    loaded = load(shards.tensors(overflowing(plan)), 0)
    assert len(loaded) == len(plan.tensors)
    with pytest.raises(BlendError, match="not finite"):
        shards.check()
    mixed = load(shards.tensors(overflowing(plan), instead=other), 0)
    shards.check()
    assert shards.failure.startswith("BlendError: ")
    latest = whole(chain, (0.0, 0.0))
    for tensor in plan.tensors[3:]:
        assert torch.equal(mixed[tensor.name], taken(tensor.name, latest[tensor.name], 0))
    load(shards.tensors(overflowing(plan), instead=overflowing(plan)), 0)
    with pytest.raises(BlendError):
        shards.check()
    load(shards.tensors(plan), 0)
    shards.check()
    assert shards.failure == ""


def test_a_rank_refuses_values_that_are_not_finite_in_its_part(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    paths = make_plain_chain(tmp_path, members=2)
    state = load_file(paths[0] / "model.safetensors")
    name = next(n for n, t in sorted(state.items()) if t.ndim == 2 and "embed" in n)
    state[name][-1, -1] = torch.nan
    save_file(state, paths[0] / "model.safetensors", metadata={"format": "pt"})
    chain = open_chain(paths)
    held(chain, 0).place("host")
    with pytest.raises(ChainError, match=name):
        held(chain, 1).place("host")


def need(nbytes: float, *, node: str = "a", device: float | None = None, host: float) -> ShardNeed:
    free = None if device is None else int(device * GIB)
    return ShardNeed(node, int(nbytes * GIB), free, int(host * GIB))


@pytest.mark.parametrize(
    ("needs", "place"),
    [
        ([need(10, device=40, host=100)] * 2, "device"),
        # one rank is short of its device's memory: none takes it
        ([need(10, device=40, host=100), need(10, device=12, host=100)], "host"),
        # each would fit into the node's memory, both do not
        ([need(40, device=0, host=100)] * 2, "file"),
        ([need(40, host=100, node="a"), need(40, host=100, node="b")], "host"),
        ([need(40, host=100, node="a"), need(40, host=50, node="b")], "file"),
        ([need(29, host=100)] * 2, "host"),
    ],
)
def test_ranks_choose_one_place_together(needs: list[ShardNeed], place: str) -> None:
    assert choose_together(needs) == place
