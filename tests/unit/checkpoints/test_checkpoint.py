"""Checkpoints: layouts, digests, pins, and the folders that are not checkpoints."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from safetensors.torch import save
from toy_checkpoints import CONFIG, llama_tensors, tensor_file, write_checkpoint

from ztom.checkpoints.checkpoint import open_checkpoint
from ztom.errors import (
    CheckpointError,
    ContentChangedError,
    ReferenceRefusedError,
    TensorFileError,
    ZtomError,
)
from ztom.settings import Settings

INDEX = "model.safetensors.index.json"
SHARD = "model-00001-of-00002.safetensors"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path / "cache", storage_retries=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint"


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_a_checkpoint_is_read_as_written(shards: int, folder: Path, settings: Settings) -> None:
    tensors = llama_tensors()
    write_checkpoint(folder, tensors, shards=shards)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("not part of it")
    (folder / "training_args.bin").write_bytes(b"never opened")
    checkpoint = open_checkpoint(str(folder), settings=settings)
    assert checkpoint.kind == "full"
    assert checkpoint.config["hidden_size"] == 8
    assert list(checkpoint.tensors) == sorted(tensors)
    assert not checkpoint.tied
    index = {INDEX} if shards > 1 else set()
    assert set(checkpoint.files) == {"config.json", "tokenizer.json"} | index
    for name, expected in tensors.items():
        assert torch.equal(checkpoint.read(name), expected)
    with pytest.raises(CheckpointError, match="no tensor 'absent'"):
        checkpoint.read("absent")


def test_the_digest_covers_all_used_files_and_only_them(folder: Path, settings: Settings) -> None:
    write_checkpoint(folder, shards=2)
    (folder / "README.md").write_text("a")
    names = sorted(p.name for p in folder.iterdir() if p.name != "README.md")
    lines = [f"{n} {hashlib.sha256((folder / n).read_bytes()).hexdigest()}\n" for n in names]
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert open_checkpoint(str(folder), settings=settings).digest == expected
    (folder / "README.md").write_text("b")
    assert open_checkpoint(str(folder), settings=settings, sha256=expected).pin == expected
    assert open_checkpoint(str(folder), settings=settings, sha256=f"sha256:{expected.upper()}")


@pytest.mark.abuse(39)
def test_content_that_is_not_the_pinned_one_fails(folder: Path, settings: Settings) -> None:
    write_checkpoint(folder)
    pin = open_checkpoint(str(folder), settings=settings).digest
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ContentChangedError, match="pinned"):
        open_checkpoint(str(folder), settings=settings, sha256=pin)
    with pytest.raises(CheckpointError, match="64 hex digits"):
        open_checkpoint(str(folder), settings=settings, sha256="abc")


@pytest.mark.abuse(39)
def test_content_that_changes_after_opening_fails(folder: Path, settings: Settings) -> None:
    write_checkpoint(folder)
    checkpoint = open_checkpoint(str(folder), settings=settings)
    checkpoint.verify_pin()
    (folder / "model.safetensors").write_bytes(save(llama_tensors(1)))
    with pytest.raises(ContentChangedError):
        checkpoint.verify_pin()
    with pytest.raises(ContentChangedError):
        checkpoint.read("lm_head.weight")


def test_a_checkpoint_survives_pickling(folder: Path, settings: Settings) -> None:
    write_checkpoint(folder)
    checkpoint = open_checkpoint(str(folder), settings=settings)
    copy = pickle.loads(pickle.dumps(checkpoint))
    assert copy.digest == checkpoint.digest
    assert torch.equal(copy.read("lm_head.weight"), checkpoint.read("lm_head.weight"))


@pytest.mark.parametrize(
    ("config", "stored_head", "tied"),
    [
        ({"tie_word_embeddings": True}, False, True),
        ({"tie_word_embeddings": True}, True, False),
        ({"tie_word_embeddings": False}, True, False),
        ({"tie_word_embeddings": None}, False, True),
        ({"tie_word_embeddings": None, "architectures": ["LlamaModel"]}, False, False),
        ({"architectures": ["LlamaForSequenceClassification"]}, False, False),
        ({"architectures": ["LlamaForConditionalGeneration"]}, False, False),
    ],
)
def test_tied_embeddings(
    config: dict[str, object], stored_head: bool, tied: bool, folder: Path, settings: Settings
) -> None:
    write_checkpoint(folder, llama_tensors(tied=not stored_head), config=CONFIG | config)
    assert open_checkpoint(str(folder), settings=settings).tied is tied


def test_the_tokenizer_digest_sees_behaviour_not_notation(folder: Path, settings: Settings) -> None:
    write_checkpoint(folder)
    file = folder / "tokenizer.json"
    base = {"version": "1.0", "model": {"vocab": {"a": 0}, "merges": ["a b"], "dropout": None}}

    def digest(content: dict[str, object]) -> str | None:
        file.write_text(json.dumps(content))
        return open_checkpoint(str(folder), settings=settings).tokenizer_digest

    first = digest(base)
    assert first is not None
    same_model = {"merges": [["a", "b"]], "vocab": {"a": 0}}
    assert digest({"model": same_model, "padding": {"length": 3}, "truncation": None}) == first
    assert digest({"model": {"vocab": {"a": 1}, "merges": ["a b"]}}) != first
    assert digest({"model": {"vocab": {"a": 0}, "merges": ["b a"]}}) != first
    file.unlink()
    assert open_checkpoint(str(folder), settings=settings).tokenizer_digest is None
    (folder / "tokenizer.model").write_bytes(b"sentencepiece")
    slow = open_checkpoint(str(folder), settings=settings).tokenizer_digest
    (folder / "tokenizer.model").write_bytes(b"sentencepiece2")
    assert open_checkpoint(str(folder), settings=settings).tokenizer_digest not in (slow, None)


def drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def put(name: str, content: str | bytes) -> Callable[[Path], None]:
    raw = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(raw) and None


def configure(**changes: object) -> Callable[[Path], None]:
    return put("config.json", json.dumps(CONFIG | changes))


def remap(change: Callable[[dict[str, str]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        index = json.loads((folder / INDEX).read_text())
        change(index["weight_map"])
        (folder / INDEX).write_text(json.dumps(index))

    return edit


def only(*names: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        shutil.rmtree(folder)
        folder.mkdir()
        for name in names:
            (folder / name).write_bytes(b"{}")

    return edit


def swap_shards(folder: Path) -> None:
    first, second = folder / SHARD, folder / "model-00002-of-00002.safetensors"
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def repeat_shard(folder: Path) -> None:
    (folder / SHARD).write_bytes((folder / "model-00002-of-00002.safetensors").read_bytes())


REFUSED = {
    "missing-shard": (drop(SHARD), f"missing {SHARD}"),
    "extra-shard": (
        put("model-00003-of-00002.safetensors", tensor_file({})),
        "extra model-00003-of-00002",
    ),
    "single-file-beside-shards": (put("model.safetensors", b""), "extra model.safetensors"),
    "missing-index": (drop(INDEX), f"{INDEX} is missing"),
    "index-names-more": (
        remap(lambda m: m.update({"more.weight": SHARD})),
        "missing more.weight",
    ),
    "index-names-less": (remap(lambda m: m.pop("lm_head.weight")), "extra lm_head.weight"),
    "index-disagrees": (swap_shards, "another shard"),
    "tensor-in-two-shards": (repeat_shard, "stands twice"),
    "weight-map-escapes": (
        remap(lambda m: m.update({"lm_head.weight": "../secret.safetensors"})),
        "not allowed",
    ),
    "weight-map-absolute": (
        remap(lambda m: m.update({"lm_head.weight": "/etc/x.safetensors"})),
        "not allowed",
    ),
    "weight-map-newline": (
        remap(lambda m: m.update({"lm_head.weight": "x\n.safetensors"})),
        "not allowed",
    ),
    "weight-map-pickle": (
        remap(lambda m: m.update({"lm_head.weight": "model.bin"})),
        "not allowed",
    ),
    "weight-map-number": (put(INDEX, '{"weight_map": {"a": 1}}'), "not allowed"),
    "no-weight-map": (put(INDEX, "{}"), "no weight_map"),
    "bin": (only("config.json", "pytorch_model.bin"), "pickled weights only"),
    "pt": (only("config.json", "model.pt"), "pickled weights only"),
    "pkl": (only("config.json", "weights.pkl"), "pickled weights only"),
    "pickle-renamed": (put(SHARD, pickle.dumps({"a": 1})), "looks like a pickle"),
    "library": (put("x.so", ""), "holds code"),
    "compiled": (put("modeling_evil.pyc", ""), "holds code"),
    "auto-map-family": (
        configure(auto_map={"AutoModel": "evil.Model"}, model_type="evil"),
        r"config.json asks for code",
    ),
    "auto-map-class": (
        configure(auto_map={"AutoModel": "evil.Model"}, architectures=["EvilForCausalLM"]),
        r"config.json asks for code",
    ),
    "auto-map-tokenizer": (
        put(
            "tokenizer_config.json",
            '{"tokenizer_class": "EvilTokenizer", "auto_map": {"AutoTokenizer": ["evil.T", null]}}',
        ),
        r"tokenizer_config.json asks for code .*auto_map",
    ),
    "custom-pipelines": (
        configure(custom_pipelines={"x": {}}, model_type="evil"),
        "custom_pipelines",
    ),
    "vocabulary": (configure(vocab_size=17), "vocab_size 17, model.embed_tokens.weight"),
    "hidden-size": (configure(hidden_size=4), "hidden_size 4, model.embed_tokens.weight"),
    "nested": (configure(text_config={"vocab_size": 3}), "vocab_size 3"),
    "layers": (configure(num_hidden_layers=3), "num_hidden_layers 3.*layer 2"),
    "layers-huge": (configure(num_hidden_layers=10**12), "num_hidden_layers"),
    "config-missing": (drop("config.json"), "config.json is missing"),
    "config-not-json": (put("config.json", "{'a': 1}"), "config.json is not valid JSON"),
    "config-not-utf8": (put("config.json", b'{"a": "\xff"}'), "config.json is not valid JSON"),
    "config-byte-order-mark": (put("config.json", b"\xef\xbb\xbf{}"), "not valid JSON"),
    "config-key-twice": (put("config.json", '{"a": 1, "a": 2}'), "duplicate key 'a'"),
    "config-deep": (put("config.json", "[" * 200_000), "nested too deeply"),
    "config-a-list": (put("config.json", "[]"), "expected an object"),
    "index-not-json": (put(INDEX, "{"), "index.json is not valid JSON"),
    "adapter-and-model": (put("adapter_model.safetensors", b""), "ambiguous"),
    "nothing": (only(), "no weights"),
    "no-tensors": (
        lambda folder: (
            only("config.json")(folder) or put("model.safetensors", tensor_file({}))(folder)
        ),
        "holds no tensors",
    ),
}


@pytest.mark.abuse(22, 23, 24, 25, 26, 28)
@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_that_is_no_checkpoint_is_refused(
    case: str, folder: Path, settings: Settings
) -> None:
    spoil, message = REFUSED[case]
    write_checkpoint(folder, shards=2)
    open_checkpoint(str(folder), settings=settings)
    spoil(folder)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(str(folder), settings=settings)


@pytest.mark.abuse(28)
def test_a_missing_output_head_is_refused(folder: Path, settings: Settings) -> None:
    write_checkpoint(folder, llama_tensors(tied=True))
    with pytest.raises(CheckpointError, match="no output head"):
        open_checkpoint(str(folder), settings=settings)


@pytest.mark.abuse(22)
def test_shards_beside_a_single_file_are_ambiguous(folder: Path, settings: Settings) -> None:
    write_checkpoint(folder)
    (folder / SHARD).write_bytes(tensor_file({}))
    with pytest.raises(CheckpointError, match="ambiguous"):
        open_checkpoint(str(folder), settings=settings)


@pytest.mark.abuse(38)
def test_a_shard_that_is_a_link_out_is_refused(
    folder: Path, tmp_path: Path, settings: Settings
) -> None:
    write_checkpoint(folder)
    (folder / "model.safetensors").rename(tmp_path / "elsewhere")
    (folder / "model.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ReferenceRefusedError, match="leads out"):
        open_checkpoint(str(folder), settings=settings)


def test_malformed_tensors_name_the_file(folder: Path, settings: Settings) -> None:
    write_checkpoint(folder)
    (folder / "model.safetensors").write_bytes(b"\0" * 7)
    with pytest.raises(TensorFileError, match=r"model\.safetensors is truncated"):
        open_checkpoint(str(folder), settings=settings)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.dictionaries(st.sampled_from([*CONFIG, "text_config", "auto_map"]), json_values))
def test_any_config_opens_or_is_refused(
    changes: dict[str, object], folder: Path, settings: Settings
) -> None:
    write_checkpoint(folder, config=CONFIG | changes)
    try:
        open_checkpoint(str(folder), settings=settings)
    except ZtomError:
        return
