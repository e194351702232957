"""Checkpoint files for tests, written byte by byte where a test needs them malformed."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import torch
from safetensors.torch import save

HIDDEN, VOCABULARY, LAYERS = 8, 16, 2

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "vocab_size": VOCABULARY,
    "num_hidden_layers": LAYERS,
    "tie_word_embeddings": False,
}


def tensor_file(header: object, data: bytes = b"") -> bytes:
    """A safetensors file from its two parts; a header that is not bytes is written as JSON."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def llama_tensors(seed: int = 0, *, tied: bool = False) -> dict[str, torch.Tensor]:
    """The tensors of a tiny Llama that matter here, with its names."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        shapes[f"model.layers.{layer}.self_attn.q_proj.weight"] = (HIDDEN, HIDDEN)
        shapes[f"model.layers.{layer}.mlp.up_proj.weight"] = (2 * HIDDEN, HIDDEN)
    if not tied:
        shapes["lm_head.weight"] = (VOCABULARY, HIDDEN)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def write_checkpoint(
    folder: Path,
    tensors: dict[str, torch.Tensor] | None = None,
    *,
    config: dict[str, object] | None = None,
    shards: int = 1,
) -> Path:
    """Write a full checkpoint; the tensors are dealt out to the shards in turn."""
    tensors = llama_tensors() if tensors is None else tensors
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    if shards == 1:
        (folder / "model.safetensors").write_bytes(save(tensors))
        return folder
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        names = sorted(tensors)[shard::shards]
        (folder / file).write_bytes(save({name: tensors[name] for name in names}))
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def write_lora(folder: Path, *, seed: int = 0, rank: int = 2) -> Path:
    """Write an adapter of one module over what `write_checkpoint` writes, as PEFT does."""
    generator = torch.Generator().manual_seed(seed)
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {
        f"{module}.lora_A.weight": torch.randn(rank, HIDDEN, generator=generator),
        f"{module}.lora_B.weight": torch.randn(HIDDEN, rank, generator=generator),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(save(tensors))
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder
