"""Tiny models saved by transformers itself, and their files as other versions would write them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from toys import CHAT_TEMPLATE, TEXT, make_config, make_tokenizer

from ztom.blending.chain import Chain, load_chain
from ztom.blending.chain_file import ChainConfig
from ztom.settings import Settings

#: Says that a key is taken out of a configuration.
DROP = object()
#: A Llama's configuration as transformers 4.31 wrote it: fewer keys, rotary theta at the top.
OLD_LLAMA: dict[str, Any] = {
    "transformers_version": "4.31.0", "torch_dtype": "float32", "dtype": DROP,
    "rope_parameters": DROP, "rope_theta": 10000.0, "rope_scaling": None, "head_dim": DROP,
    "attention_bias": DROP, "mlp_bias": DROP, "attention_dropout": DROP, "pretraining_tp": 1,
}  # fmt: skip
#: What unsloth and other trainers leave in a configuration.
TRAINERS: dict[str, Any] = {
    "unsloth_version": "2025.9.1", "unsloth_fixed": True, "use_cache": False,
    "_attn_implementation_autoset": True, "_name_or_path": "unsloth/llama",
}  # fmt: skip


#: Rows of the embedding of a grown chain's latest checkpoint; the two before have 384.
GROWN_ROWS = 387


def save_model(folder: Path, family: str = "llama", *, seed: int = 0, rows: int = 384) -> Path:
    """A tiny model with random weights, in float32; its embedding has so many rows."""
    torch.manual_seed(seed)
    config = make_config(family, vocab_size=rows)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.12)
    model.save_pretrained(folder)
    return folder


def edit_json(path: Path, changes: Mapping[str, Any]) -> None:
    """Change keys of a JSON file by hand; one whose value is `DROP` is taken out."""
    content = json.loads(path.read_text()) if path.exists() else {}
    content.update(changes)
    kept = {key: value for key, value in content.items() if value is not DROP}
    path.write_text(json.dumps(kept))


def edit_config(folder: Path, **changes: Any) -> None:
    edit_json(folder / "config.json", changes)


def open_members(*folders: Path, **options: object) -> Chain:
    config = ChainConfig.model_validate({"checkpoints": [str(f) for f in folders], **options})
    return load_chain(config, settings=Settings())


def grow(folder: Path, source: Path, rows: int, seed: int) -> Path:
    """An iteration as training writes one: tokens were added, then every weight moved."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_pretrained(source)
    model.resize_token_embeddings(rows)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    return folder


def keep_slow_files(folder: Path) -> None:
    """As GPT-2's tokenizer was saved before ``tokenizer.json`` existed."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    slow = {"tokenizer_class": "GPT2Tokenizer", "unk_token": "</s>"}
    edit_json(folder / "tokenizer_config.json", slow)


def add_tokens(folder: Path, *tokens: str, **special: str) -> None:
    """Save a folder's tokenizer again with more tokens."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(list(tokens))
    tokenizer.add_special_tokens(special)
    tokenizer.save_pretrained(folder)


def sentencepiece_model(size: int = 300) -> bytes:
    """A ``tokenizer.model`` as Llama has it: byte-pair encoding with bytes to fall back on."""
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT * 20),
        model_writer=out,
        vocab_size=size,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=1.0,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return out.getvalue()


def edit_tokenizer(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change ``tokenizer.json`` by hand."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def save_foreign_chain(folder: Path) -> Path:
    """A base, an iteration, and one whose vocabulary has grown; returns the chain's file."""
    base = save_model(folder / "base")
    tuned = grow(folder / "tuned", base, 384, 1)
    grown = grow(folder / "grown", tuned, GROWN_ROWS, 2)
    for path in (base, tuned, grown):
        make_tokenizer(vocab_size=300).save_pretrained(path)
    edit_config(base, **OLD_LLAMA)
    keep_slow_files(base)
    edit_config(tuned, **TRAINERS, eos_token_id=[2, 7], id2label={"0": "no", "1": "yes"})
    add_tokens(tuned, pad_token="<|pad|>")
    add_tokens(grown, "<|pad|>", *(f"<|tool {i}|>" for i in range(GROWN_ROWS - 301)))
    (grown / "chat_template.jinja").write_text(CHAT_TEMPLATE.replace("|assistant|", "|reply|"))
    return chain_of(folder / "chain.yaml", base, tuned, grown)


def chain_of(file: Path, *members: Path, **options: object) -> Path:
    """Write the file of a chain."""
    file.write_text(yaml.safe_dump({"checkpoints": [str(m) for m in members], **options}))
    return file
