"""Stimuli that are files of their own: a chat, a text or a tensor each.

What a file holds becomes lines of JSON Lines, so that all of it is read by one reader
(`ztom.stimuli.files`):

* ``.json``: a list of turns, or an object with a prompt, is one stimulus; a list of those is as
  many; numbers, nested or not, are a tensor. JSON Lines under this name stay what they are.
* ``.csv``: lines of numbers are one tensor. It is flattened row by row: a row of numbers is what a
  plain module takes.
* ``.txt``: a prompt; a JSON document a line stays what it is.

Images have no meaning for a language model and are refused.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ztom.errors import StimuliError
from ztom.io.bounded import OverLimitError
from ztom.io.json import ASIDE_BYTES, parsers
from ztom.io.text import Place
from ztom.stimuli.csv_files import parse_number
from ztom.stimuli.json_values import parse_json
from ztom.stimuli.turns import is_turn

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_LINES = (".jsonl", ".ndjson")
#: Most lists and objects of one document.
_MOST_PARTS = 500_000
#: Seconds of computing that reading a long file may take.
_CPU_S = 20.0


def stimulus_lines(name: str, content: bytes) -> list[str] | None:
    """The stimuli of a file as lines of JSON; None where it is read as it is: JSON Lines, a table.

    Args:
        name: Name of the file, which errors speak of; its suffix says what it is.
        content: Bytes of the file.

    Raises:
        StimuliError: It is not what its suffix says, or an image, or takes too much to read.
    """
    if len(content) <= ASIDE_BYTES or PurePosixPath(name).suffix.lower() in _LINES:
        return lines_of(name, content)
    lines: list[str] | None = _aside("lines_of", name, content)
    return lines


def lines_of(name: str, content: bytes) -> list[str] | None:
    """`stimulus_lines`, in this process.

    Args:
        name: Name of the file.
        content: Bytes of the file.

    Raises:
        StimuliError: See `stimulus_lines`.
    """
    suffix = PurePosixPath(name).suffix.lower()
    place = Place(Path(name), 1)
    if suffix in IMAGES:
        raise place.error(
            "an image is no stimulus for a model of text", expected="chat turns, text or numbers"
        )
    if suffix in _LINES:
        return None
    parts = content.count(b"[") + content.count(b"{")
    if parts > _MOST_PARTS:
        raise place.error(
            "the file has too many lists and objects", got=parts, expected=f"at most {_MOST_PARTS}"
        )
    text = decoded(content, place)
    if suffix == ".csv":
        return _from_numbers(text, name)
    if suffix == ".json":
        return _from_json(text, place)
    if suffix == ".txt" and not _are_documents(text):
        return [json.dumps({"prompt": text.strip()})]
    return None


def with_ids(lines: Sequence[str], names: Sequence[str]) -> list[str]:
    """Lines of files with one stimulus each, called after their files where those names differ.

    Args:
        lines: A stimulus a line, as `stimulus_lines` gives them.
        names: Name of the file of each line.

    Raises:
        StimuliError: They take too much to read.
    """
    if sum(map(len, lines)) <= ASIDE_BYTES:
        return named_lines(lines, names)
    named: list[str] = _aside("named_lines", list(lines), list(names))
    return named


def named_lines(lines: Sequence[str], names: Sequence[str]) -> list[str]:
    """`with_ids`, in this process.

    Args:
        lines: A stimulus a line.
        names: Name of the file of each line.
    """
    stems = [PurePosixPath(name).stem for name in names]
    if len(set(stems)) < len(stems):
        return list(lines)
    values = [json.loads(line) for line in lines]
    return [
        json.dumps({"id": stem, **value}) if isinstance(value, dict) else line
        for stem, value, line in zip(stems, values, lines, strict=True)
    ]


def _aside(task: str, *arguments: object) -> Any:
    """What is long is read in another process, with limits."""
    try:
        return parsers().call(f"{__name__}:{task}", *arguments, cpu_s=_CPU_S)
    except OverLimitError as error:
        raise StimuliError(
            "the stimuli cannot be read",
            reason=error,
            fix="Send them as JSON Lines, or in several files.",
        ) from None


def decoded(content: bytes, place: Place) -> str:
    """The text of a file, without a byte-order mark.

    Raises:
        StimuliError: It is empty, not UTF-8, or holds a NUL.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Place(place.path, line).error("not UTF-8", fix="Save it as UTF-8 text.") from None
    if not text.strip():
        raise place.error("the file is empty", expected="a stimulus")
    if (nul := text.find("\0")) >= 0:
        raise Place(place.path, text.count("\n", 0, nul) + 1).error("a NUL character")
    return text


def _from_json(text: str, place: Place) -> list[str] | None:
    if _are_documents(text) and len(text.strip().splitlines()) > 1:
        return None  # JSON Lines under another name
    value = parse_json(text, place=place)
    if _is_list_of_stimuli(value) and isinstance(value, list):
        return [json.dumps(item) for item in value]
    if isinstance(value, str):
        return [json.dumps({"prompt": value})]
    if isinstance(value, list):
        numbers = list(_flattened(value))
        if numbers and all(number is not None for number in numbers):
            return [json.dumps({"input": numbers})]
        return [json.dumps({"messages": value})]
    if isinstance(value, dict):
        return [json.dumps(value)]
    raise place.error("the file is no stimulus", expected="a list of turns, or an object")


def _are_documents(text: str) -> bool:
    """Whether every line is a list or an object."""
    try:
        values = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        return False
    return all(isinstance(value, dict | list) for value in values)


def _is_list_of_stimuli(value: object) -> bool:
    """Whether it is a list of chats, texts or objects with a prompt, not of turns or numbers."""
    if not isinstance(value, list) or not value:
        return False
    if all(isinstance(item, list) for item in value):
        return all(isinstance(turn, dict) for item in value for turn in item)
    if all(isinstance(item, dict) for item in value):
        return not any(map(is_turn, value))
    return all(isinstance(item, str) for item in value)


def _flattened(value: object) -> Iterator[float | None]:
    """The numbers in nested lists, in order; None for what is none."""
    if isinstance(value, list):
        for item in value:
            yield from _flattened(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)
    else:
        yield None


def _from_numbers(text: str, name: str) -> list[str] | None:
    """One tensor; None for a table with names in its first line."""
    rows = list(_rows(text, name))
    numbers = [[parse_number(field) for field in row] for row in rows]
    if any(number is None for number in numbers[0]):
        return None
    for line, row in enumerate(numbers, start=1):
        if len(row) != len(numbers[0]) or any(number is None for number in row):
            raise Place(Path(name), line).error(
                "the row does not fit a tensor",
                got=f"{len(row)} fields",
                expected=f"{len(numbers[0])} finite numbers, as in the first line",
            )
    flat = [number for row in numbers for number in row]
    return [json.dumps({"input": flat})]


def _rows(text: str, name: str) -> Iterator[Sequence[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        yield from (row for row in reader if row)
    except csv.Error as error:
        raise StimuliError(f"{name}, line {reader.line_num}: malformed CSV: {error}") from None
