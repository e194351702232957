"""Folders as trainers and other people's tools leave them: read, or refused by name."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from foreign_chains import make_model, rewrite, tensors_of
from safetensors.torch import save
from toy_checkpoints import CONFIG, llama_tensors, write_checkpoint

from ztom.blending.chain import Chain, load_chain
from ztom.blending.chain_file import ChainConfig
from ztom.checkpoints.checkpoint import Checkpoint, open_checkpoint, open_folder
from ztom.checkpoints.fetch import fetch_folder
from ztom.checkpoints.other_files import find_other_files
from ztom.errors import CheckpointError
from ztom.settings import Settings
from ztom.variants.verify import verify_variant
from ztom.variants.write import stage_variant

SETTINGS = Settings()
INDEX = "model.safetensors.index.json"
MARK = "raise SystemExit('this was run')\n"


def opened(folder: Path, *, packed: bool) -> Checkpoint:
    """The folder as it lies, or as somebody uploads it: as a tar."""
    if not packed:
        return open_checkpoint(str(folder), settings=SETTINGS)
    with tarfile.open(folder.with_suffix(".tar"), "w") as archive:
        archive.add(folder, arcname="checkpoint")
    return open_checkpoint(str(folder.with_suffix(".tar")), settings=SETTINGS)


def chain_of(*folders: Path) -> Chain:
    config = ChainConfig.model_validate({"checkpoints": [str(folder) for folder in folders]})
    return load_chain(config, settings=SETTINGS)


def write(chain: Chain, factors: list[float], folder: Path) -> Path:
    with stage_variant(chain, factors, folder) as staged:
        staged.publish()
    verify_variant(folder, share=1, settings=SETTINGS)
    return folder


BOTH = pytest.mark.parametrize("packed", [False, True], ids=["folder", "tar"])


@pytest.mark.abuse(26)
@BOTH
def test_scripts_of_trainers_are_named_and_never_run(tmp_path: Path, packed: bool) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint-500")
    for name in ("zero_to_fp32.py", "train.py", "modeling_x.py"):
        (folder / name).write_text(MARK)
    checkpoint = opened(folder, packed=packed)
    left_out = find_other_files(checkpoint, max_bytes=2**20).left_out
    assert left_out["zero_to_fp32.py"] == "a trainer's state"
    assert {left_out["train.py"], left_out["modeling_x.py"]} == {"code"}
    assert not [name for name in checkpoint.used_files if name.endswith(".py")]


@BOTH
def test_auto_map_of_a_family_that_ships_is_passed_over(tmp_path: Path, packed: bool) -> None:
    auto_map = {"AutoModelForCausalLM": "modeling_x.X", "AutoConfig": "modeling_x.C"}
    folder = write_checkpoint(tmp_path / "own", config=CONFIG | {"auto_map": auto_map})
    (folder / "modeling_x.py").write_text(MARK)
    tokenizer = {"tokenizer_class": "LlamaTokenizer", "auto_map": {"AutoTokenizer": ["x.T", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    checkpoint = opened(folder, packed=packed)
    assert "auto_map" not in checkpoint.config
    assert [note.split(": ")[1].split(" asks")[0] for note in checkpoint.notes] == [
        "config.json",
        "tokenizer_config.json",
    ]


def test_a_blend_does_not_ask_for_code_that_it_does_not_hold(tmp_path: Path) -> None:
    config = CONFIG | {"auto_map": {"AutoModel": "modeling_x.X"}}
    folders = [write_checkpoint(tmp_path / n, config=config) for n in ("0", "1")]
    variant = write(chain_of(*folders), [0.0], tmp_path / "v")
    assert "auto_map" not in json.loads((variant / "config.json").read_text())
    assert "the class that transformers ships is used" in (variant / "README.md").read_text()


@BOTH
def test_an_index_may_list_a_tied_head_that_nobody_stores(tmp_path: Path, packed: bool) -> None:
    config = {key: value for key, value in CONFIG.items() if key != "tie_word_embeddings"}
    folder = write_checkpoint(tmp_path / "tied", llama_tensors(tied=True), config=config, shards=2)
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["lm_head.weight"] = "model-00001-of-00002.safetensors"
    (folder / INDEX).write_text(json.dumps(index))
    checkpoint = opened(folder, packed=packed)
    assert checkpoint.tied
    assert "lm_head.weight, which no file holds" in checkpoint.notes[0]
    untied = config | {"tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(untied))
    with pytest.raises(CheckpointError, match="there is no output head"):
        open_checkpoint(str(folder), settings=SETTINGS)


PACKED = {
    "GPTQ or AWQ": {"mlp.up_proj.qweight": torch.ones(2, 2, dtype=torch.int32)},
    "bitsandbytes": {"mlp.up_proj.weight.absmax": torch.ones(2)},
    "compressed-tensors": {"mlp.up_proj.weight_packed": torch.ones(2, 2, dtype=torch.int32)},
    "fp8": {"mlp.up_proj.weight": torch.ones(2, 2).to(torch.float8_e4m3fn)},
    "mxfp4": {"mlp.experts.gate_up_proj_blocks": torch.ones(2, 2, dtype=torch.uint8)},
    "HQQ": {"mlp.up_proj.W_q": torch.ones(2, 2, dtype=torch.uint8)},
}


@pytest.mark.abuse(113)
@BOTH
@pytest.mark.parametrize("stated", [False, True])
@pytest.mark.parametrize("method", PACKED)
def test_packed_weights_are_refused_by_the_name_of_their_method(
    tmp_path: Path, method: str, stated: bool, packed: bool
) -> None:
    extra = {f"model.layers.0.{name}": tensor for name, tensor in PACKED[method].items()}
    config = CONFIG | ({"quantization_config": {"quant_method": "x"}} if stated else {})
    folder = write_checkpoint(tmp_path / "packed", llama_tensors() | extra, config=config)
    with pytest.raises(CheckpointError, match=rf"is quantised \({method}\)") as refused:
        opened(folder, packed=packed)
    assert next(iter(extra)) in str(refused.value)
    assert ("FineGrainedFP8Config(dequantize=True)" in str(refused.value)) == (method == "fp8")


@pytest.mark.abuse(113)
def test_an_unknown_method_is_told_by_its_integers(tmp_path: Path) -> None:
    tensors = llama_tensors()
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = tensors[name].to(torch.int8)
    config = CONFIG | {"quantization_config": {"quant_method": "new"}}
    folder = write_checkpoint(tmp_path / "new", tensors, config=config)
    with pytest.raises(CheckpointError, match=rf"quantised \(new\): got {name} in int8"):
        open_checkpoint(str(folder), settings=SETTINGS)


@BOTH
def test_a_stale_quantization_config_is_passed_over(tmp_path: Path, packed: bool) -> None:
    stale = CONFIG | {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    folder = write_checkpoint(tmp_path / "merged", config=stale, shards=2)
    checkpoint = opened(folder, packed=packed)
    assert "quantization_config (bitsandbytes) in config.json is stale" in checkpoint.notes[0]
    settings = Settings(cache_dir=tmp_path / "cache")
    copy = fetch_folder(checkpoint, None, settings)
    assert copy != folder
    assert "quantization_config" not in json.loads((copy / "config.json").read_text())
    assert open_folder(copy, settings=settings).tensors.keys() == checkpoint.tensors.keys()


def test_a_blend_over_a_stale_one_says_nothing_of_packing(tmp_path: Path) -> None:
    stale = CONFIG | {"quantization_config": {"quant_method": "gptq"}}
    folders = [write_checkpoint(tmp_path / "0"), write_checkpoint(tmp_path / "1", config=stale)]
    variant = write(chain_of(*folders), [0.5], tmp_path / "v")
    assert "quantization_config" not in json.loads((variant / "config.json").read_text())


def prefixed(source: Path, folder: Path, prefix: str) -> Path:
    shutil.copytree(source, folder)
    return rewrite(folder, {f"{prefix}{n}": t for n, t in tensors_of(source).items()})


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama") / "plain"
    make_model("llama").save_pretrained(folder)
    return folder


@BOTH
@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_a_prefix_of_every_name_is_taken_away(
    tmp_path: Path, llama: Path, prefix: str, packed: bool
) -> None:
    folder = prefixed(llama, tmp_path / "wrapped", prefix)
    checkpoint, plain = (
        opened(folder, packed=packed),
        open_checkpoint(str(llama), settings=SETTINGS),
    )
    assert checkpoint.tensors.keys() == plain.tensors.keys()
    assert checkpoint.tied
    for name in plain.tensors:
        assert torch.equal(checkpoint.read(name), plain.read(name))
    assert checkpoint.notes[0].endswith(f"{prefix} is taken away before every tensor's name")
    settings = Settings(cache_dir=tmp_path / "cache")
    copy = fetch_folder(checkpoint, None, settings)
    assert {n: t.tolist() for n, t in tensors_of(copy).items()} == {
        n: t.tolist() for n, t in tensors_of(llama).items()
    }
    (copy / "model.safetensors").write_bytes(b"damaged")
    assert tensors_of(fetch_folder(checkpoint, None, settings)).keys() == plain.tensors.keys()


def test_a_chain_with_wrapped_members_blends_as_one_without(tmp_path: Path, llama: Path) -> None:
    other = rewrite(
        shutil.copytree(llama, tmp_path / "other"),
        {name: tensor + 0.5 for name, tensor in tensors_of(llama).items()},
    )
    wrapped = prefixed(other, tmp_path / "wrapped", "_orig_mod.")
    first = write(chain_of(llama, wrapped), [0.25], tmp_path / "v0")
    second = write(chain_of(llama, other), [0.25], tmp_path / "v1")
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_wrappers_that_are_not_everywhere_are_refused(tmp_path: Path, llama: Path) -> None:
    def spoil(name: str, rename) -> Path:
        folder = shutil.copytree(llama, tmp_path / name)
        return rewrite(folder, {rename(n): t for n, t in tensors_of(llama).items()})

    some = spoil("some", lambda n: f"_orig_mod.{n}" if "layers" in n else n)
    inner = spoil("inner", lambda n: n.replace("layers.0.", "layers.0._orig_mod."))
    misfit = spoil("misfit", lambda n: f"module.{n.replace('mlp', 'ffn')}")
    for folder in (some, inner, misfit):
        with pytest.raises(CheckpointError, match=r"compiled or wrapped.*got \d+ of \d+ names"):
            open_checkpoint(str(folder), settings=SETTINGS)


def test_names_that_nobody_knows_are_left_as_they_are(tmp_path: Path) -> None:
    tensors = {f"module.{n}": t for n, t in llama_tensors().items()}
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "my-own"}')
    (folder / "model.safetensors").write_bytes(save(tensors))
    assert open_checkpoint(str(folder), settings=SETTINGS).tensors.keys() == tensors.keys()


def test_weights_are_readable_like_the_rest(tmp_path: Path) -> None:
    folders = [write_checkpoint(tmp_path / n) for n in ("0", "1")]
    variant = write(chain_of(*folders), [0.5], tmp_path / "v")
    probe = tmp_path / "probe"
    probe.touch()
    modes = {path.name: path.stat().st_mode for path in variant.iterdir()}
    assert set(modes.values()) == {probe.stat().st_mode}, modes


def test_what_is_packed_into_a_tar_is_the_same(tmp_path: Path) -> None:
    """A folder that is accepted where it lies is accepted as an upload, with the same content."""
    folder = write_checkpoint(tmp_path / "same")
    (folder / "train.py").write_text(MARK)
    assert opened(folder, packed=True).digest == opened(folder, packed=False).digest
