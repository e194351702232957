"""A checkpoint whose tensors do not fit the model is refused, never filled up with random ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from toys import FAMILIES, make_chain, make_config, make_tokenizer, save_steps

from ztom.blending.chain import load_chain
from ztom.blending.chain_file import ChainConfig
from ztom.engines.build import build_engine, build_single
from ztom.engines.config import EngineConfig
from ztom.engines.model_fit import check_adapter_fit, check_chain_fit, check_folder_fit
from ztom.errors import AdapterUnsupportedError, EngineError
from ztom.settings import Settings

TORCH = EngineConfig(name="torch", dtype="float32")
State = dict[str, torch.Tensor]
Q_PROJ = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chain(tmp_path_factory.mktemp("llama"), members=1)[0]


def spoiled(source: Path, folder: Path, spoil: Callable[[State], object]) -> Path:
    """A copy of a checkpoint with some of its tensors changed."""
    shutil.copytree(source, folder)
    state = load_file(folder / "model.safetensors")
    spoil(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def lack(state: State) -> None:
    del state[Q_PROJ]


def rename(state: State) -> None:
    state["model.layers.1.self_attn.query.weight"] = state.pop(Q_PROJ)


def add_layer(state: State) -> None:
    state["model.layers.2.mlp.up_proj.weight"] = torch.zeros(96, 64)


def shorten(state: State) -> None:
    state["model.norm.weight"] = state["model.norm.weight"][:-1].clone()


SPOILED = [
    (lack, r"1 missing: model\.layers\.1\.self_attn\.q_proj\.weight"),
    (rename, r"1 missing: .*q_proj\.weight; 1 unexpected: .*self_attn\.query\.weight"),
    (add_layer, r"1 unexpected: model\.layers\.2\.mlp\.up_proj\.weight"),
    (shorten, r"1 of another shape: model\.norm\.weight \[63\] \(the model has \[64\]\)"),
]


@pytest.mark.abuse(112)
@pytest.mark.parametrize(("spoil", "message"), SPOILED)
def test_torch_refuses_tensors_that_do_not_fit(tmp_path: Path, llama: Path, spoil, message) -> None:
    folder = spoiled(llama, tmp_path / "bad", spoil)
    with pytest.raises(EngineError, match=message) as refused:
        build_single(TORCH, folder)
    assert str(folder) in str(refused.value)
    assert refused.value.fix


@pytest.mark.abuse(112)
@pytest.mark.parametrize(("spoil", "message"), SPOILED)
def test_the_check_before_vllm_refuses_the_same(
    tmp_path: Path, llama: Path, spoil, message
) -> None:
    with pytest.raises(EngineError, match=message):
        check_folder_fit(spoiled(llama, tmp_path / "bad", spoil))


@pytest.mark.parametrize(("spoil", "message"), SPOILED)
def test_a_chain_of_them_is_refused_too(tmp_path: Path, llama: Path, spoil, message) -> None:
    members = [spoiled(llama, tmp_path / name, spoil) for name in ("base", "latest")]
    config = ChainConfig.model_validate({"checkpoints": [str(path) for path in members]})
    chain = load_chain(config, settings=Settings())
    with pytest.raises(EngineError, match=message):
        check_chain_fit(members[1], chain)
    with pytest.raises(EngineError, match=message):
        build_engine(TORCH, chain)


def test_many_keys_are_counted_and_the_first_are_named(tmp_path: Path, llama: Path) -> None:
    def lose_a_layer(state: State) -> None:
        for name in [name for name in state if ".layers.1.mlp." in name or "o_proj" in name]:
            del state[name]
        for name in [name for name in state if "k_proj" in name or "v_proj" in name]:
            del state[name]

    folder = spoiled(llama, tmp_path / "bad", lose_a_layer)
    with pytest.raises(EngineError, match=r"9 missing: .*layers\.0.* and 4 more"):
        build_single(TORCH, folder)


def test_a_classifier_without_its_head_is_refused(tmp_path: Path) -> None:
    config = make_config("llama")
    config.num_labels = 3
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    (whole,) = save_steps(model, make_tokenizer(), tmp_path / "whole", members=1, step=0.5)
    build_single(TORCH, whole).close()
    folder = spoiled(whole, tmp_path / "bad", lambda state: state.pop("score.weight"))
    with pytest.raises(EngineError, match=r"1 missing: score\.weight"):
        build_single(TORCH, folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_fits_as_it_is_saved_and_with_buffers_that_are_computed(
    tmp_path: Path, family: str
) -> None:
    """Tied heads, and buffers that older versions of transformers stored, are no fault."""
    (folder,) = make_chain(tmp_path / "chain", family, members=1)
    check_folder_fit(folder)

    def add_buffers(state: State) -> None:
        state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(16)

    old = spoiled(folder, tmp_path / "old", add_buffers)
    check_folder_fit(old)
    build_single(TORCH, old).close()


def test_computed_buffers_of_a_chain_are_left_out_of_the_blend(tmp_path: Path) -> None:
    def add_buffers(state: State) -> None:
        state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(16)

    paths = make_chain(tmp_path / "chain", members=2)
    old = [spoiled(path, tmp_path / path.name, add_buffers) for path in paths]
    config = ChainConfig.model_validate({"checkpoints": [str(path) for path in old]})
    engine = build_engine(TORCH, load_chain(config, settings=Settings()))
    engine.blend((0.5,))
    assert engine.factors == (0.5,)
    engine.close()


def test_a_second_file_of_weights_is_refused_before_vllm_loads_it_too(
    tmp_path: Path, llama: Path
) -> None:
    """vLLM reads every safetensors file where there is no index; the last one wins."""
    folder = shutil.copytree(llama, tmp_path / "two")
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    with pytest.raises(EngineError, match=r"got other\.safetensors, expected model\.safetensors"):
        check_folder_fit(folder)
    weight_map = dict.fromkeys(load_file(folder / "model.safetensors"), "model.safetensors")
    index = json.dumps({"metadata": {}, "weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(index)
    check_folder_fit(folder)


def test_an_architecture_that_transformers_does_not_know_is_refused(
    tmp_path: Path, llama: Path
) -> None:
    folder = shutil.copytree(llama, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["NoSuchModel"]}))
    with pytest.raises(EngineError, match=r"architectures NoSuchModel .*a class of transformers"):
        check_folder_fit(folder)


def test_a_tied_head_with_numbers_of_its_own_is_refused(tmp_path: Path) -> None:
    """vLLM ties by the config and would leave the stored head out."""
    (tied,) = make_chain(tmp_path / "chain", "llama-tied", members=1)

    def store_head(state: State) -> None:
        state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()

    def store_other_head(state: State) -> None:
        state["lm_head.weight"] = state["model.embed_tokens.weight"] + 1

    check_folder_fit(spoiled(tied, tmp_path / "same", store_head))
    with pytest.raises(EngineError, match=r"ties lm_head\.weight to model\.embed_tokens\.weight"):
        check_folder_fit(spoiled(tied, tmp_path / "other", store_other_head))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("model.layers.9.self_attn.q_proj", r"adapts model\.layers\.9\.self_attn\.q_proj"),
        ("layers.1.self_attn.q_proj", r"expected base_model\.model\.model\.layers\.1"),
    ],
)
def test_an_adapter_of_modules_that_the_base_lacks_is_refused(
    tmp_path: Path, llama: Path, module: str, message: str
) -> None:
    def write(name: str, module: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        tensors = {
            f"base_model.model.{module}.lora_A.weight": torch.ones(2, 64),
            f"base_model.model.{module}.lora_B.weight": torch.ones(64, 2),
        }
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        return folder

    check_adapter_fit(write("good", Q_PROJ.removesuffix(".weight")), llama)
    with pytest.raises(AdapterUnsupportedError, match=message):
        check_adapter_fit(write("bad", module), llama)
