"""Reads a prompt and an expected output from the fields of a record."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from ztom.io.text import Place
from ztom.stimuli.records import Message, Prompt

ROLES = ("system", "user", "assistant")
#: Names a prompt may have, with what each may hold.
PROMPT_FIELDS: Mapping[str, tuple[str, ...]] = {
    "prompt": ("text", "messages"),
    "text": ("text",),
    "messages": ("messages",),
    "input": ("text", "numbers"),
    "features": ("numbers",),
}
#: Names an expected output may have.
EXPECTED_FIELDS = ("expected", "expected_output", "target", "response", "label", "category")


def the_one_field(
    record: Mapping[str, object], names: Sequence[str], *, place: Place
) -> str | None:
    """The one of ``names`` that the record has, or None.

    Raises:
        StimuliError: It has more than one.
    """
    present = [name for name in names if name in record]
    if len(present) > 1:
        raise place.error("the same thing is given twice", got=", ".join(present), expected="one")
    return present[0] if present else None


def parse_prompt(value: object, *, field: str, place: Place) -> Prompt:
    """A prompt: text, chat turns, or a row of numbers, as far as ``field`` may hold them.

    Raises:
        StimuliError: The value is something else.
    """
    kinds = PROMPT_FIELDS[field]
    if isinstance(value, str) and "text" in kinds:
        if not value.strip():
            raise place.error(f"{field} is empty")
        return value
    if isinstance(value, list) and value:
        if "numbers" in kinds and all(_is_number(item) for item in value):
            return tuple(float(item) for item in value)
        if "messages" in kinds:
            return parse_messages(value, place=place)
    raise place.error(f"{field} is not usable", got=_kind(value), expected=" or ".join(kinds))


def parse_messages(value: object, *, place: Place) -> tuple[Message, ...]:
    """Chat turns from a list of ``{role, content}``.

    Raises:
        StimuliError: It is empty or something else, or a role is unknown.
    """
    if not isinstance(value, list) or not value:
        raise place.error("messages are not usable", got=_kind(value), expected="a list of turns")
    return tuple(_parse_turn(turn, i, place=place) for i, turn in enumerate(value))


def _parse_turn(turn: object, number: int, *, place: Place) -> Message:
    if not isinstance(turn, dict) or set(turn) != {"role", "content"}:
        got = ", ".join(sorted(turn))[:100] if isinstance(turn, dict) else _kind(turn)
        raise place.error(
            f"messages[{number}]", got=got, expected="an object with role and content"
        )
    role, content = turn["role"], turn["content"]
    if role not in ROLES:
        shown = role if isinstance(role, str) and len(role) <= 20 else _kind(role)
        raise place.error(f"messages[{number}].role", got=shown, expected=", ".join(ROLES))
    if not isinstance(content, str):
        raise place.error(f"messages[{number}].content", got=_kind(content), expected="text")
    return Message(role, content)


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
    raise place.error(f"{field} is not usable", got=_kind(value), expected="text or numbers")


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


def parse_number(text: str) -> float | None:
    """The finite number that ``text`` is, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kind(value: object) -> str:
    """What ``value`` is, without saying what it holds."""
    if value is None:
        return "null"
    names = {bool: "true or false", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")
