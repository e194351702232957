"""What a tensor is in its model, by its name: attention, MLP, embedding, norm, head or other.

One table for all families of transformers: names of modules on the way to the tensor, compared part
by part. What no line of the table names (convolutions, state-space mixers, projectors between two
models) is ``other``: nothing is guessed.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

ModuleKind = Literal["attention", "mlp", "embeddings", "norms", "head", "other"]
KINDS: tuple[ModuleKind, ...] = get_args(ModuleKind)

#: The module that holds the tensor is a norm, whatever it stands in.
_NORM = re.compile(r"\w*norm\w*|ln_\w+|ln\d*|bn\d*|gn\d*", re.IGNORECASE)
#: Before the first layer: what makes rows of outputs of the last hidden states.
_HEAD = re.compile(
    r"lm_head|embed_out|classifier|pre_classifier|classification_head|score|qa_outputs|cls|pooler"
    r"|vocab_(transform|projector)|(generator_)?(lm_)?predictions?"
)
#: The same, in plain modules, as the first part of a name only: towers have heads of their own.
_FIRST_HEAD = re.compile(r"head|fc")
#: Before the first layer, or the module itself: what stands for tokens, patches and places.
_EMBEDDING = re.compile(r"\w*embed\w*|wte|wpe|shared|\w*_token|tokens_embed|positions_embed")
#: Anywhere on the way to the tensor.
_ATTENTION = re.compile(
    r"\w*(attn|attention)\w*|[qkvo]_proj|w?qkv(_proj)?|query|key|value|query_key_value|c_attn",
    re.IGNORECASE,
)
_MLP = re.compile(
    r"\w*(mlp|ffn|expert|moe)\w*|feed_?forward|ff|intermediate|densereludense|router|fc\d|lin\d"
    r"|(gate|up|down|gate_up)_proj|dense_(h_to_4h|4h_to_h)|w[123]|wi(_\d)?|wo",
    re.IGNORECASE,
)
#: Inside a layer, after what is attention: the second half of an encoder's MLP.
_LAYER_OUTPUT = "output"


def kind_of(name: str) -> ModuleKind:
    """The kind of the module that a tensor belongs to.

    Args:
        name: Name of the tensor in its model, as in ``model.layers.3.mlp.up_proj.weight``.
    """
    parts = name.split(".")
    modules = parts[:-1] or parts
    named = [part for part in modules if not part.isdigit()] or modules
    outside = _before_layers(parts)
    if _NORM.fullmatch(named[-1]):
        return "norms"
    if any(_HEAD.fullmatch(part) for part in outside) or _FIRST_HEAD.fullmatch(parts[0]):
        return "head"
    if any(_EMBEDDING.fullmatch(part) for part in (*outside, named[-1])):
        return "embeddings"
    inside = parts[len(outside) :] or parts
    if any(_ATTENTION.fullmatch(part) for part in inside):
        return "attention"
    is_output = _LAYER_OUTPUT in inside[:-1] and inside is not parts
    if is_output or any(_MLP.fullmatch(part) for part in inside):
        return "mlp"
    return "other"


def _before_layers(parts: list[str]) -> list[str]:
    """Parts of a name before the first number, which is a layer's; all of them without one."""
    first = next((at for at, part in enumerate(parts) if part.isdigit()), len(parts))
    return parts[:first]
