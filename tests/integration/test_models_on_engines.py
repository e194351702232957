"""Models of many families on vLLM, which agrees with transformers; and models that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from engine_calls import (
    ANSWERS,
    FACTORS,
    PROMPTS,
    assert_groups_load_as_they_blend,
    observe,
    open_chain,
)
from safetensors.torch import load_file, save_file
from toy_variant import open_toy_adapters
from toys import (
    make_chain,
    reference_blend,
)
from vllm_slot import VllmSlot

from ztom.engines.build import build_engine, build_single
from ztom.engines.config import EngineConfig
from ztom.engines.protocol import Engine
from ztom.errors import EngineError


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(
            "llama",
            marks=pytest.mark.brings("family", "Llama", "vLLM: blended in place, as transformers"),
        ),
        pytest.param(
            "llama-tied",
            marks=pytest.mark.brings(
                "family", "Llama, its head tied", "vLLM: blended in place, as transformers"
            ),
        ),
        pytest.param(
            "qwen2",
            marks=pytest.mark.brings("family", "Qwen2", "vLLM: blended in place, as transformers"),
        ),
        pytest.param(
            "qwen3",
            marks=pytest.mark.brings("family", "Qwen3", "vLLM: blended in place, as transformers"),
        ),
        pytest.param(
            "gemma2",
            marks=pytest.mark.brings(
                "family", "Gemma 2", "vLLM: blended in place, as transformers"
            ),
        ),
        pytest.param(
            "gemma3",
            marks=pytest.mark.brings(
                "family", "Gemma 3 (text)", "vLLM: blended in place, as transformers"
            ),
        ),
        pytest.param(
            "gpt2",
            marks=pytest.mark.brings("family", "GPT-2", "vLLM: blended in place, as transformers"),
        ),
    ],
)
def test_vllm_agrees_with_transformers_after_a_blend(
    tmp_path: Path, llama_chain: list[Path], vllm_slot: VllmSlot, family: str
) -> None:
    paths = llama_chain if family == "llama" else make_chain(tmp_path, family)
    engine = vllm_slot.on(paths)
    engine.blend((0.0, 0.0))
    start = observe(engine)
    engine.blend(FACTORS)
    got = engine.log_probs(PROMPTS, ANSWERS)
    want = transformers_log_probs(engine, paths)
    worst = max(np.abs(g - w).max() for g, w in zip(got, want, strict=True))
    assert worst <= 1e-4
    engine.blend((0.0, 0.0))
    assert observe(engine) == start
    # without another start: factors for each step and kind, and for adapters over such a model
    assert_groups_load_as_they_blend(engine, open_chain(paths), tmp_path / "variant")
    if family == "llama":
        adapters = open_toy_adapters(tmp_path / "adapters")
        assert_groups_load_as_they_blend(engine, adapters, tmp_path / "adapted")
    assert observe(engine) == start


def transformers_log_probs(engine: Engine, paths: list[Path]) -> list[np.ndarray]:
    """The same blend, computed as the formula says, through transformers."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        paths[-1], dtype=torch.float32, attn_implementation="eager"
    )
    state = {name: tensor.float() for name, tensor in reference_blend(paths, FACTORS).items()}
    unknown = model.load_state_dict(state, strict=False).unexpected_keys
    assert not unknown
    model.tie_weights()
    rows = []
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        head = engine._encoder.prompt_ids(prompt)  # type: ignore[attr-defined]
        tail = engine._encoder.continuation_ids(answer)  # type: ignore[attr-defined]
        with torch.no_grad():
            scores = model(torch.tensor([head + tail])).logits[0].log_softmax(-1)
        picked = scores[len(head) - 1 : -1].gather(1, torch.tensor(tail)[:, None])
        rows.append(picked[:, 0].numpy())
    return rows


@pytest.mark.abuse(112)
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
    tmp_path: Path,
    vllm_slot: VllmSlot,
    name: str,
    whole_chain: bool,
    old: str,
    new: str | None,
    message: str,
) -> None:
    if name == "vllm":
        vllm_slot.clear()
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
