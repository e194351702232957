"""Configurations of a chain are compared by what transformers makes of them."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from saved_models import DROP, OLD_LLAMA, TRAINERS, edit_config, edit_json, open_members, save_model
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, Mamba2Config

from ztom.blending.apply import blend_tensor, file_reader
from ztom.blending.plan import plan_blend
from ztom.checkpoints.config_meaning import config_meanings, is_read
from ztom.errors import CheckpointError, IncompatibleChainError
from ztom.settings import Settings
from ztom.variants.variant import read_variant
from ztom.variants.verify import verify_variant
from ztom.variants.write import stage_variant

HARMLESS: dict[str, dict[str, Any]] = {
    "an older transformers": OLD_LLAMA,
    "unsloth": TRAINERS,
    "dropout": {"attention_dropout": 0.1, "initializer_range": 0.01},
    "gradient checkpointing": {"gradient_checkpointing": True, "pretraining_tp": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("saved")
    return [save_model(folder / name, seed=seed) for seed, name in enumerate(("base", "tuned"))]


@pytest.fixture
def pair(saved: list[Path], tmp_path: Path) -> list[Path]:
    return [Path(shutil.copytree(path, tmp_path / path.name)) for path in saved]


def check_blend(folders: list[Path], **options: object) -> None:
    """A blend of two follows the formula, and at zero is the latest, bit for bit."""
    chain = open_members(*folders, **options)
    before, after = (load_file(folder / "model.safetensors") for folder in folders)
    for factors in ([0.0], [0.25]):
        for plan in plan_blend(chain, factors).tensors:
            blend = blend_tensor(plan, file_reader(chain))
            want = after[plan.name].double()
            want = want + factors[0] * (want - before[plan.name].double())
            assert torch.allclose(blend.double(), want, atol=1e-6)
            assert factors[0] or torch.equal(blend, after[plan.name])


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("case", HARMLESS)
def test_what_does_not_change_the_function_blends(pair: list[Path], case: str, side: int) -> None:
    edit_config(pair[side], **HARMLESS[case])
    check_blend(pair)
    assert open_members(*pair).notes == ()


@pytest.mark.parametrize("side", [0, 1])
def test_defaults_that_a_newer_transformers_writes_out_change_nothing(
    pair: list[Path], side: int
) -> None:
    everything = AutoConfig.from_pretrained(pair[side]).to_json_string(use_diff=False)
    assert {"head_dim", "rope_parameters", "attention_bias", "id2label"} <= json.loads(
        everything
    ).keys()
    (pair[side] / "config.json").write_text(everything)
    edit_config(pair[side], transformers_version="9.0.0")
    edit_config(pair[1 - side], **OLD_LLAMA)
    check_blend(pair)
    assert open_members(*pair).notes == ()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            {"rope_parameters": DROP, "rope_scaling": {"type": "linear", "factor": 2.0}},
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
        ),
        ({"rope_parameters": DROP, "rope_scaling": {"rope_type": "default"}}, {}),
        ({"eos_token_id": [2]}, {"eos_token_id": 2}),
    ],
)
def test_two_notations_of_one_thing_are_no_difference(
    pair: list[Path], before: dict[str, Any], after: dict[str, Any]
) -> None:
    edit_config(pair[0], **before)
    edit_config(pair[1], **after)
    check_blend(pair)
    assert open_members(*pair).notes == ()


@pytest.mark.parametrize(
    "family", ["qwen2_5_vl", "gemma3", "llava", "mixtral", "deepseek_v3", "bert", "t5", "vit"]
)
def test_every_default_written_out_means_the_same_in_every_family(family: str) -> None:
    config = CONFIG_MAPPING[family]()
    short, full = (json.loads(config.to_json_string(use_diff=diff)) for diff in (True, False))
    assert len(full) > len(short)
    before, after = config_meanings([short, full])
    assert before == after


def test_a_config_that_transformers_saves_again_means_the_same(pair: list[Path]) -> None:
    edit_config(pair[0], **OLD_LLAMA)
    AutoConfig.from_pretrained(pair[0]).save_pretrained(pair[1])
    edit_config(pair[1], dtype="float32")
    check_blend(pair)


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"eos_token_id": [2, 7]}, "config eos_token_id: 2 in base, [2, 7] in tuned (used)"),
        ({"bos_token_id": 3}, "config bos_token_id: 1 in base, 3 in tuned (used)"),
        ({"pad_token_id": None}, "config pad_token_id: 0 in base, nothing in tuned (used)"),
        (
            {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}},
            "config id2label: nothing in base, {0: 'no', 1: 'yes'} in tuned (used)",
        ),
        (
            {"max_position_embeddings": 512},
            "config max_position_embeddings: 256 in base, 512 in tuned (used)",
        ),
        ({"temperature": 0.7}, "config temperature: nothing in base, 0.7 in tuned (used)"),
        ({"our_note": "v2"}, "config our_note: nothing in base, 'v2' in tuned (used)"),
    ],
)
def test_what_changes_answers_is_named_and_the_latest_holds(
    pair: list[Path], tmp_path: Path, changes: dict[str, Any], note: str
) -> None:
    edit_config(pair[1], **changes)
    check_blend(pair)
    chain = open_members(*pair)
    assert chain.notes == (note,)
    with stage_variant(chain, [0.5], tmp_path / "variant") as staged:
        written = json.loads((staged.folder / "config.json").read_text())
        assert written == json.loads((pair[1] / "config.json").read_text())
        assert staged.recipe.notes == (note,)


def test_generation_settings_that_differ_are_named(pair: list[Path]) -> None:
    edit_json(pair[1] / "generation_config.json", {"eos_token_id": [2, 9]})
    assert open_members(*pair).notes == (
        "generation_config eos_token_id: 2 in base, [2, 9] in tuned (used)",
    )
    (pair[0] / "generation_config.json").unlink()  # then it follows from config.json
    assert open_members(*pair).notes == ()
    assert open_members(pair[1], pair[0]).notes == ("generation_config: none in base (used)",)


def test_long_values_that_differ_at_the_end_are_named(pair: list[Path]) -> None:
    for last, folder in enumerate(pair):
        edit_json(folder / "generation_config.json", {"suppress_tokens": [*range(90), last]})
    (note,) = open_members(*pair).notes
    assert note.startswith("generation_config suppress_tokens: [0, 1, 2, ")
    assert note.endswith("... in tuned (used)")


def test_a_difference_is_named_once_for_all_members(pair: list[Path], tmp_path: Path) -> None:
    third = Path(shutil.copytree(pair[1], tmp_path / "third"))
    edit_config(third, eos_token_id=9)
    chain = open_members(*pair, third)
    assert chain.notes == ("config eos_token_id: 2 in base, tuned, 9 in third (used)",)


FUNCTION: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "rms_norm_eps": ("llama", {"rms_norm_eps": 1e-5}, "rms_norm_eps", "1e-06 / 1e-05"),
    "theta": (
        "llama",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
        "rope_parameters.rope_theta",
        "10000.0 / 500000.0",
    ),
    "theta, old notation": (
        "llama",
        {"rope_parameters": DROP, "rope_theta": 5e5},
        "rope_parameters.rope_theta",
        "10000.0 / 500000.0",
    ),
    "hidden_act": ("llama", {"hidden_act": "gelu"}, "hidden_act", "'silu' / 'gelu'"),
    "sliding window": ("gemma2", {"sliding_window": 64}, "sliding_window", "128 / 64"),
    "soft cap": (
        "gemma2",
        {"final_logit_softcapping": 20.0},
        "final_logit_softcapping",
        "30.0 / 20.0",
    ),
    "heads": ("llama", {"num_attention_heads": 4}, "num_attention_heads", "2 / 4"),
    "scale": ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights", "True / False"),
}


@pytest.mark.parametrize("case", FUNCTION)
def test_what_changes_the_function_is_refused_by_name(case: str, tmp_path: Path) -> None:
    family, changes, key, values = FUNCTION[case]
    folders = [save_model(tmp_path / n, family, seed=s) for s, n in enumerate(("base", "tuned"))]
    edit_config(folders[1], **changes)
    with pytest.raises(IncompatibleChainError) as caught:
        open_members(*folders)
    assert f"{key} ({values})" in str(caught.value)
    assert "allow_config_differences: [" in str(caught.value)
    asked = str(caught.value).split("allow_config_differences: [")[1].split("]")[0].split(", ")
    assert key in asked
    check_blend(folders, allow_config_differences=asked)
    notes = open_members(*folders, allow_config_differences=asked).notes
    assert any(note.startswith(f"config {key}: ") and "in tuned (used)" in note for note in notes)


def test_a_limit_that_stretches_rotary_positions_is_part_of_the_function(pair: list[Path]) -> None:
    for folder, limit in zip(pair, (256, 512), strict=True):
        scaling = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
        edit_config(folder, rope_parameters=scaling, max_position_embeddings=limit)
    with pytest.raises(IncompatibleChainError, match=r"max_position_embeddings \(256 / 512\)"):
        open_members(*pair)


def test_labels_at_other_outputs_are_refused(pair: list[Path]) -> None:
    edit_config(pair[0], id2label={"0": "no", "1": "yes"})
    edit_config(pair[1], id2label={"0": "yes", "1": "no"})
    with pytest.raises(IncompatibleChainError, match=r"id2label \('no' is output 0 / 1\)"):
        open_members(*pair)


@pytest.mark.parametrize(
    "spelling", ["Infinity", "1e999", '"Infinity"', '{"__float__": "Infinity"}', "NaN"]
)
def test_infinity_has_several_spellings(tmp_path: Path, spelling: str) -> None:
    config = Mamba2Config(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_heads=4, head_dim=8,
        state_size=4, n_groups=1, expand=2, chunk_size=8, time_step_rank=4,
    )  # fmt: skip
    folders = [tmp_path / "base", tmp_path / "tuned"]
    for folder in folders:
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    path = folders[0] / "config.json"
    content = json.loads(path.read_text())
    assert content["time_step_limit"][1] == {"__float__": "Infinity"}
    content["time_step_limit"] = "@"
    path.write_text(json.dumps(content).replace('"@"', f"[0.0, {spelling}]"))
    if spelling == "NaN":
        with pytest.raises(IncompatibleChainError, match="time_step_limit"):
            open_members(*folders)
        return
    check_blend(folders)


def test_a_family_that_is_not_known_is_compared_as_it_is_written() -> None:
    ours = {"model_type": "of our own", "norm": 1e-5, "unsloth_version": "1", "use_cache": True}
    theirs = {"model_type": "of our own", "norm": 1e-6, "torch_dtype": "bfloat16"}
    before, after = config_meanings([ours, theirs])
    assert {key for key in before | after if before.get(key) != after.get(key)} == {"norm"}
    assert is_read(ours, "norm")


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 10**8},
        {"num_labels": 10**9},
        {"layer_types": [["full_attention"] * 3]},
        {"to_dict": "text"},
        {"__class__": "os.system"},
        {"hidden_size": "wide"},
        {"dtype": "load", "auto_map": {"AutoConfig": "evil.Config"}},
        {"rope_parameters": {"rope_type": "yarn", "factor": -1}},
    ],
)
def test_hostile_configs_are_read_in_a_moment_or_taken_as_written(changes: dict[str, Any]) -> None:
    config = {"model_type": "qwen2", "hidden_size": 64, "num_hidden_layers": 2}
    started = time.monotonic()
    before, after = config_meanings([config, {**config, **changes}])
    assert time.monotonic() - started < 5
    assert isinstance(after, dict)
    assert before["model_type"] == "qwen2"


@pytest.mark.parametrize("key", ["num_labels", "num_hidden_layers", "num_decoder_layers"])
def test_counts_that_no_model_has_are_refused_when_it_is_opened(pair: list[Path], key: str) -> None:
    edit_config(pair[1], text_config={key: 10**9})
    with pytest.raises(CheckpointError, match=f"{key} is larger than of any model"):
        open_members(*pair)


@pytest.mark.parametrize("kind", ["object", "list"])
def test_a_config_that_is_nested_without_end_is_refused(pair: list[Path], kind: str) -> None:
    opening, closing = ('{"a":', "}") if kind == "object" else ("[", "]")
    content = json.loads((pair[1] / "config.json").read_text())
    text = json.dumps({**content, "deep": "@"})
    deep = opening * 300 + "1" + closing * 300
    (pair[1] / "config.json").write_text(text.replace('"@"', deep))
    with pytest.raises(CheckpointError, match="nested too deeply"):
        open_members(*pair)


def test_code_is_never_asked_for(pair: list[Path]) -> None:
    edit_config(pair[1], auto_map={"AutoConfig": "config.Own"})
    assert "the class that transformers ships is used" in "".join(open_members(*pair).notes)
    edit_config(pair[1], model_type="own")
    with pytest.raises(CheckpointError, match="code of its own"):
        open_members(*pair)


def test_a_variant_of_such_a_chain_verifies_and_opens_again(
    pair: list[Path], tmp_path: Path
) -> None:
    edit_config(pair[1], rms_norm_eps=1e-5, eos_token_id=7)
    chain = open_members(*pair, allow_config_differences=["rms_norm_eps"])
    with stage_variant(chain, [0.5], tmp_path / "variant") as staged:
        staged.publish()
    check = verify_variant(tmp_path / "variant", share=1.0, settings=Settings())
    assert check.rederived == check.tensors > 0
    again = open_members(pair[1], tmp_path / "variant")
    assert again.notes == ()
    recipe = read_variant(tmp_path / "variant").recipe
    assert recipe.allow_config_differences == ("rms_norm_eps",)
    assert "config eos_token_id: 2 in base, 7 in tuned (used)" in recipe.notes
    assert "eos_token_id" in (tmp_path / "variant" / "README.md").read_text()
