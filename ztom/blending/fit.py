"""Do the members of a chain fit together? Names precisely what differs.

Full checkpoints must agree in tensor names, shapes, dtypes, architecture and vocabulary; adapters
were checked against the base when they were opened. It compares headers and configs, not weights,
but for one case: an output head that one member stores although it is tied to the embedding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from ztom.checkpoints.checkpoint import Checkpoint
from ztom.errors import IncompatibleChainError

#: Config keys that say how a checkpoint was made or is run, not what its weights mean.
_IRRELEVANT = frozenset(
    {
        "_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache",
        "architectures", "attn_implementation", "auto_map", "tie_word_embeddings",
        "attention_dropout", "hidden_dropout", "embd_pdrop", "attn_pdrop", "resid_pdrop",
        "pad_token_id", "output_attentions", "output_hidden_states", "return_dict",
        "keys_to_ignore_at_inference",
    }
)  # fmt: skip

HEAD = "lm_head.weight"
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight")
_SHOWN = 5


def check_fit(members: Sequence[Checkpoint], *, allow_dtype_cast: bool) -> None:
    """Compare every full member with the first one.

    Raises:
        IncompatibleChainError: With every kind of difference found in the first unfit member.
    """
    base = members[0]
    for member in members[1:]:
        differences = list(_differences(base, member, allow_dtype_cast=allow_dtype_cast))
        if differences:
            raise IncompatibleChainError(
                f"{member.reference} does not fit {base.reference}: " + "; ".join(differences),
                fix="A chain is one model and its fine-tuned iterations; leave this one out, or "
                "convert it first.",
            )


def shared_names(members: Sequence[Checkpoint]) -> tuple[str, ...]:
    """The tensors that a blend of these full members has, sorted.

    An output head that is stored although the config ties it to the embedding is left out.
    """
    names = set(members[0].tensors)
    for member in members[1:]:
        names &= set(member.tensors)
    if members[0].config.get("tie_word_embeddings") and _embedding(members[0]):
        names.discard(HEAD)
    return tuple(sorted(names))


def _differences(base: Checkpoint, member: Checkpoint, *, allow_dtype_cast: bool) -> Iterable[str]:
    tokenizers = {base.tokenizer_digest, member.tokenizer_digest} - {None}
    if len(tokenizers) > 1:
        yield "the tokenizers differ"
    if member.kind == "adapter":
        return
    yield from _config_differences(base, member)
    yield from _tensor_differences(base, member, allow_dtype_cast=allow_dtype_cast)


def _config_differences(base: Checkpoint, member: Checkpoint) -> Iterable[str]:
    keys = sorted((set(base.config) | set(member.config)) - _IRRELEVANT)
    changed = [key for key in keys if base.config.get(key) != member.config.get(key)]
    if changed:
        yield "config differs in " + _listed(
            f"{key} ({base.config.get(key)!r} / {member.config.get(key)!r})" for key in changed
        )


def _tensor_differences(
    base: Checkpoint, member: Checkpoint, *, allow_dtype_cast: bool
) -> Iterable[str]:
    ours, theirs = set(base.tensors), set(member.tensors)
    for holder, extra in ((member, theirs - ours), (base, ours - theirs)):
        if HEAD in extra and _head_repeats_embedding(holder):
            extra.discard(HEAD)
        if extra:
            which = "it has" if holder is member else "it lacks"
            yield f"{which} {len(extra)} tensor(s): {_listed(sorted(extra))}"
    common = sorted(ours & theirs)
    shapes = [n for n in common if base.tensors[n].shape != member.tensors[n].shape]
    if shapes:
        yield "shapes differ: " + _listed(
            f"{n} {list(base.tensors[n].shape)} / {list(member.tensors[n].shape)}" for n in shapes
        )
    dtypes = [n for n in common if base.tensors[n].dtype != member.tensors[n].dtype]
    if dtypes and not allow_dtype_cast:
        yield "dtypes differ (allow_dtype_cast: true accepts that): " + _listed(
            f"{n} {base.tensors[n].dtype} / {member.tensors[n].dtype}" for n in dtypes
        )


def _head_repeats_embedding(checkpoint: Checkpoint) -> bool:
    """Whether a stored output head is the embedding once more, bit for bit."""
    embedding = _embedding(checkpoint)
    if embedding is None:
        return False
    return torch.equal(checkpoint.read(HEAD), checkpoint.read(embedding))


def _embedding(checkpoint: Checkpoint) -> str | None:
    return next((n for n in checkpoint.tensors if n.endswith(_EMBEDDINGS)), None)


def _listed(items: Iterable[str]) -> str:
    items = list(items)
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
