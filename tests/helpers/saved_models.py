"""Tiny models saved by transformers itself, and their files as other versions would write them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from toys import TEXT, make_config

from ztom.blending.chain import Chain, load_chain
from ztom.blending.chain_file import ChainConfig
from ztom.settings import Settings

#: Says that a key is taken out of a configuration.
DROP = object()


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
