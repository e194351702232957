"""What every engine has to do: one suite for the fake engine, torch and vLLM."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_calls import open_chain
from toys import make_chain

from ztom.engines.build import build_engine, build_single
from ztom.engines.config import EngineConfig
from ztom.engines.protocol import Engine
from ztom.errors import EngineError
from ztom.testing import EngineConformance


class TestEngines(EngineConformance):
    def test_it_runs_in_the_dtype_that_was_configured(self, engine: Engine) -> None:
        assert engine.info.dtype == "float32"


@pytest.mark.parametrize("name", ["torch", "vllm"])
@pytest.mark.parametrize("whole_chain", [False, True], ids=["model", "chain"])
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1.self_attn.q_proj", None, r"1 missing: model\.layers\.1\.self_attn\.q_proj\.weight"),
        ("1.mlp.up_proj", "1.mlp.raise", r"1 missing: .*1\.mlp\.up_proj.*; 1 unexpected: .*raise"),
    ],
    ids=["missing", "renamed"],
)
def test_a_checkpoint_whose_keys_do_not_fit_never_answers(
    tmp_path: Path, name: str, whole_chain: bool, old: str, new: str | None, message: str
) -> None:
    from safetensors.torch import load_file, save_file

    paths = make_chain(tmp_path, members=2)
    for path in paths:
        state = load_file(path / "model.safetensors")
        tensor = state.pop(f"model.layers.{old}.weight")
        if new is not None:
            state[f"model.layers.{new}.weight"] = tensor
        save_file(state, path / "model.safetensors", metadata={"format": "pt"})
    config = EngineConfig(name=name, dtype="float32")
    chain = open_chain(paths)
    with pytest.raises(EngineError, match=message):
        _ = build_engine(config, chain) if whole_chain else build_single(config, paths[0])
