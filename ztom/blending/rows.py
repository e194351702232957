"""Vocabularies of different size: which rows the members of a chain share.

Training adds tokens, and with them rows to the embedding and the head; tools pad them, or cut the
padding off. A row is a token, so rows of the same number are blended, and a row that a member lacks
has no delta in the steps from and to it: it stays as the latest checkpoint has it. A blend has the
rows of the latest one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ztom.checkpoints.checkpoint import Checkpoint
from ztom.checkpoints.config_checks import find_embedding, text_config
from ztom.checkpoints.heads import tensor_of
from ztom.checkpoints.lora import Adapter
from ztom.checkpoints.lora_config import merge_fix
from ztom.checkpoints.tensors import TensorSpec
from ztom.errors import AdapterUnsupportedError


def vocabulary_rows(checkpoint: Checkpoint) -> int | None:
    """Number of rows of the embedding, or what the configuration says; None where neither does."""
    embedding = find_embedding(checkpoint.tensors)
    if embedding is not None:
        return embedding.shape[0]
    size = text_config(checkpoint.config).get("vocab_size")
    return size if type(size) is int else None


def differs_in_rows(first: Checkpoint, second: Checkpoint, name: str) -> bool:
    """Whether a tensor of both has a row for each token, and one has more of them.

    Args:
        first: A full model.
        second: Another one.
        name: Name of a floating-point tensor of both.
    """
    specs = first.tensors[name], second.tensors[name]
    if not all(spec.shape and spec.dtype.is_floating_point for spec in specs):
        return False
    rows = tuple(spec.shape[0] for spec in specs)
    sizes = vocabulary_rows(first), vocabulary_rows(second)
    return rows[0] != rows[1] and rows == sizes and specs[0].shape[1:] == specs[1].shape[1:]


def rows_held(members: Sequence[Checkpoint], name: str, kept: TensorSpec) -> tuple[int, ...] | None:
    """How many rows of a tensor each member has; None where all have as many as the blend.

    Args:
        members: Checkpoints of the chain, base first; an adapter has the base's rows.
        name: Name of the tensor.
        kept: The tensor that a blend has the shape of.
    """
    specs = [tensor_of(m if m.kind == "full" else members[0], name) for m in members]
    if not kept.shape or all(spec is None or spec.shape == kept.shape for spec in specs):
        return None
    return tuple(kept.shape[0] if spec is None else spec.shape[0] for spec in specs)


def refuse_adapted_rows(
    members: Sequence[Checkpoint], adapters: Sequence[Adapter | None], names: Mapping[str, object]
) -> None:
    """Refuse an adapter of a tensor that has other rows in another member.

    Args:
        members: Checkpoints of the chain, base first.
        adapters: LoRA factors of each member, or None for full weights.
        names: Names of the tensors of a blend.

    Raises:
        AdapterUnsupportedError: Names the adapter, the tensor and the rows.
    """
    for member, adapter in zip(members, adapters, strict=True):
        for name in adapter.factors if adapter is not None else ():
            kept = tensor_of(members[0], name)
            rows = None if kept is None or name not in names else rows_held(members, name, kept)
            if rows is not None:
                raise AdapterUnsupportedError(
                    f"{member.reference} adapts {name}, whose rows differ over the chain",
                    got=f"{', '.join(map(str, rows))} rows",
                    expected="as many rows in every member",
                    fix=merge_fix(member.reference),
                )


def row_notes(members: Sequence[Checkpoint], tags: Sequence[str], *, model: int) -> tuple[str, ...]:
    """Which members have other rows than a blend, a sentence each.

    Args:
        members: Checkpoints of the chain that fit, base first.
        tags: Name of each.
        model: Position of the full model whose rows a blend has.
    """
    kept = members[model]
    notes = []
    for tag, member in zip(tags, members, strict=True):
        if member.kind != "full":
            continue
        common = kept.tensors.keys() & member.tensors.keys()
        names = sorted(name for name in common if differs_in_rows(kept, member, name))
        if not names:
            continue
        rows, own = kept.tensors[names[0]].shape[0], member.tensors[names[0]].shape[0]
        what = (
            f"rows {own} to {rows - 1} have no delta in its steps, they stay as in {tags[model]}"
            if own < rows
            else f"its rows {rows} to {own - 1} are left out"
        )
        notes.append(
            f"vocabulary: {tag} has {own} rows, {tags[model]} (used) {rows}: {what} "
            f"({', '.join(names)})"
        )
    return tuple(notes)
