"""Chains of a given size, with random weights, for benchmarks of speed and memory only."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
import yaml

from ztom.demo.model import ModelSize, train_tokenizer


def make_llama_chain(
    folder: Path,
    *,
    hidden: int,
    layers: int,
    vocabulary: int | None,
    members: int,
    dtype: torch.dtype,
) -> Path:
    """Write a chain of Llamas; returns its chain file.

    Args:
        folder: Gets one folder per member.
        hidden: Hidden size, a multiple of 64.
        layers: Number of layers.
        vocabulary: Number of tokens of the embedding; None is the tokenizer's, so that every answer
            has text.
        members: Number of checkpoints.
        dtype: What is stored.
    """
    texts = ["a few words to have a tokenizer for a benchmark"] * 4
    tokenizer = train_tokenizer(texts, ModelSize())
    config = transformers.LlamaConfig(
        vocab_size=vocabulary or len(tokenizer),
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    words = [tokenizer.decode([token], skip_special_tokens=True) for token in range(len(tokenizer))]
    silent = [token for token, word in enumerate(words) if not word.strip() or not word.isascii()]
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).to(dtype)
    for position in range(members):
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 1e-3)
        # logits of zero: every model of the chain, and every blend, answers with text
        model.get_input_embeddings().weight.data[silent] = 0.0
        path = folder / f"{position:02d}"
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
    file = folder / "chain.yaml"
    names = [f"{position:02d}" for position in range(members)]
    file.write_text(yaml.safe_dump({"checkpoints": names}))
    return file
