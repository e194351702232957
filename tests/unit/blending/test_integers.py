"""Integers are not blended: equal over a chain, known counters, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toys import make_plain_chain

from ztom.blending import integers
from ztom.blending.apply import blend_tensor, file_reader
from ztom.blending.chain import Chain, load_chain
from ztom.blending.chain_file import ChainConfig
from ztom.blending.plan import BlendPlan, plan_blend
from ztom.errors import ChainError, IncompatibleChainError
from ztom.settings import Settings

PACKED = "model.layers.0.mlp.up_proj.codes"
SCALES = "model.layers.0.mlp.up_proj.scales"
State = dict[str, torch.Tensor]


def open_chain(folder: Path, states: list[State], **options: object) -> Chain:
    paths = make_plain_chain(folder, states=states)
    config = ChainConfig.model_validate({"checkpoints": [str(path) for path in paths], **options})
    return load_chain(config, settings=Settings())


def apply(plan: BlendPlan, chain: Chain) -> State:
    return {tensor.name: blend_tensor(tensor, file_reader(chain)) for tensor in plan.tensors}


def packed(count: int, dtype: torch.dtype = torch.int32) -> list[State]:
    """Checkpoints that differ in their scales only."""
    weight = torch.arange(24).reshape(4, 6).to(dtype)
    return [
        {
            PACKED: weight.clone(),
            SCALES: torch.full((6,), 1.0 + i),
            "model.norm.weight": torch.ones(4),
        }
        for i in range(count)
    ]


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int64, torch.bool])
@pytest.mark.parametrize("position", [1, 2])
def test_integers_that_differ_are_refused(tmp_path: Path, dtype, position: int) -> None:
    states = packed(3, dtype)
    flat = states[position][PACKED].view(-1)
    flat[17] = ~flat[17] if dtype == torch.bool else flat[17] + 1
    with pytest.raises(IncompatibleChainError) as refused:
        open_chain(tmp_path, states)
    message = str(refused.value)
    assert PACKED in message
    assert str(tmp_path / "00") in message
    assert str(tmp_path / f"0{position}") in message
    assert "index 17" in message
    assert refused.value.fix


@pytest.mark.parametrize("topology", ["sequence", "siblings"])
def test_equal_integers_are_kept_and_their_scales_blended(tmp_path: Path, topology: str) -> None:
    chain = open_chain(tmp_path, packed(2), topology=topology)
    plan = plan_blend(chain, [0.5], dtype=torch.float32)
    blend = apply(plan, chain)
    assert torch.equal(blend[PACKED], packed(1)[0][PACKED])
    assert blend[SCALES].tolist() == [2.5] * 6


@pytest.mark.parametrize("name", ["bn.num_batches_tracked", "position_ids"])
def test_counters_and_indices_are_taken_from_the_latest(tmp_path: Path, name: str) -> None:
    states = packed(2)
    for i, state in enumerate(states):
        state[name] = torch.tensor([i, 7])
    chain = open_chain(tmp_path, states)
    assert apply(plan_blend(chain, [0.5]), chain)[name].tolist() == [1, 7]


def test_only_the_last_part_of_a_name_makes_a_counter(tmp_path: Path) -> None:
    states = packed(2)
    for i, state in enumerate(states):
        state["position_ids.codes"] = torch.tensor([i])
    with pytest.raises(ChainError, match=r"position_ids\.codes"):
        open_chain(tmp_path, states)


@pytest.mark.parametrize("integer", [0, 1])
def test_one_kind_of_number_per_tensor_even_where_a_cast_is_allowed(
    tmp_path: Path, integer: int
) -> None:
    states = packed(2)
    states[1 - integer][PACKED] = states[1 - integer][PACKED].float()
    with pytest.raises(IncompatibleChainError, match=r"codes.*torch\.(int|float)32"):
        open_chain(tmp_path, states, allow_dtype_cast=True)


def test_a_difference_in_the_last_slice_is_found(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(integers, "SLICE_BYTES", 16)
    states = packed(2)
    states[1][PACKED].view(-1)[23] += 1
    with pytest.raises(IncompatibleChainError, match="index 23"):
        open_chain(tmp_path / "differ", states)
    open_chain(tmp_path / "equal", packed(2))
