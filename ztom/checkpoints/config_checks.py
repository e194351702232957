"""Does ``config.json`` describe the tensors that are there?

Only plain contradictions are refused; what a family of models means by its fields is left to
transformers. Tied embeddings are decided here, because a checkpoint whose output head is its
embedding blends differently from one that stores the head.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ztom.checkpoints.tensors import TensorSpec
from ztom.errors import CheckpointError

_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
_HEADS = ("lm_head.weight", "embed_out.weight")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|layer|blocks)\.(\d+)\.")
#: Counts that configuration classes make lists of.
_COUNTS = re.compile(r"_?num_labels|(.*_)?layers?|depth|(.*_)?blocks?")
_MOST = 1_000_000
_DEEPEST = 32
_HIDDEN = ("hidden_size", "n_embd", "d_model")
_LAYERS = ("num_hidden_layers", "n_layer")
#: Families whose embedding is narrower than the model.
_FACTORED = ("word_embed_proj_dim", "embedding_size")


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part that describes the language model, which multimodal configurations nest."""
    nested = config.get("text_config")
    return nested if isinstance(nested, dict) else config


def check_full_config(
    reference: str, config: Mapping[str, Any], tensors: Mapping[str, TensorSpec]
) -> None:
    """Refuse a configuration that plainly contradicts the tensors.

    Raises:
        CheckpointError: Says which field and which tensor.
    """
    check_counts(reference, config)
    text = text_config(config)
    embedding = find_embedding(tensors)
    if embedding is not None:
        _check_embedding(reference, text, embedding)
    _check_layers(reference, text, tensors)
    _check_head(reference, config, tensors)


def check_counts(reference: str, config: Mapping[str, Any], *, layers: int = _MOST) -> None:
    """Refuse what would keep whatever reads the configuration busy: huge counts, deep nesting.

    Args:
        reference: Names the checkpoint in errors.
        config: Content of ``config.json``, or a part of it.
        layers: Largest number of layers; whoever makes the model makes each of them.

    Raises:
        CheckpointError: Names the field.
    """
    stack: list[tuple[str, Any, int]] = [("", config, 0)]
    while stack:
        key, value, depth = stack.pop()
        if depth > _DEEPEST:
            raise CheckpointError(f"{reference}: config.json is nested too deeply", got=key)
        most = _MOST if key.endswith("labels") else layers
        if isinstance(value, dict):
            stack += [(str(name), item, depth + 1) for name, item in value.items()]
        elif isinstance(value, list):
            stack += [(key, item, depth + 1) for item in value if isinstance(item, dict | list)]
        elif _COUNTS.fullmatch(key) and isinstance(value, int) and value > most:
            raise CheckpointError(
                f"{reference}: {key} is larger than of any model",
                got=f"{value} in config.json",
                expected=f"at most {most}",
            )


def has_tied_head(config: Mapping[str, Any], tensors: Mapping[str, TensorSpec]) -> bool:
    """Whether the output head is the embedding: no tensor of its own, and tying not switched off.

    Configurations leave ``tie_word_embeddings`` out where it is the family's default, so a language
    model without a head is tied unless it says otherwise.
    """
    if _find(tensors, _HEADS) or find_embedding(tensors) is None or not _is_language_model(config):
        return False
    return says_tied(config) is not False


def says_tied(config: Mapping[str, Any]) -> bool | None:
    """What a configuration says of its head; None where it leaves that to the family."""
    for part in (config, text_config(config)):
        value = part.get("tie_word_embeddings")
        if isinstance(value, bool):
            return value
    return None


def _is_language_model(config: Mapping[str, Any]) -> bool:
    names = _architectures(config)
    return not names or any(
        name.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")) for name in names
    )


def _architectures(config: Mapping[str, Any]) -> list[str]:
    names = config.get("architectures")
    return [str(name) for name in names] if isinstance(names, list) else []


def _find(tensors: Mapping[str, TensorSpec], suffixes: tuple[str, ...]) -> list[TensorSpec]:
    return [
        spec
        for name, spec in tensors.items()
        if any(name == suffix or name.endswith(f".{suffix}") for suffix in suffixes)
    ]


def is_head(name: str) -> bool:
    """Whether a tensor of this name is an output head."""
    return any(name == head or name.endswith(f".{head}") for head in _HEADS)


def find_head(tensors: Mapping[str, TensorSpec]) -> TensorSpec | None:
    """The output head where there is exactly one candidate."""
    heads = [spec for spec in _find(tensors, _HEADS) if len(spec.shape) == 2]
    return heads[0] if len(heads) == 1 else None


def find_embedding(tensors: Mapping[str, TensorSpec]) -> TensorSpec | None:
    """The token embedding where there is exactly one candidate."""
    embeddings = [spec for spec in _find(tensors, _EMBEDDINGS) if len(spec.shape) == 2]
    return embeddings[0] if len(embeddings) == 1 else None


def _integer(config: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[str, int] | None:
    for key in keys:
        value = config.get(key)
        if type(value) is int:
            return key, value
    return None


def _check_embedding(reference: str, text: Mapping[str, Any], embedding: TensorSpec) -> None:
    expected = [(0, _integer(text, ("vocab_size",)))]
    if not any(key in text for key in _FACTORED):
        expected.append((1, _integer(text, _HIDDEN)))
    for axis, entry in expected:
        if entry is not None and embedding.shape[axis] != entry[1]:
            raise CheckpointError(
                f"{reference}: config.json says {entry[0]} {entry[1]}, {embedding.name} disagrees",
                got=f"shape {list(embedding.shape)}",
                expected=f"{entry[1]} at axis {axis}",
            )


def _check_layers(
    reference: str, text: Mapping[str, Any], tensors: Mapping[str, TensorSpec]
) -> None:
    stated = _integer(text, _LAYERS)
    indices = {int(match.group(1)) for name in tensors if (match := _LAYER.search(name))}
    if stated is None or not indices:
        return
    missing = sorted(set(range(min(stated[1], 100_000))) - indices)
    if missing:
        raise CheckpointError(
            f"{reference}: config.json says {stated[0]} {stated[1]}, layers have no tensors",
            got=f"{len(missing)} missing, the first is layer {missing[0]}",
        )


def _check_head(
    reference: str, config: Mapping[str, Any], tensors: Mapping[str, TensorSpec]
) -> None:
    if (
        says_tied(config) is False
        and any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in _architectures(config))
        and find_embedding(tensors) is not None
        and not _find(tensors, _HEADS)
    ):
        raise CheckpointError(
            f"{reference}: config.json says tie_word_embeddings false, but there is no output head",
            expected=" or ".join(_HEADS),
        )
