"""A whole variant small enough to serve in a test: a tiny Llama, its tokenizer, its manifest."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ztom.variants import write_manifest

CONTEXT = 2048
TEXT = ["the quick brown fox jumps over the lazy dog", "pack my box with five dozen liquor jugs"]
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def write_variant_folder(folder: Path, *, chat_template: str | None = TEMPLATE) -> Path:
    """A random Llama of 90,000 parameters in float32; what it says is nonsense, but always the same."""
    tokenizer = _tokenizer()
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)
    _model(len(tokenizer)).save_pretrained(folder)
    write_manifest(folder)
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(TEXT * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


def _model(vocabulary: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,  # vLLM's CPU attention wants heads of 32 or more
        num_key_value_heads=1,
        max_position_embeddings=CONTEXT,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() > 1:  # wide weights: greedy choices that rounding cannot turn
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return model
