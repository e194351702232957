"""Tokenizers of a chain are compared by what they do: ids, texts, chat templates."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from saved_models import (
    add_tokens,
    edit_json,
    edit_tokenizer,
    keep_slow_files,
    open_members,
    save_model,
    sentencepiece_model,
)
from toys import CHAT_TEMPLATE, make_tokenizer
from transformers import AutoTokenizer

from ztom.engines.config import EngineConfig
from ztom.engines.prompts import PromptEncoder
from ztom.engines.torch_engine import TorchEngine
from ztom.errors import IncompatibleChainError
from ztom.settings import Settings
from ztom.variants.verify import verify_variant
from ztom.variants.write import stage_variant

_LLAMA = {
    "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>",
    "unk_token": "<unk>",
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, tokenizer = tmp_path_factory.mktemp("saved"), make_tokenizer(vocab_size=300)
    folders = [save_model(folder / name, seed=seed) for seed, name in enumerate(("base", "tuned"))]
    for path in folders:
        tokenizer.save_pretrained(path)
    return folders


@pytest.fixture
def pair(saved: list[Path], tmp_path: Path) -> list[Path]:
    return [Path(shutil.copytree(path, tmp_path / path.name)) for path in saved]


def check_variant(chain: Any, folder: Path, latest: Path) -> None:
    """The variant has the latest one's tokenizer, bytes and all, and verifies."""
    with stage_variant(chain, [0.5], folder) as staged:
        staged.publish()
    verify_variant(folder, share=1.0, settings=Settings())
    for path in latest.glob("*"):
        if path.suffix != ".safetensors" and path.name != "config.json":
            assert (folder / path.name).read_bytes() == path.read_bytes()


def test_an_added_padding_token_blends_and_is_named(pair: list[Path], tmp_path: Path) -> None:
    add_tokens(pair[1], pad_token="<|pad|>")
    chain = open_members(*pair)
    assert chain.notes == ("tokenizer: tuned (used) has 1 token(s) more than base: 300 '<|pad|>'",)
    check_variant(chain, tmp_path / "variant", pair[1])


def test_a_vocabulary_grown_inside_the_padding_blends(pair: list[Path]) -> None:
    add_tokens(pair[1], "quick brown", "<|tool|>")  # an ordinary word too: it splits texts anew
    assert open_members(*pair).notes == (
        "tokenizer: tuned (used) has 2 token(s) more than base: 300 'quick brown', 301 '<|tool|>'",
    )


def test_a_token_beyond_the_rows_is_named(pair: list[Path]) -> None:
    add_tokens(pair[1], *(f"<|{i}|>" for i in range(85)))
    assert open_members(*pair).notes[-1] == (
        "tokenizer: tokens of tuned (used) that have none of the 384 rows: 384 '<|84|>'"
    )


def test_a_token_that_only_an_earlier_member_has_is_named(pair: list[Path]) -> None:
    add_tokens(pair[0], "<|tool|>")
    assert open_members(*pair).notes == (
        "tokenizer: base has 1 token(s) more than tuned (used): 300 '<|tool|>'",
    )


@pytest.mark.parametrize("side", [0, 1])
def test_slow_vocabulary_files_beside_a_fast_one(
    pair: list[Path], tmp_path: Path, side: int
) -> None:
    keep_slow_files(pair[side])
    chain = open_members(*pair)
    assert chain.notes == ()
    check_variant(chain, tmp_path / "variant", pair[1])


@pytest.mark.parametrize("side", [0, 1])
def test_a_sentencepiece_model_and_what_was_made_of_it(
    pair: list[Path], tmp_path: Path, side: int
) -> None:
    model = sentencepiece_model()
    for folder in pair:
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer_config.json").write_text(json.dumps(_LLAMA))
        (folder / "tokenizer.model").write_bytes(model)
    AutoTokenizer.from_pretrained(pair[side]).save_pretrained(pair[side])
    assert (pair[side] / "tokenizer.json").is_file()
    chain = open_members(*pair)
    assert chain.notes == ()
    check_variant(chain, tmp_path / "variant", pair[1])


def test_a_tokenizer_that_was_saved_again_is_the_same(pair: list[Path]) -> None:
    def again(content: dict[str, Any]) -> None:
        content["truncation"] = {"direction": "Right", "max_length": 9, "strategy": "LongestFirst",
                                 "stride": 0}  # fmt: skip
        content["model"]["byte_fallback"] = False
        content["model"]["ignore_merges"] = False
        content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]

    edit_tokenizer(pair[0], again)
    assert open_members(*pair).notes == ()


def swap(first: int, second: int) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        vocabulary = content["model"]["vocab"]
        names = {index: token for token, index in vocabulary.items()}
        vocabulary[names[first]], vocabulary[names[second]] = second, first

    return change


@pytest.mark.abuse(29)
def test_other_ids_are_refused_and_shown(pair: list[Path]) -> None:
    edit_tokenizer(pair[1], swap(70, 71))
    with pytest.raises(IncompatibleChainError) as caught:
        open_members(*pair)
    message = str(caught.value)
    assert "differ: 2 ids stand for other tokens" in message
    names = {i: t for t, i in AutoTokenizer.from_pretrained(pair[0]).get_vocab().items()}
    assert f"70 {names[70]!r} / {names[71]!r}, 71 {names[71]!r} / {names[70]!r}" in message
    assert "allow_tokenizer_differences" in message  # two of three hundred may be placeholders


def test_the_first_ten_are_shown_and_another_vocabulary_cannot_be_allowed(
    pair: list[Path],
) -> None:
    def shift(content: dict[str, Any]) -> None:
        vocabulary = content["model"]["vocab"]
        for token, index in vocabulary.items():
            if index >= 100:
                vocabulary[token] = 100 + (index - 99) % 200

    edit_tokenizer(pair[1], shift)
    for allowed in (False, True):
        with pytest.raises(IncompatibleChainError, match="200 ids stand for other") as caught:
            open_members(*pair, allow_tokenizer_differences=allowed)
        assert str(caught.value).count(" / ") == 10
        assert "allow_tokenizer_differences" not in str(caught.value)


def test_renamed_placeholders_can_be_allowed(pair: list[Path], tmp_path: Path) -> None:
    add_tokens(pair[0], "<|reserved_0|>")
    add_tokens(pair[1], "<|finetune_pad|>")
    with pytest.raises(
        IncompatibleChainError, match=r"300 '<\|reserved_0\|>' / '<\|finetune_pad\|"
    ):
        open_members(*pair)
    chain = open_members(*pair, allow_tokenizer_differences=True)
    assert chain.notes == (
        "tokenizer: other tokens in base and tuned (used): "
        "300 '<|reserved_0|>' / '<|finetune_pad|>'",
    )
    check_variant(chain, tmp_path / "variant", pair[1])


def test_texts_that_are_split_differently_are_refused_and_can_be_allowed(
    pair: list[Path], tmp_path: Path
) -> None:
    edit_tokenizer(pair[1], lambda content: content["model"]["merges"].reverse())
    with pytest.raises(IncompatibleChainError, match="the same text becomes other ids") as caught:
        open_members(*pair)
    assert re.search(r"got .+: \d+ '.+ / \d+ '", str(caught.value))
    chain = open_members(*pair, allow_tokenizer_differences=True)
    assert chain.notes[0].startswith("tokenizer: base splits texts otherwise than tuned (used)")
    check_variant(chain, tmp_path / "variant", pair[1])


def test_special_tokens_around_a_text_are_named(pair: list[Path]) -> None:
    def begin(content: dict[str, Any]) -> None:
        content["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                     {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        }  # fmt: skip

    edit_tokenizer(pair[1], begin)
    assert open_members(*pair).notes == (
        "tokenizer: special tokens around a text: [] before and [] after it in base, "
        "[1] before and [] after it in tuned (used)",
    )


def test_chat_templates_that_differ_are_named_wherever_they_stand(
    pair: list[Path], tmp_path: Path
) -> None:
    template = pair[0] / "chat_template.jinja"
    assert template.read_text() == CHAT_TEMPLATE
    template.unlink()
    edit_json(pair[0] / "tokenizer_config.json", {"chat_template": CHAT_TEMPLATE})
    assert open_members(*pair).notes == ()
    (pair[1] / "chat_template.jinja").write_text(CHAT_TEMPLATE + "!")
    chain = open_members(*pair)
    (note,) = chain.notes
    assert note.startswith("chat template: ")
    assert note.endswith("in tuned (used)")
    check_variant(chain, tmp_path / "variant", pair[1])
    edit_json(pair[0] / "tokenizer_config.json", {"chat_template": None})
    assert open_members(*pair).notes[0].startswith("chat template: none in base, ")


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a c"]}, "added_tokens": []}',
        b"\xff\xfe",
    ],
)
def test_a_tokenizer_that_cannot_be_loaded_is_refused(pair: list[Path], content: bytes) -> None:
    (pair[1] / "tokenizer.json").write_bytes(content)
    with pytest.raises((IncompatibleChainError, ValueError), match="tokenizer"):
        open_members(*pair)


def test_a_pattern_that_goes_back_and_forth_ends(pair: list[Path], capfd: Any) -> None:
    def loop(content: dict[str, Any]) -> None:
        content["normalizer"] = {"type": "Replace", "pattern": {"Regex": "(.*)*x$"}, "content": ""}

    edit_tokenizer(pair[1], loop)
    started = time.monotonic()
    with pytest.raises(IncompatibleChainError, match="cannot be loaded"):
        open_members(*pair)
    assert time.monotonic() - started < 10


def test_no_code_of_a_tokenizer_is_run(pair: list[Path]) -> None:
    add_tokens(pair[1], pad_token="<|pad|>")
    marker = pair[1] / "ran"
    (pair[1] / "tokenization_own.txt").write_text(f"open({str(marker)!r}, 'w')")
    edit_json(pair[1] / "tokenizer_config.json", {"tokenizer_class": "OwnTokenizer"})
    assert len(open_members(*pair).notes) == 1
    assert not marker.exists()


def lora(folder: Path) -> Path:
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    folder.mkdir()
    tensors = {
        f"{name}.lora_A.weight": torch.ones(2, 64),
        f"{name}.lora_B.weight": torch.ones(64, 2),
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_an_adapter_with_a_tokenizer_brings_it_to_engines_and_variants(
    pair: list[Path], tmp_path: Path
) -> None:
    adapter = lora(tmp_path / "adapter")
    shutil.copy(pair[0] / "tokenizer.json", adapter)
    content = json.loads((pair[0] / "tokenizer_config.json").read_text())
    content["chat_template"] = "{{ messages[0]['content'] }} please"  # as transformers 4 wrote it
    (adapter / "tokenizer_config.json").write_text(json.dumps(content))
    chain = open_members(pair[0], adapter)
    (note,) = chain.notes
    assert note.endswith("in adapter (used)")
    engine = TorchEngine(EngineConfig(name="torch"), pair[0], chain)
    with stage_variant(chain, [0.0], tmp_path / "variant") as staged:
        staged.publish()
    assert not (tmp_path / "variant" / "chat_template.jinja").exists()
    encoder = PromptEncoder(tmp_path / "variant")
    searched = engine._encoder
    assert searched is not None
    assert encoder.decode(encoder.prompt_ids("a test")) == "a test please"
    assert searched.prompt_ids("a test") == encoder.prompt_ids("a test")


def test_an_adapter_without_a_tokenizer_has_its_base_s(pair: list[Path], tmp_path: Path) -> None:
    chain = open_members(pair[0], lora(tmp_path / "adapter"))
    assert chain.notes == ()
    with stage_variant(chain, [0.0], tmp_path / "variant") as staged:
        staged.publish()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "variant" / name).read_bytes() == (pair[0] / name).read_bytes()
    assert not (tmp_path / "variant" / "adapter_config.json").exists()
