"""A folder that `transformers.Trainer` wrote is a chain."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from toy_checkpoints import write_checkpoint, write_lora
from toys import make_config, make_tokenizer
from typer.testing import CliRunner

from ztom.blending.chain import load_chain
from ztom.blending.chain_file import read_chain_file
from ztom.blending.trainer_folder import read_trainer_folder
from ztom.cli.main import app
from ztom.errors import ChainError, ConfigError
from ztom.settings import Settings


class Examples(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = (torch.arange(8) * 7 + index) % 300 + 3
        return {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three checkpoints and the final model, as the Trainer itself leaves them."""
    out = tmp_path_factory.mktemp("trained") / "run"
    torch.manual_seed(0)
    trainer = transformers.Trainer(
        model=transformers.AutoModelForCausalLM.from_config(make_config("llama")),
        args=transformers.TrainingArguments(
            output_dir=str(out),
            max_steps=12,
            save_steps=4,
            per_device_train_batch_size=2,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=Examples(),
        processing_class=make_tokenizer(),
    )
    trainer.train()
    trainer.save_model()
    return out


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def test_steps_are_in_the_order_of_their_numbers(run: Path) -> None:
    result = read_trainer_folder(run)
    assert [tag for _, tag in result.members] == ["checkpoint-4", "checkpoint-8", "checkpoint-12"]
    assert not result.has_base


def test_what_is_not_in_the_chain_is_named(run: Path) -> None:
    left_out = read_trainer_folder(run).left_out
    assert left_out["."] == "the final model, the same weights as checkpoint-12"
    for name in ("optimizer.pt", "scheduler.pt", "trainer_state.json", "training_args.bin"):
        assert left_out[f"checkpoint-*/{name}"] == "a trainer's state"


def test_a_checkpoint_that_was_cut_off_is_left_out(copied: Path) -> None:
    weights = copied / "checkpoint-8" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (copied / "checkpoint-16").mkdir()
    (copied / "checkpoint-16" / "config.json").write_text("{}")
    result = read_trainer_folder(copied)
    assert [tag for _, tag in result.members] == ["checkpoint-4", "checkpoint-12"]
    assert "checkpoint-8" in result.left_out
    assert "holds no weights" in result.left_out["checkpoint-16"]


def test_a_final_model_that_is_no_checkpoint_ends_the_chain(copied: Path) -> None:
    shutil.rmtree(copied / "checkpoint-12")
    tags = [tag for _, tag in read_trainer_folder(copied).members]
    assert tags == ["checkpoint-4", "checkpoint-8", "final"]


def test_a_base_comes_first_and_the_folder_is_a_chain_by_itself(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = str(run / "checkpoint-4")
    assert read_trainer_folder(run, base=base).members[0] == (base, "base")
    with caplog.at_level(logging.WARNING):
        chain = load_chain(read_chain_file(run), settings=Settings())
    assert chain.tags == ("checkpoint-4", "checkpoint-8", "checkpoint-12")
    assert "the same weights as checkpoint-12" in caplog.text


@pytest.mark.parametrize(("named", "begins"), [("base", None), ("acme/base", "hf://acme/base")])
def test_adapters_say_what_they_were_trained_from(
    named: str, begins: str | None, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    for step in (10, 9, 100):
        folder = write_lora(out / f"checkpoint-{step}", seed=step)
        config = json.loads((folder / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = str(tmp_path / "base") if named == "base" else named
        (folder / "adapter_config.json").write_text(json.dumps(config))
    write_checkpoint(tmp_path / "base")
    members = read_trainer_folder(out).members
    assert members[0] == (begins or str(tmp_path / "base"), "base")
    assert [tag for _, tag in members[1:]] == ["checkpoint-9", "checkpoint-10", "checkpoint-100"]


def test_adapters_without_a_base_that_is_here_ask_for_it(tmp_path: Path) -> None:
    write_lora(tmp_path / "run" / "checkpoint-1")
    config = tmp_path / "run" / "checkpoint-1" / "adapter_config.json"
    for name in (None, "somewhere/else/base"):
        content = {**json.loads(config.read_text()), "base_model_name_or_path": name}
        config.write_text(json.dumps(content))
        with pytest.raises(ChainError, match="--base"):
            read_trainer_folder(tmp_path / "run")


def test_a_single_checkpoint_is_no_chain(copied: Path) -> None:
    for name in ("checkpoint-4", "checkpoint-8"):
        shutil.rmtree(copied / name)
    with pytest.raises(ChainError, match="got checkpoint-12, expected two checkpoints.*--base"):
        read_trainer_folder(copied)


def test_the_command_writes_a_file_that_is_a_chain(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copied.parent)
    done = CliRunner().invoke(app, ["chain", "run"])
    assert done.exit_code == 0, done.output
    assert "chain.yaml: checkpoint-4, checkpoint-8, checkpoint-12" in done.output
    assert "left out: run (the final model, the same weights as checkpoint-12)" in done.output
    written = (copied.parent / "chain.yaml").read_text()
    assert "reference: run/checkpoint-12" in written
    chain = load_chain(read_chain_file(copied.parent / "chain.yaml"), settings=Settings())
    assert chain.tags == ("checkpoint-4", "checkpoint-8", "checkpoint-12")
    again = CliRunner().invoke(app, ["chain", "run"])
    assert isinstance(again.exception, ConfigError)
    assert "is not overwritten" in str(again.exception)


def test_a_folder_of_something_else_is_no_chain(tmp_path: Path) -> None:
    with pytest.raises(ChainError, match="a folder without checkpoint-N"):
        read_chain_file(tmp_path)
