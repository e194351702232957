"""Checkpoints as engines hold them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from engine_calls import FACTORS, open_chain
from toys import (
    reference_blend,
)

from ztom.engines.pristine import HeldChain, choose_placement
from ztom.errors import ChainError


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


def test_a_checkpoint_with_nan_is_refused(tmp_path: Path) -> None:  # row 16
    from safetensors.torch import load_file, save_file
    from toys import make_plain_chain

    paths = make_plain_chain(tmp_path, members=2)
    state = load_file(paths[1] / "model.safetensors")
    state["model.norm.weight"][3] = math.nan
    save_file(state, paths[1] / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ChainError, match=r"01 cannot be blended.*model\.norm\.weight"):
        HeldChain(open_chain(paths), device=torch.device("cpu"), dtype=None)
