"""Reads a prompt and an expected output from the fields of a record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from ztom.io.text import Place
from ztom.stimuli.csv_files import parse_number
from ztom.stimuli.turns import kind

#: Names of a prompt that is text, rows of numbers and turns besides where `parse_prompt` says so.
PLAIN_FIELDS = ("prompt", "text", "input", "features", "question", "query")
#: Names of what follows an instruction or a question, after a blank line.
CONTEXT_FIELDS = ("input", "context")
#: Names of a conversation.
TURN_FIELDS = ("messages", "conversations", "conversation")
PROMPT_FIELDS = (*PLAIN_FIELDS, "instruction", *TURN_FIELDS)
#: Names an expected output may have; one that is a class is taken where the task has labels.
CLASS_FIELDS = ("label", "category")
TEXT_FIELDS = (
    *("expected", "expected_output", "target", "response"),
    *("completion", "output", "answer", "chosen"),
)
EXPECTED_FIELDS = (*TEXT_FIELDS, *CLASS_FIELDS)


def the_one_field(
    record: Mapping[str, object], names: Sequence[str], *, place: Place
) -> str | None:
    """The one of ``names`` that the record has, or None; of several that are equal the first.

    Raises:
        StimuliError: It has several that differ.
    """
    present = [name for name in names if record.get(name) is not None]
    if any(record[name] != record[present[0]] for name in present):
        raise place.error("the same thing is given twice", got=", ".join(present), expected="one")
    return present[0] if present else None


def parse_text(value: object, *, field: str, place: Place) -> str:
    """A text that is not empty.

    Raises:
        StimuliError: The value is something else.
    """
    if not isinstance(value, str):
        raise place.error(f"{field} is not usable", got=kind(value), expected="text")
    if not value.strip():
        raise place.error(f"{field} is empty")
    return value


def parse_numbers(value: object) -> tuple[float, ...] | None:
    """A row of numbers, or None where the value is none."""
    if isinstance(value, list) and value and all(_is_number(item) for item in value):
        return tuple(float(item) for item in value)
    return None


def parse_expected(value: object, labels: Sequence[str], *, field: str, place: Place) -> str:
    """An expected output as text.

    With labels it is one of them: by name, by index from 0, or as a one-hot row. Without labels a
    number is its shortest text and a row of numbers a JSON list.

    Raises:
        StimuliError: The value is something else.
    """
    if labels:
        return labels[_label_index(value, labels, field=field, place=place)]
    if isinstance(value, str):
        if not value.strip():
            raise place.error(f"{field} is empty")
        return value
    if _is_number(value):
        return json.dumps(value)
    if isinstance(value, list) and value and all(_is_number(item) for item in value):
        return json.dumps(value)
    raise place.error(f"{field} is not usable", got=kind(value), expected="text or numbers")


def _label_index(value: object, labels: Sequence[str], *, field: str, place: Place) -> int:
    if isinstance(value, str):
        if value in labels:
            return labels.index(value)
        number = parse_number(value)
        value = int(number) if number is not None and number.is_integer() else None
    if isinstance(value, list) and all(_is_number(item) for item in value):
        hot = [i for i, item in enumerate(value) if item == 1]
        if len(value) == len(labels) and len(hot) == 1 and value.count(0) == len(labels) - 1:
            return hot[0]
        value = None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(labels):
        return value
    raise place.error(
        f"{field} is not a label",
        expected=f"one of the {len(labels)} labels, its index from 0, or a one-hot row",
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
