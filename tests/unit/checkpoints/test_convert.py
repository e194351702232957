"""Pickled weights become safetensors, in a process of its own, or are refused."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_checkpoints import CONFIG, llama_tensors, write_checkpoint, write_lora

from ztom.checkpoints.checkpoint import open_checkpoint
from ztom.checkpoints.convert import convert_checkpoint
from ztom.errors import CheckpointError, ConfigError
from ztom.settings import Settings

SETTINGS = Settings()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder as transformers wrote it before safetensors, with tied weights in one storage."""
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "LICENSE").write_text("free")
    (folder / "training_args.bin").write_bytes(pickle.dumps("arguments"))
    return folder


def test_a_single_file(old: Path, tmp_path: Path) -> None:
    tensors = llama_tensors()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]  # one storage, as when tied
    torch.save(tensors, old / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pickled weights only.*ztom convert .*old NEW_FOLD"):
        open_checkpoint(str(old), settings=SETTINGS)
    done = convert_checkpoint(str(old), tmp_path / "new", settings=SETTINGS)
    assert done.converted == {"pytorch_model.bin": "model.safetensors"}
    assert done.kept == ("LICENSE", "config.json")
    assert done.left_out == {"training_args.bin": "a trainer's state"}
    written = load_file(tmp_path / "new" / "model.safetensors")
    assert written.keys() == tensors.keys()
    assert all(torch.equal(written[name], tensors[name]) for name in tensors)
    assert open_checkpoint(str(tmp_path / "new"), settings=SETTINGS).kind == "full"
    assert (tmp_path / "new" / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_shards(old: Path, tmp_path: Path) -> None:
    tensors = llama_tensors()
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save({name: tensors[name].to(torch.bfloat16) for name in part}, old / file)
        weight_map |= dict.fromkeys(part, file)
    index = old / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    done = convert_checkpoint(str(old), tmp_path / "new", settings=SETTINGS)
    assert sorted(done.converted.values()) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    opened = open_checkpoint(str(tmp_path / "new"), settings=SETTINGS)
    assert list(opened.tensors) == names
    assert opened.dtype is torch.bfloat16
    (old / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(
        CheckpointError, match="the shards are not those of pytorch_model.bin.index"
    ):
        convert_checkpoint(str(old), tmp_path / "cut", settings=SETTINGS)
    assert not (tmp_path / "cut").exists()


def test_an_adapter(tmp_path: Path) -> None:
    folder = write_lora(tmp_path / "old")
    weights = folder / "adapter_model.safetensors"
    tensors = load_file(weights)
    torch.save(tensors, folder / "adapter_model.bin")
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"ztom convert .*old NEW_FOLDER"):
        open_checkpoint(str(folder), settings=SETTINGS)
    convert_checkpoint(str(folder), tmp_path / "new", settings=SETTINGS)
    opened = open_checkpoint(str(tmp_path / "new"), settings=SETTINGS)
    assert (opened.kind, set(opened.tensors)) == ("adapter", set(tensors))


class Command:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, (f"touch {self.mark}",))


@pytest.mark.abuse(24, 25)
def test_code_in_a_pickle_is_not_run(old: Path, tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1), "x": Command(tmp_path / "mark")}, old / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"cannot be converted.*UnpicklingError"):
        convert_checkpoint(str(old), tmp_path / "new", settings=SETTINGS)
    assert not (tmp_path / "mark").exists()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"w": torch.zeros(1), "epoch": 3}, "got epoch beside tensors"),
        (torch.zeros(1), "got it holds no tensors"),
        ({}, "got it holds no tensors"),
    ],
)
def test_more_than_tensors_is_refused(
    content: object, reason: str, old: Path, tmp_path: Path
) -> None:
    torch.save(content, old / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=reason):
        convert_checkpoint(str(old), tmp_path / "new", settings=SETTINGS)


def test_weights_that_a_training_script_put_one_level_down(old: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": llama_tensors(), "epoch": 3}, old / "pytorch_model.bin")
    done = convert_checkpoint(str(old), tmp_path / "new", settings=SETTINGS)
    assert done.tensors == len(llama_tensors())


def test_what_is_no_pickle_of_weights_ends_its_process_alone(old: Path, tmp_path: Path) -> None:
    (old / "pytorch_model.bin").write_bytes(b"\x80\x04N." * 10)
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin cannot be"):
        convert_checkpoint(str(old), tmp_path / "new", settings=SETTINGS)


def test_nothing_is_converted_twice_or_over_something(old: Path, tmp_path: Path) -> None:
    torch.save(llama_tensors(), old / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="is there already"):
        convert_checkpoint(str(old), old, settings=SETTINGS)
    fine = write_checkpoint(tmp_path / "fine")
    shutil.copy(old / "pytorch_model.bin", fine)
    with pytest.raises(CheckpointError, match="nothing to convert.*Use it as it is"):
        convert_checkpoint(str(fine), tmp_path / "new", settings=SETTINGS)


def test_a_link_that_leads_out_is_not_read(old: Path, tmp_path: Path) -> None:
    torch.save(llama_tensors(), tmp_path / "elsewhere.bin")
    (old / "pytorch_model.bin").symlink_to(tmp_path / "elsewhere.bin")
    with pytest.raises(CheckpointError, match="a link that leads out"):
        convert_checkpoint(str(old), tmp_path / "new", settings=SETTINGS)
