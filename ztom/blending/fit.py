"""Do the members of a chain fit together? Names precisely what differs.

Full checkpoints must agree in tensor names, shapes, dtypes and in what their configurations mean;
adapters were checked against the base when they were opened. It compares headers and configs, not
weights, but for one case: an output head that a member stores although it is tied to the embedding.
Tokenizers are compared in `ztom.blending.vocabularies`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ztom.blending.differences import config_problems
from ztom.blending.rows import differs_in_rows
from ztom.checkpoints.checkpoint import Checkpoint
from ztom.checkpoints.config_checks import is_head, says_tied
from ztom.checkpoints.derived import is_derived
from ztom.checkpoints.heads import repeats_embedding, stored_head, tensor_of, ties_head
from ztom.errors import IncompatibleChainError

_SHOWN = 5
_FIX = (
    "A chain is one model and its fine-tuned iterations; leave this one out, or convert it first."
)


def check_fit(
    members: Sequence[Checkpoint],
    *,
    latest: Checkpoint,
    allow_dtype_cast: bool,
    allow_config_differences: Sequence[str] = (),
) -> None:
    """Compare every full member with the first one, and its head with that of the latest.

    Args:
        members: Checkpoints to compare, base first.
        latest: The member that a blend without any step is; of adapters, their base.
        allow_dtype_cast: Whether to accept tensors that are stored in different dtypes.
        allow_config_differences: Keys of ``config.json`` in which members may differ.

    Raises:
        IncompatibleChainError: A member does not fit; names every kind of difference of the first
            one.
    """
    base = members[0]
    for member in members[1:]:
        differences = list(_differences(base, member, allow_dtype_cast=allow_dtype_cast))
        problems: Mapping[str, str] = {}
        if member.kind == "full":
            problems = config_problems(base, member, allowed=allow_config_differences)
        if problems:
            listed = _listed(f"{key} ({values})" for key, values in problems.items())
            differences.append(f"config differs in {listed}")
        if differences:
            raise IncompatibleChainError(
                f"{member.reference} does not fit {base.reference}: " + "; ".join(differences),
                fix=_FIX if len(differences) > bool(problems) else _config_fix(problems),
            )
    for member in members:
        problem = _head_problem(latest, member) if member.kind == "full" else None
        if problem is not None:
            raise IncompatibleChainError(
                f"{member.reference} cannot be blended into {latest.reference}: {problem}",
                fix="Save both with a head of their own (tie_word_embeddings: false), or leave "
                "one of them out.",
            )


def _config_fix(keys: Iterable[str]) -> str:
    return (
        "Give each the config.json that it was trained with; where the latest one's values are "
        f"right for all, say allow_config_differences: [{', '.join(keys)}] in the chain."
    )


def weight_names(member: Checkpoint) -> set[str]:
    """Names of a full member's weights: buffers that models compute are left out."""
    return {name for name, spec in member.tensors.items() if not is_derived(name, spec.shape)}


def _differences(base: Checkpoint, member: Checkpoint, *, allow_dtype_cast: bool) -> Iterable[str]:
    if member.kind == "adapter":
        return
    yield from _tensor_differences(base, member, allow_dtype_cast=allow_dtype_cast)


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
    shapes = [
        n
        for n in common
        if base.tensors[n].shape != member.tensors[n].shape and not differs_in_rows(base, member, n)
    ]
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
