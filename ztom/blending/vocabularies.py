"""Do the tokenizers of a chain mean the same? Ids, texts and chat templates, each by its name.

A row of the embedding is a token: where one id is another token in another member, a blend mixes
the rows of both, and the chain is refused. A blend has the latest one's tokenizer, so what that has
besides is no harm: a padding token, a vocabulary that has grown, another way to be written down.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from ztom.checkpoints.checkpoint import Checkpoint
from ztom.checkpoints.config_checks import find_embedding
from ztom.checkpoints.tokenizer_meaning import (
    PROBES,
    TokenizerMeaning,
    chat_template_digest,
    tokenizer_meaning,
)
from ztom.errors import CheckpointError, IncompatibleChainError

_SHOWN = 10
_LONGEST_TOKEN = 16
#: A renamed placeholder is one of a few; a greater share is another vocabulary.
_MOST_RENAMED = 0.01
_OPTION = "say allow_tokenizer_differences: true in the chain"


@dataclass(frozen=True)
class _Member:
    tag: str
    checkpoint: Checkpoint
    meaning: TokenizerMeaning


def check_tokenizers(
    members: Sequence[Checkpoint],
    tags: Sequence[str],
    *,
    latest: int,
    model: int,
    allow_differences: bool = False,
) -> tuple[str, ...]:
    """Compare the tokenizers of all members with that of the latest, which a blend has.

    Args:
        members: Checkpoints of the chain, base first; those without a tokenizer are passed over.
        tags: Name of each.
        latest: Position of the checkpoint that a blend without any step is.
        model: Position of the full model whose tensors a blend has.
        allow_differences: Whether to go on where the same text becomes other ids, or a few ids
            stand for other tokens.

    Returns:
        What differs and does no harm, a sentence each.

    Raises:
        IncompatibleChainError: An id is another token, or a text becomes other ids; names the first
            ten.
    """
    position = latest if members[latest].tokenizer_digest is not None else model
    digest = members[position].tokenizer_digest
    notes = _template_notes(members, tags, position)
    others = [
        i
        for i, member in enumerate(members)
        if member.tokenizer_digest not in (None, digest) and i != position
    ]
    if not others:
        return notes
    if digest is None:
        return (*notes, f"tokenizer: none in {tags[latest]} (used)")
    used = _read(members[position], tags[position])
    known: dict[str | None, TokenizerMeaning] = {}
    for i in others:
        member = _read(members[i], tags[i], known.get(members[i].tokenizer_digest))
        known[members[i].tokenizer_digest] = member.meaning
        notes = (*notes, *_compare(member, used, allow_differences=allow_differences))
    return tuple(dict.fromkeys((*notes, *_beyond(used, members[model]))))


def _read(checkpoint: Checkpoint, tag: str, meaning: TokenizerMeaning | None = None) -> _Member:
    if meaning is None:
        try:
            meaning = tokenizer_meaning(checkpoint.source, checkpoint.files, checkpoint.config)
        except CheckpointError as error:
            raise IncompatibleChainError(
                f"the tokenizers differ in writing, and what they do cannot be compared: {error}",
                fix="Save the tokenizer of the latest checkpoint into the others.",
            ) from None
    return _Member(tag, checkpoint, meaning)


def _compare(member: _Member, used: _Member, *, allow_differences: bool) -> list[str]:
    """What one member's tokenizer does otherwise than the one that is used."""
    ours, theirs = used.meaning, member.meaning
    renamed = _renamed(theirs, ours)
    few = len(renamed) <= _MOST_RENAMED * len(theirs.tokens)
    if renamed and not (few and allow_differences):
        raise IncompatibleChainError(
            f"the tokenizers of {member.checkpoint.reference} and {used.checkpoint.reference} "
            f"differ: {len(renamed)} ids stand for other tokens",
            got=", ".join(islice(_shown(renamed, theirs, ours), _SHOWN)),
            expected="one vocabulary: an id is a row of the embedding",
            fix=f"Where they are placeholders that were renamed, {_OPTION}."
            if few
            else "A chain is one model and its fine-tuned iterations; leave this one out.",
        )
    split = _split_otherwise(theirs, ours)
    if split is not None and not allow_differences:
        raise IncompatibleChainError(
            f"the tokenizers of {member.checkpoint.reference} and {used.checkpoint.reference} "
            "differ: the same text becomes other ids",
            got=f"{PROBES[split]!r}: {_sequences(split, theirs, ours)}",
            expected="one way to split a text",
            fix=f"To go on with the latest one's, {_OPTION}: ids stand for the same tokens.",
        )
    notes = []
    if renamed:
        shown = ", ".join(islice(_shown(renamed, theirs, ours), _SHOWN))
        notes.append(f"tokenizer: other tokens in {member.tag} and {used.tag} (used): {shown}")
    if split is not None:
        notes.append(
            f"tokenizer: {member.tag} splits texts otherwise than {used.tag} (used), "
            f"such as {PROBES[split]!r}"
        )
    notes += _counted(f"{used.tag} (used) has", f"more than {member.tag}", ours, theirs)
    notes += _counted(f"{member.tag} has", f"more than {used.tag} (used)", theirs, ours)
    if split is None and theirs.marked != ours.marked and theirs.probes[0] == ours.probes[0]:
        notes.append(
            f"tokenizer: special tokens around a text: {_around(theirs)} in {member.tag}, "
            f"{_around(ours)} in {used.tag} (used)"
        )
    return notes


def _renamed(theirs: TokenizerMeaning, ours: TokenizerMeaning) -> list[int]:
    """Ids that are another token, or whose token has another id, in the other one."""
    places = {token: index for index, token in ours.tokens.items()}
    return [
        index
        for index, token in sorted(theirs.tokens.items())
        if ours.tokens.get(index, token) != token or places.get(token, index) != index
    ]


def _shown(
    indices: Iterable[int], theirs: TokenizerMeaning, ours: TokenizerMeaning
) -> Iterable[str]:
    for index in indices:
        yield f"{index} {_token(theirs, index)} / {_token(ours, index)}"


def _token(meaning: TokenizerMeaning, index: int) -> str:
    token = meaning.tokens.get(index)
    return "nothing" if token is None else repr(token[:_LONGEST_TOKEN])


def _split_otherwise(theirs: TokenizerMeaning, ours: TokenizerMeaning) -> int | None:
    """The first text that becomes other ids, tokens that only one of the two has apart."""
    shared = theirs.tokens.keys() & ours.tokens.keys()
    for position, (left, right) in enumerate(zip(theirs.probes, ours.probes, strict=True)):
        if left != right and shared.issuperset((*left, *right)):
            return position
    return None


def _sequences(position: int, theirs: TokenizerMeaning, ours: TokenizerMeaning) -> str:
    """The ids from the first that differs on, with their tokens, as one and as the other has it."""
    left, right = theirs.probes[position], ours.probes[position]
    start = next(
        (i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b),
        min(len(left), len(right)),
    )
    return " / ".join(
        ", ".join(f"{index} {_token(meaning, index)}" for index in ids[start : start + _SHOWN])
        or "nothing"
        for ids, meaning in ((left, theirs), (right, ours))
    )


def _counted(has: str, more: str, meaning: TokenizerMeaning, other: TokenizerMeaning) -> list[str]:
    extra = sorted(meaning.tokens.keys() - other.tokens.keys())
    if not extra:
        return []
    shown = ", ".join(f"{index} {_token(meaning, index)}" for index in extra[:_SHOWN])
    return [f"tokenizer: {has} {len(extra)} token(s) {more}: {shown}"]


def _around(meaning: TokenizerMeaning) -> str:
    plain, marked = meaning.probes[0], meaning.marked
    for start in range(len(marked) - len(plain) + 1):
        end = start + len(plain)
        if marked[start:end] == plain:
            return f"{list(marked[:start])} before and {list(marked[end:])} after it"
    return "others"


def _beyond(used: _Member, model: Checkpoint) -> list[str]:
    """Tokens without a row: a text that has one of them cannot be answered."""
    embedding = find_embedding(model.tensors)
    if embedding is None:
        return []
    rows = embedding.shape[0]
    beyond = sorted(index for index in used.meaning.tokens if index >= rows)
    if not beyond:
        return []
    shown = ", ".join(f"{index} {_token(used.meaning, index)}" for index in beyond[:_SHOWN])
    return [f"tokenizer: tokens of {used.tag} (used) that have none of the {rows} rows: {shown}"]


def _template_notes(
    members: Sequence[Checkpoint], tags: Sequence[str], used: int
) -> tuple[str, ...]:
    """Which chat template is used, where they differ."""
    digests = {
        i: chat_template_digest(member.source, member.files)
        for i, member in enumerate(members)
        if member.tokenizer_digest is not None
    }
    if len(set(digests.values())) < 2:
        return ()
    groups = [
        (value, [tags[i] for i, digest in digests.items() if digest == value])
        for value in dict.fromkeys(digests.values())
    ]
    parts = [
        f"{'none' if value is None else value[:8]} in {', '.join(names)}"
        + (" (used)" if digests.get(used) == value else "")
        for value, names in groups
    ]
    return (f"chat template: {', '.join(parts)}",)
