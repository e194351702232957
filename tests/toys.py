"""Tiny real checkpoints for tests: every family the engines are checked on, and a tokenizer.

All toys of the integration tests come from here. Weights are random but not too flat, so that greedy
answers and log-probabilities differ visibly between blends.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TEXT = (
    "The quick brown fox jumps over the lazy dog while the band plays.",
    "What does the function return? It returns the sum of its arguments.",
    "A chain of checkpoints is a base model and its fine-tuned iterations.",
    "Explain how to open a file, read its lines and close it again.",
)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
FAMILIES = ("llama", "llama-tied", "qwen2", "qwen3", "gemma2", "gemma3", "gpt2")

_SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def make_tokenizer(vocab_size: int = 384) -> transformers.PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with a chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT * 4, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        chat_template=CHAT_TEMPLATE,
    )


def make_config(family: str, *, vocab_size: int = 384) -> Any:
    """The config of a tiny model of one family."""
    shape = {**_SHAPE, "vocab_size": vocab_size}
    tied = family in ("llama-tied", "qwen2", "gemma2", "gemma3")
    gemma = {"head_dim": 32, "tie_word_embeddings": True, "sliding_window": 128}
    makers: dict[str, Any] = {
        "llama": lambda: transformers.LlamaConfig(**shape, tie_word_embeddings=tied),
        "llama-tied": lambda: transformers.LlamaConfig(**shape, tie_word_embeddings=tied),
        "qwen2": lambda: transformers.Qwen2Config(**shape, tie_word_embeddings=tied),
        "qwen3": lambda: transformers.Qwen3Config(
            **shape, head_dim=32, tie_word_embeddings=tied
        ),
        "gemma2": lambda: transformers.Gemma2Config(
            **shape, **gemma, query_pre_attn_scalar=32
        ),
        "gemma3": lambda: transformers.Gemma3TextConfig(
            **shape, **gemma, query_pre_attn_scalar=32
        ),
        "gpt2": lambda: transformers.GPT2Config(
            vocab_size=vocab_size, n_embd=64, n_layer=2, n_head=2, n_positions=256,
            bos_token_id=1, eos_token_id=2, pad_token_id=0,
        ),
    }  # fmt: skip
    return makers[family]()


def make_chain(
    folder: Path,
    family: str = "llama",
    *,
    members: int = 3,
    step: float = 0.15,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> list[Path]:
    """A base and its iterations, each a random step away from the one before.

    Args:
        folder: Gets one folder per member.
        family: One of `FAMILIES`.
        members: How many checkpoints.
        step: Size of a step relative to the weights.
        dtype: What is stored.
        seed: Of all weights.
    """
    tokenizer = make_tokenizer()
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(make_config(family))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.12)
    return save_steps(model.to(dtype), tokenizer, folder, members=members, step=step)


def save_steps(
    model: Any, tokenizer: Any, folder: Path, *, members: int, step: float
) -> list[Path]:
    """Save a model, and itself again after each of several random steps."""
    paths = []
    for position in range(members):
        if position:
            with torch.no_grad():
                for parameter in model.parameters():
                    noise = torch.randn(parameter.shape) * (parameter.float().std() + 1e-3)
                    parameter.add_((noise * step).to(parameter.dtype))
        path = folder / f"{position:02d}"
        model.save_pretrained(path)
        if tokenizer is not None:
            tokenizer.save_pretrained(path)
        paths.append(path)
    return paths


def reference_blend(paths: Sequence[Path], factors: Sequence[float]) -> dict[str, torch.Tensor]:
    """``W_n + sum alpha_i (W_i - W_(i-1))`` in float64, written out as the formula says."""
    from safetensors.torch import load_file

    states = [
        {name: t.double() for name, t in load_file(path / "model.safetensors").items()}
        for path in paths
    ]
    return {
        name: states[-1][name]
        + sum(
            factor * (states[i][name] - states[i - 1][name])
            for i, factor in enumerate(factors, start=1)
        )
        for name in states[-1]
    }
