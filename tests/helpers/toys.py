"""Tiny real checkpoints for tests: every family the engines are checked on, and a tokenizer.

All toys of the integration tests come from here. Weights are random but not too flat, so that
greedy answers and log-probabilities differ visibly between blends.
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


def make_plain_chain(
    folder: Path,
    *,
    members: int = 3,
    dtype: torch.dtype = torch.float32,
    scale: float = 1.0,
    tied: bool = False,
    states: Sequence[dict[str, torch.Tensor]] | None = None,
) -> list[Path]:
    """Checkpoints as files only, written without a model: for everything that reads no config."""
    import json

    from safetensors.torch import save_file

    shapes = {"model.embed_tokens.weight": (16, 8), "model.norm.weight": (8,)}
    for layer in range(2):
        shapes[f"model.layers.{layer}.self_attn.q_proj.weight"] = (8, 8)
        shapes[f"model.layers.{layer}.mlp.up_proj.weight"] = (16, 8)
    if not tied:
        shapes["lm_head.weight"] = (16, 8)
    generator = torch.Generator().manual_seed(0)
    if states is None:
        states = [{n: torch.randn(s, generator=generator) * scale for n, s in shapes.items()}]
        for _ in range(members - 1):
            steps = {n: torch.randn(s, generator=generator) * 0.1 for n, s in shapes.items()}
            states.append({n: states[-1][n] + scale * steps[n] for n in shapes})
    config = {"model_type": "toy", "tie_word_embeddings": tied}
    paths = []
    for position, state in enumerate(states):
        path = folder / f"{position:02d}"
        path.mkdir(parents=True)
        cast = {n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()}
        save_file(cast, path / "model.safetensors", metadata={"format": "pt"})
        (path / "config.json").write_text(json.dumps(config))
        vocabulary = {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}
        (path / "tokenizer.json").write_text(json.dumps(vocabulary))
        paths.append(path)
    return paths


def make_adapter_chain(folder: Path) -> tuple[list[Path], list[dict[str, torch.Tensor]]]:
    """A base and three LoRA adapters of mixed rank, alpha and scale rule.

    Returns:
        The folders, and per adapter its change in float64 by the base's tensor name.
    """
    import json
    import math

    from safetensors.torch import save_file

    base = make_plain_chain(folder / "base", members=1)[0]
    generator = torch.Generator().manual_seed(1)
    names = {
        "model.layers.0.self_attn.q_proj": (8, 8),
        "model.layers.1.mlp.up_proj": (16, 8),
    }
    paths, deltas = [base], []
    for number, (rank, alpha, rslora) in enumerate([(2, 4, False), (3, 8, True), (4, 2, False)]):
        path = folder / f"adapter-{number}"
        path.mkdir()
        scale = alpha / (math.sqrt(rank) if rslora else rank)
        tensors, delta = {}, {}
        for module, (rows, columns) in names.items():
            a = torch.randn(rank, columns, generator=generator)
            b = torch.randn(rows, rank, generator=generator)
            tensors[f"base_model.model.{module}.lora_A.weight"] = a
            tensors[f"base_model.model.{module}.lora_B.weight"] = b
            delta[f"{module}.weight"] = scale * (b.double() @ a.double())
        save_file(tensors, path / "adapter_model.safetensors", metadata={"format": "pt"})
        config = {
            "peft_type": "LORA",
            "r": rank,
            "lora_alpha": alpha,
            "use_rslora": rslora,
            "bias": "none",
            "target_modules": [module.rpartition(".")[2] for module in names],
        }
        (path / "adapter_config.json").write_text(json.dumps(config))
        paths.append(path)
        deltas.append(delta)
    return paths, deltas
