"""What the members of a chain say of themselves: what has to agree, and what is named.

A blend has the latest one's configuration, tokenizer and files. Where another member says something
else that changes what its weights compute (``rms_norm_eps``, the theta of rotary positions), the
steps between them mean something else, and the chain is refused. Where it says something else that
only changes answers (the ids that end a text, the chat template), the latest one's holds and the
difference is named, once, in reports and recipes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ztom.checkpoints.checkpoint import Checkpoint
from ztom.checkpoints.config_meaning import Meaning, config_meanings, is_read, labels_of
from ztom.checkpoints.layout import read_json

GENERATION_CONFIG = "generation_config.json"

#: Keys that do not change what weights compute, and change answers.
_ANSWERS = re.compile(
    r"(bos|eos|pad|sep|cls|mask|unk|decoder_start|forced_bos|forced_eos)_token_ids?"
    r"|problem_type|prefix|task_specific_params|do_sample|temperature|top_[kp]|typical_p"
    r"|num_beams|num_beam_groups|num_return_sequences|(max|min)_(new_tokens|length)"
    r"|early_stopping|(repetition|length|diversity)_penalty|(encoder_)?no_repeat_ngram_size"
    r"|bad_words_ids|suppress_tokens|begin_suppress_tokens|remove_invalid_values"
)
#: The longest text: no part of the function unless rotary positions are stretched by it.
_LENGTH = re.compile(
    r"max_position_embeddings|n_positions|n_ctx|max_seq_len|seq_length|model_max_length"
    r"|max_sequence_length"
)
_STRETCHED = frozenset({"dynamic", "longrope", "su", "yarn"})
#: What the tensors decide: their rows, and whether a head is stored and repeats the embedding.
_BY_TENSORS = frozenset({"vocab_size", "tie_word_embeddings"})
#: Keys of ``generation_config.json`` that say how it came about, or change no answer.
_PROVENANCE = frozenset({"_from_model_config", "transformers_version", "use_cache"})
_LONGEST = 80


@dataclass(frozen=True, slots=True)
class ValueOf:
    """One value, and who says so.

    Attributes:
        value: The value as text.
        tags: Names of the members that say it.
    """

    value: str
    tags: tuple[str, ...]


def config_problems(
    base: Checkpoint, member: Checkpoint, *, allowed: Sequence[str]
) -> Mapping[str, str]:
    """Keys in which two configurations mean different functions, with both values as text.

    Args:
        base: A full model.
        member: Another one.
        allowed: Keys in which they may.
    """
    ours, theirs = config_meanings([base.config, member.config])
    keys = [key for key in _changed(ours, theirs) if _is_function(base, key, ours, theirs)]
    problems = {key: f"{_text(ours.get(key))} / {_text(theirs.get(key))}" for key in keys}
    moved = _moved_label(labels_of(base.config), labels_of(member.config))
    if moved is not None:
        problems["id2label"] = moved
    return {key: values for key, values in problems.items() if key not in allowed}


def find_differences(
    members: Sequence[Checkpoint], tags: Sequence[str], *, latest: int, model: int
) -> tuple[str, ...]:
    """What members of a chain that fit say differently, one sentence each.

    Args:
        members: Checkpoints of the chain, base first.
        tags: Name of each.
        latest: Position of the checkpoint that a blend without any step is.
        model: Position of the full model whose configuration a blend has.
    """
    full = [i for i, member in enumerate(members) if member.kind == "full"]
    configs = _with_generation([members[i].config for i in full])
    sentences = [
        _sentence(f"config {key}", values, tags[model])
        for key, values in _by_key(configs, [tags[i] for i in full])
        if _is_named(members[model], key)
    ]
    labels = [dict(labels_of(members[i].config)) or None for i in full]
    sentences += _differing("config id2label", labels, [tags[i] for i in full], tags[model])
    return (*sentences, *_generation_notes(members, tags, latest=latest, model=model))


def _generation_notes(
    members: Sequence[Checkpoint], tags: Sequence[str], *, latest: int, model: int
) -> list[str]:
    """What those that have a ``generation_config.json`` say differently."""
    holders = [i for i, member in enumerate(members) if GENERATION_CONFIG in member.files]
    used = latest if latest in holders else model
    if holders and used not in holders:
        return [f"generation_config: none in {tags[used]} (used)"]
    contents = [_generation(members[i]) for i in holders]
    return [
        _sentence(f"generation_config {key}", values, tags[used])
        for key, values in _by_key(contents, [tags[i] for i in holders])
    ]


def _with_generation(configs: Sequence[Mapping[str, Any]]) -> list[Meaning]:
    """What configurations mean, and what they say of generating text, which classes leave out."""
    meanings = config_meanings(configs)
    known = {key for meaning in meanings for key in meaning}
    return [
        {
            **meaning,
            **{k: v for k, v in config.items() if _ANSWERS.fullmatch(k) and k not in known},
        }
        for meaning, config in zip(meanings, configs, strict=True)
    ]


def _is_function(base: Checkpoint, key: str, ours: Meaning, theirs: Meaning) -> bool:
    last = key.rpartition(".")[2]
    if last in _BY_TENSORS or _ANSWERS.fullmatch(last):
        return False
    if _LENGTH.fullmatch(last):
        kinds = {
            str(value)
            for meaning in (ours, theirs)
            for name, value in meaning.items()
            if name.rpartition(".")[2] in ("rope_type", "type")
        }
        return bool(kinds & _STRETCHED)
    return is_read(base.config, key)


def _is_named(model: Checkpoint, key: str) -> bool:
    """Whether a difference that was accepted is worth a line: not what the tensors say anyway."""
    return key.rpartition(".")[2] not in _BY_TENSORS


def _changed(ours: Meaning, theirs: Meaning) -> list[str]:
    # in lists, where NaN is itself
    keys = sorted(ours.keys() | theirs.keys())
    return [key for key in keys if [ours.get(key)] != [theirs.get(key)]]


def _moved_label(ours: Mapping[int, str], theirs: Mapping[int, str]) -> str | None:
    """A class that is another output in the other model: its rows would be mixed up."""
    places = {label: index for index, label in theirs.items()}
    for index, label in sorted(ours.items()):
        if places.get(label, index) != index:
            return f"{label!r} is output {index} / {places[label]}"
    return None


def _generation(member: Checkpoint) -> Meaning:
    content = read_json(member.source, GENERATION_CONFIG)
    return {k: v for k, v in content.items() if v is not None and k not in _PROVENANCE}


def _by_key(
    contents: Sequence[Meaning], tags: Sequence[str]
) -> Iterator[tuple[str, tuple[ValueOf, ...]]]:
    """Each key that is not the same everywhere, with its values."""
    for key in sorted({key for content in contents for key in content}):
        values = _values([_one_id(key, content.get(key)) for content in contents], tags)
        if len(values) > 1:
            yield key, values


def _one_id(key: str, value: Any) -> Any:
    """A list of one id is that id."""
    is_list = isinstance(value, list) and len(value) == 1
    return value[0] if is_list and key.endswith("_token_id") else value


def _values(values: Sequence[Any], tags: Sequence[str]) -> tuple[ValueOf, ...]:
    """Each value once, cut to a length that can be read, and who says so."""
    texts = [_whole(value) for value in values]
    return tuple(
        ValueOf(
            _cut(text), tuple(tag for tag, other in zip(tags, texts, strict=True) if other == text)
        )
        for text in dict.fromkeys(texts)
    )


def _differing(what: str, values: Sequence[Any], tags: Sequence[str], used: str) -> list[str]:
    grouped = _values(values, tags)
    return [_sentence(what, grouped, used)] if len(grouped) > 1 else []


def _sentence(what: str, values: Sequence[ValueOf], used: str) -> str:
    """``config eos_token_id: 2 in base, 7 in tuned (used)``."""
    parts = [
        f"{entry.value} in {', '.join(entry.tags)}" + (" (used)" if used in entry.tags else "")
        for entry in values
    ]
    return f"{what}: {', '.join(parts)}"


def _text(value: Any) -> str:
    return _cut(_whole(value))


def _whole(value: Any) -> str:
    if value is None:
        return "nothing"
    try:
        return repr(value)
    except RecursionError:  # nobody reads it, and the file is read as it was written
        return "something that is nested too deeply"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
