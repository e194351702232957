"""Do the members of a chain fit together? Names precisely what differs.

Full checkpoints must agree in tensor names, shapes, dtypes, architecture and vocabulary; adapters
were checked against the base when they were opened. It compares headers and configs, not weights,
but for one case: an output head that a member stores although it is tied to the embedding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ztom.checkpoints.checkpoint import Checkpoint
from ztom.checkpoints.config_checks import is_head, says_tied
from ztom.checkpoints.derived import is_derived
from ztom.checkpoints.heads import repeats_embedding, stored_head, tensor_of, ties_head
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

_SHOWN = 5


def check_fit(members: Sequence[Checkpoint], *, latest: Checkpoint, allow_dtype_cast: bool) -> None:
    """Compare every full member with the first one, and its head with that of the latest.

    Args:
        members: Checkpoints to compare, base first.
        latest: The member that a blend without any step is; of adapters, their base.
        allow_dtype_cast: Whether to accept tensors that are stored in different dtypes.

    Raises:
        IncompatibleChainError: A member does not fit; names every kind of difference of the first
            one.
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
    for member in members:
        problem = _head_problem(latest, member) if member.kind == "full" else None
        if problem is not None:
            raise IncompatibleChainError(
                f"{member.reference} cannot be blended into {latest.reference}: {problem}",
                fix="Save both with a head of their own (tie_word_embeddings: false), or leave "
                "one of them out.",
            )


def weight_names(member: Checkpoint) -> set[str]:
    """Names of a full member's weights: buffers that models compute are left out."""
    return {name for name, spec in member.tensors.items() if not is_derived(name, spec.shape)}


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
    ours, theirs = weight_names(base), weight_names(member)
    for holder, extra in ((member, theirs - ours), (base, ours - theirs)):
        other = base if holder is member else member
        heads = {name for name in extra if is_head(name)}
        if heads and (other.tied or repeats_embedding(holder)):
            extra -= heads  # whether they can be blended is `_head_problem`
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


def _head_problem(latest: Checkpoint, member: Checkpoint) -> str | None:
    """Why a member's head cannot go into a blend that has the latest one's form.

    A head that is tied goes into one that is not: it is the embedding. The other way round a blend
    would have to drop what the head of its own has learned.
    """
    head = stored_head(member)
    stated = says_tied(member.config)
    if stated and head is not None and not repeats_embedding(member):
        return f"it stores {head.name}, which is not the embedding that its config.json ties it to"
    if member is latest:
        return None
    wanted = stored_head(latest)
    if wanted is not None and tensor_of(member, wanted.name) is None:
        return f"it has no {wanted.name}, and no embedding that it is tied to"
    alike = stated == says_tied(latest.config) and (head is None) == (wanted is None)
    if alike or head is None or not ties_head(latest):
        return None
    if ties_head(member) or repeats_embedding(member):
        return None
    return f"it has a head of its own, {head.name}, and the latest one's is tied to its embedding"


def _listed(items: Iterable[str]) -> str:
    items = list(items)
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
