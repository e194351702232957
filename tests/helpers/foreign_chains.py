"""Chains whose members store one model under several names, as the world saves them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 384,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
#: Families whose stored names are not the model's own, and two whose are.
NESTED = ("mixtral", "qwen3_moe", "gemma3", "llava")


def make_model(family: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """A tiny random model of a family."""
    torch.manual_seed(seed)
    t = transformers
    makers = {
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**_TEXT, tie_word_embeddings=True)),
        "gpt2": lambda: t.GPT2LMHeadModel(
            t.GPT2Config(
                vocab_size=384, n_embd=32, n_layer=2, n_head=2, n_positions=64,
                bos_token_id=1, eos_token_id=2,
            )
        ),
        "mixtral": lambda: t.MixtralForCausalLM(t.MixtralConfig(**_TEXT, num_local_experts=4)),
        "qwen3_moe": lambda: t.Qwen3MoeForCausalLM(
            t.Qwen3MoeConfig(
                **_TEXT, head_dim=16, num_experts=4, num_experts_per_tok=2,
                moe_intermediate_size=16, tie_word_embeddings=True,
            )
        ),
        "gemma3": lambda: t.Gemma3ForConditionalGeneration(
            t.Gemma3Config(
                text_config={**_TEXT, "head_dim": 16}, vision_config=_VISION,
                mm_tokens_per_image=4, image_token_index=380, boi_token_index=381,
                eoi_token_index=382,
            )
        ),
        "llava": lambda: t.LlavaForConditionalGeneration(
            t.LlavaConfig(
                text_config=t.LlamaConfig(**_TEXT), vision_config=t.CLIPVisionConfig(**_VISION),
                image_token_index=380,
            )
        ),
    }  # fmt: skip
    model = makers[family]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.1)
    return model.to(dtype)


def nudge(model: Any, seed: int) -> Any:
    """The model after a random step, in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 0.02
            parameter.add_(noise.to(parameter.dtype))
    return model


def rewrite(folder: Path, tensors: Mapping[str, torch.Tensor], **config: object) -> Path:
    """Replace the tensors of a saved model, and keys of its configuration."""
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return folder


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a saved model."""
    return load_file(folder / "model.safetensors")
