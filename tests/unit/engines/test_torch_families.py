"""Families whose stored names are not the model's: load then blend equals blend then load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from foreign_chains import make_model, nudge, rewrite, tensors_of
from toys import make_tokenizer

from ztom.blending.chain import Chain, load_chain
from ztom.blending.chain_file import ChainConfig
from ztom.engines.build import build_engine, build_single
from ztom.engines.config import EngineConfig
from ztom.engines.model_fit import check_folder_fit
from ztom.engines.protocol import Capability, GenerationConfig
from ztom.engines.torch_engine import TorchEngine
from ztom.errors import CapabilityError, EngineError
from ztom.settings import Settings
from ztom.variants.write import stage_variant

TORCH = EngineConfig(name="torch")
FACTORS = (0.3, -0.6)
State = dict[str, torch.Tensor]


def open_chain(paths: list[Path]) -> Chain:
    config = ChainConfig.model_validate({"checkpoints": [str(path) for path in paths]})
    return load_chain(config, settings=Settings())


def steps(model: Any, folder: Path, members: int = 3) -> tuple[list[Path], list[State]]:
    """Saved members, and the state of the model itself at each."""
    paths, states = [], []
    for position in range(members):
        if position:
            nudge(model, position)
        model.save_pretrained(folder / str(position))
        make_tokenizer().save_pretrained(folder / str(position))
        paths.append(folder / str(position))
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    return paths, states


def own_blend(chain: Chain, states: list[State], factors: tuple[float, ...]) -> State:
    """The blend of the models' own tensors: in float32, cast once."""
    blend = {}
    for name, tensor in states[-1].items():
        total = torch.zeros(tensor.shape)
        for coefficient, state in zip(chain.coefficients(factors), states, strict=True):
            total = total.add(state[name].float(), alpha=coefficient)
        blend[name] = total.to(tensor.dtype)
    return blend


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "family",
    [
        pytest.param(
            "mixtral",
            marks=pytest.mark.brings("family", "Mixtral", "torch: blends, exactly as `ztom blend`"),
        ),
        pytest.param(
            "qwen3_moe",
            marks=pytest.mark.brings(
                "family", "Qwen3-MoE", "torch: blends, exactly as `ztom blend`"
            ),
        ),
        pytest.param(
            "gemma3",
            marks=pytest.mark.brings("family", "Gemma 3", "torch: blends, exactly as `ztom blend`"),
        ),
        pytest.param(
            "llava",
            marks=pytest.mark.brings("family", "LLaVA", "torch: blends, exactly as `ztom blend`"),
        ),
        pytest.param(
            "llama",
            marks=pytest.mark.brings("family", "Llama", "torch: blends, exactly as `ztom blend`"),
        ),
        pytest.param(
            "gpt2",
            marks=pytest.mark.brings("family", "GPT-2", "torch: blends, exactly as `ztom blend`"),
        ),
    ],
)
def test_load_then_blend_is_blend_then_load(
    tmp_path: Path, family: str, dtype: torch.dtype
) -> None:
    paths, states = steps(make_model(family, dtype=dtype), tmp_path)
    chain = open_chain(paths)
    engine = build_engine(TORCH, chain)
    assert isinstance(engine, TorchEngine)
    for factors in (FACTORS, (0.0, 0.0), (0.0, -1.0)):
        engine.blend(factors)
        loaded, expected = engine._model.state_dict(), own_blend(chain, states, factors)
        assert loaded.keys() == expected.keys()
        assert all(torch.equal(loaded[name], expected[name]) for name in expected)
    with stage_variant(chain, FACTORS, tmp_path / "variant") as staged:
        staged.publish()
    written = build_single(TORCH, tmp_path / "variant")
    engine.blend(FACTORS)
    assert isinstance(written, TorchEngine)
    again = written._model.state_dict()
    assert all(torch.equal(again[n], t) for n, t in engine._model.state_dict().items())
    prompts, short = ["The quick", "A chain of"], GenerationConfig(max_new_tokens=4)
    assert engine.generate(prompts, short) == written.generate(prompts, short)
    engine.close()
    written.close()


def test_a_headless_base_runs_in_the_engine_too(tmp_path: Path) -> None:
    model = make_model("llama")
    paths, states = steps(model, tmp_path)
    base = transformers.LlamaModel(model.config)
    base.load_state_dict({n.removeprefix("model."): t for n, t in states[0].items()
                          if n != "lm_head.weight"})  # fmt: skip
    base.save_pretrained(paths[0])
    chain = open_chain(paths)
    engine = build_engine(TORCH, chain)
    engine.blend(FACTORS)
    assert isinstance(engine, TorchEngine)
    expected = own_blend(chain, states, FACTORS)
    assert all(torch.equal(t, expected[n]) for n, t in engine._model.state_dict().items())
    engine.close()


def make_image_model(family: str) -> Any:
    torch.manual_seed(0)
    if family == "vit":
        return transformers.ViTForImageClassification(
            transformers.ViTConfig(
                hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
                image_size=16, patch_size=8, num_channels=1, num_labels=3,
            )
        )  # fmt: skip
    return transformers.ResNetForImageClassification(
        transformers.ResNetConfig(
            num_channels=1, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3
        )
    )


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(
            "vit",
            marks=pytest.mark.brings("family", "ViT", "torch; vLLM is refused and names torch"),
        ),
        pytest.param(
            "resnet",
            marks=pytest.mark.brings("family", "ResNet", "torch; vLLM is refused and names torch"),
        ),
    ],
)
def test_an_image_classifier_is_loaded_as_one(tmp_path: Path, family: str) -> None:
    model = make_image_model(family)
    paths = []
    for position in range(2):
        nudge(model, position)
        paths.append(tmp_path / str(position))
        model.save_pretrained(paths[-1])
    with pytest.raises(CapabilityError, match=r"is a classifier.*Set engine\.name: torch"):
        check_folder_fit(paths[0])  # what the vLLM engine does first
    chain = open_chain(paths)
    engine = build_engine(TORCH, chain)
    assert engine.info.capabilities == {Capability.VALUES, Capability.GRADIENT}
    images = torch.rand(2, 1, 16, 16)
    rows = [tuple(float(x) for x in image.reshape(-1)) for image in images]
    with torch.no_grad():
        expected = model.eval()(pixel_values=images).logits.double().numpy()
    np.testing.assert_allclose(engine.values(rows), expected, atol=1e-6)
    engine.blend((0.5,))
    assert np.abs(engine.values(rows) - expected).max() > 1e-3
    with pytest.raises(CapabilityError, match=r"got 5 numbers, expected 1 channels of"):
        engine.values([(0.0,) * 5])
    engine.close()


def test_a_classifier_of_tokens_is_refused_by_name(tmp_path: Path) -> None:
    model = make_model("llama")
    model.save_pretrained(tmp_path)
    rewrite(tmp_path, tensors_of(tmp_path), architectures=["LlamaForTokenClassification"])
    with pytest.raises(EngineError, match="LlamaForTokenClassification"):
        build_single(TORCH, tmp_path)


def test_buffers_that_models_compute_are_kept_in_files_and_not_needed(tmp_path: Path) -> None:
    """Causal masks and rotary frequencies in some members only."""
    paths, states = steps(make_model("gpt2"), tmp_path)
    masks = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 64, 64).tril() for i in range(2)}
    old = {"transformer.h.0.attn.masked_bias": torch.tensor(-1e4)}
    rewrite(paths[0], tensors_of(paths[0]) | old)
    rewrite(paths[2], tensors_of(paths[2]) | masks | old)
    chain = open_chain(paths)
    assert len(chain.notes) == 1
    engine = build_engine(TORCH, chain)
    engine.blend(FACTORS)
    assert isinstance(engine, TorchEngine)
    expected = own_blend(chain, states, FACTORS)
    assert all(torch.equal(t, expected[n]) for n, t in engine._model.state_dict().items())
    with stage_variant(chain, FACTORS, tmp_path / "variant") as staged:
        staged.publish()
    written = tensors_of(tmp_path / "variant")
    assert all(torch.equal(written[name], mask) for name, mask in (masks | old).items())
    card = (tmp_path / "variant" / "README.md").read_text()
    assert "attn.bias and 2 more are computed by the model and not blended; 3 of" in card
    assert json.loads((tmp_path / "variant" / "recipe.json").read_text())["notes"]
    engine.close()
