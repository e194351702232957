"""Records of JSON files: one a line (JSON Lines), or one document for all of them.

A document is a list of records, a single record, or the list of turns of a single conversation.
What a file is follows from its content: whose first line is a value of its own is JSON Lines,
except that one line may hold the list of all records.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ztom.errors import StimuliError
from ztom.io.text import Place
from ztom.stimuli.json_values import parse_json
from ztom.stimuli.text_files import read_text, split_lines
from ztom.stimuli.turns import is_turn

#: Most lists and objects of one record.
MAX_PARTS = 100_000
#: A record, and its place in the file.
Record = tuple[Place, object]


def read_json_records(path: Path, *, on_blank: Callable[[Place], None]) -> tuple[str, list[Record]]:
    """The kind of file, ``JSON Lines`` or ``JSON``, and its records.

    Args:
        path: Path of the file.
        on_blank: Callback that takes the place of each blank line between others.

    Raises:
        StimuliError: The file cannot be read, or is not JSON; names the line.
    """
    text = read_text(path)
    lines = split_lines(path, text, on_blank=lambda place: None)
    place, first = lines[0]
    try:
        value = parse_json(first, place=place)
    except StimuliError as error:
        return "JSON", _records_of(path, _document(path, text, error))
    if len(lines) == 1:
        return _single(path, place, value, first)
    lines = split_lines(path, text, on_blank=on_blank)
    for where, line in lines:
        _require_small(line, where)
    rest = [(where, parse_json(line, place=where)) for where, line in lines[1:]]
    return "JSON Lines", [(place, value), *rest]


def _require_small(line: str, place: Place) -> None:
    """Refuse a record of so many parts that no stimulus has them, and reading it never ends."""
    parts = line.count("[") + line.count("{")
    if parts > MAX_PARTS:
        raise place.error(
            "a record has too many lists and objects", got=parts, expected=f"at most {MAX_PARTS}"
        )


def _single(path: Path, place: Place, value: object, line: str) -> tuple[str, list[Record]]:
    """The records of a file of one line, which may be either."""
    items = value if isinstance(value, list) and not any(map(is_turn, value)) else []
    if items and all(isinstance(item, dict | list) for item in items):
        return "JSON", _records_of(path, value)
    _require_small(line, place)
    return "JSON Lines", [(place, value)]


def _document(path: Path, text: str, error: StimuliError) -> object:
    """The file as one document; ``error`` is what is wrong with its first line alone."""
    try:
        return parse_json(text, place=Place(path, 1))
    except StimuliError as whole:
        raise (whole if path.suffix.lower() == ".json" else error) from None


def _records_of(path: Path, value: object) -> list[Record]:
    if isinstance(value, list) and not any(map(is_turn, value)):
        if not value:
            raise Place(path, 1).error("the list is empty", expected="at least one record")
        return [(Place(path, i, unit="record"), item) for i, item in enumerate(value, start=1)]
    return [(Place(path, 1, unit="record"), value)]
