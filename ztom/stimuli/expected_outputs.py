"""The second file of the two-file form: one expected output per stimulus, in the same order.

The suffix says what it is. ``.csv``: one column, a column named as in `EXPECTED_FIELDS`, a one-hot
or number row per stimulus, or a header of the labels over one-hot rows. ``.jsonl``, ``.ndjson``,
``.json``: a text, number or list per line, or an object with one of those names and perhaps the
stimulus's ``id``. Anything else is plain text, one reply a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ztom.errors import StimuliError
from ztom.io.text import Place
from ztom.stimuli.csv_files import Row, parse_number, read_rows
from ztom.stimuli.fields import EXPECTED_FIELDS, parse_expected, the_one_field
from ztom.stimuli.json_values import parse_json
from ztom.stimuli.text_files import check_length, read_lines

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")


def read_expected_outputs(path: Path, *, ids: Sequence[str], labels: Sequence[str]) -> list[str]:
    """One expected output per stimulus.

    Args:
        path: File of the expected outputs.
        ids: Ids of the stimuli, in order.
        labels: Class labels, where the task has them.

    Raises:
        StimuliError: The file is malformed, or has another number of entries than there are
            stimuli.
    """
    if path.suffix.lower() in (".csv", ".tsv"):
        return _from_rows(path, ids=ids, labels=labels)
    lines = read_lines(path)
    _check_count(path, len(lines), len(ids))
    if path.suffix.lower() in JSON_SUFFIXES:
        return [
            _from_json(line, stimulus_id, labels, place=place)
            for (place, line), stimulus_id in zip(lines, ids, strict=True)
        ]
    for place, line in lines:
        check_length(line, place=place, field="the line")
    return [parse_expected(line, labels, field="the line", place=place) for place, line in lines]


def _from_json(line: str, stimulus_id: str, labels: Sequence[str], *, place: Place) -> str:
    value = parse_json(line, place=place)
    if not isinstance(value, dict):
        return parse_expected(value, labels, field="the expected output", place=place)
    field = the_one_field(value, EXPECTED_FIELDS, place=place)
    if field is None or set(value) - {field, "id"}:
        raise place.error(
            "the expected output is not usable",
            got=f"keys {', '.join(sorted(value))[:100]}",
            expected=f"one of {', '.join(EXPECTED_FIELDS)}, and perhaps id",
        )
    if "id" in value and str(value["id"]) != stimulus_id:
        raise place.error(
            "the id is not that of the stimulus on this position", expected=stimulus_id
        )
    return parse_expected(value[field], labels, field=field, place=place)


def _from_rows(path: Path, *, ids: Sequence[str], labels: Sequence[str]) -> list[str]:
    rows = read_rows(path, names=(*EXPECTED_FIELDS, *(label.lower() for label in labels)))
    header = [name.strip().lower() for name in rows[0][1]]
    named = [i for i, name in enumerate(header) if name in EXPECTED_FIELDS]
    # One column that begins "target" has a header only if that leaves the right number.
    if len(named) == 1 and (len(header) > 1 or len(rows) == len(ids) + 1):
        return _texts(path, rows[1:], named[0], ids=ids, labels=labels)
    if len(header) == 1:
        return _texts(path, rows, 0, ids=ids, labels=labels)
    order: Sequence[str] = labels
    if labels and sorted(rows[0][1]) == sorted(labels):
        order, rows = rows[0][1], rows[1:]
    _check_count(path, len(rows), len(ids))
    return [
        parse_expected(_numbers(row, place=place), order, field="the row", place=place)
        for place, row in rows
    ]


def _texts(
    path: Path, rows: Sequence[Row], column: int, *, ids: Sequence[str], labels: Sequence[str]
) -> list[str]:
    _check_count(path, len(rows), len(ids))
    return [
        parse_expected(row[column], labels, field="the expected output", place=place)
        for place, row in rows
    ]


def _numbers(row: Sequence[str], *, place: Place) -> list[float]:
    numbers = [parse_number(field) for field in row]
    given = [number for number in numbers if number is not None]
    if len(given) != len(row):
        raise place.error(
            "a row of several columns has to hold numbers",
            fix=f"Name the column of the expected output one of {', '.join(EXPECTED_FIELDS)}.",
        )
    return given


def _check_count(path: Path, outputs: int, stimuli: int) -> None:
    if outputs != stimuli:
        raise StimuliError(
            f"{path}: not one expected output per stimulus",
            got=f"{outputs} expected outputs",
            expected=f"{stimuli}, the number of stimuli",
        )
