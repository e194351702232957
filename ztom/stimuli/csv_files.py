"""CSV as spreadsheets write it: commas, semicolons or tabs, with or without a byte-order mark.

Which of the three separates the columns follows from the file, in this order: a first line
``sep=;``, the suffix ``.tsv``, a first row that has a known name, rows of numbers, the separator
that gives every row the same number of columns, the most of them. Nothing else is guessed: numbers
with decimal commas are refused, and so is a row that is shorter or longer than the first.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from ztom.errors import StimuliError
from ztom.io.text import Place
from ztom.stimuli.text_files import check_length, read_text

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*")

Row = tuple[Place, list[str]]


def read_rows(
    path: Path,
    *,
    names: Collection[str] = (),
    on_blank: Callable[[Place], None] | None = None,
) -> list[Row]:
    """The rows of a CSV file, all of the same length, each with the line it starts on.

    Args:
        path: Path of the file.
        names: Names, in lower case, that a header may have: they tell the separator.
        on_blank: Callback that takes the place of each row without anything in it, which is then
            passed over; without it such a row is an error.

    Raises:
        StimuliError: The file cannot be read (see `read_text`), or the CSV is malformed: a quote is
            not closed, a row is shorter or longer than the first, a field is too long.
    """
    return read_separated_rows(path, names=names, on_blank=on_blank)[1]


def read_separated_rows(
    path: Path,
    *,
    names: Collection[str] = (),
    on_blank: Callable[[Place], None] | None = None,
) -> tuple[str, list[Row]]:
    """The separator, and the rows; see `read_rows`.

    Raises:
        StimuliError: See `read_rows`.
    """
    text, first_line, delimiter = _without_separator_line(path, read_text(path))
    if delimiter is None:
        delimiter = _delimiter(path, text, names)
    rows = []
    for place, row in _parse_rows(path, text, delimiter, first_line):
        if any(field.strip() for field in row):
            rows.append((place, row))
        elif on_blank is None:
            raise place.error("the row is blank", fix="Remove it, or fill it in.")
        else:
            on_blank(place)
    if not rows:
        raise StimuliError(
            f"{path}: every row is blank", expected="a row with something in it", got="none"
        )
    _check_rows(rows, delimiter)
    return delimiter, rows


def parse_number(text: str) -> float | None:
    """The finite number that ``text`` is, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _check_rows(rows: Sequence[Row], delimiter: str) -> None:
    columns = len(rows[0][1])
    for place, row in rows:
        if len(row) != columns:
            raise place.error(
                "the row has the wrong number of columns",
                got=len(row),
                expected=f"{columns}, as in the first row ({DELIMITERS[delimiter]} separate them)",
            )
        for field in row:
            check_length(field, place=place, field="a field")
    place, row = rows[0]
    if _has_decimal_commas(row):
        raise place.error(
            "numbers with decimal commas", expected="decimal points, as in 0.5, in every row"
        )


def _has_decimal_commas(row: Sequence[str]) -> bool:
    """Whether a row is of numbers, some of them with a comma before the fraction."""
    commas = [_DECIMAL_COMMA.fullmatch(field) is not None for field in row]
    return any(commas) and all(
        comma or parse_number(field) is not None for comma, field in zip(commas, row, strict=True)
    )


def _without_separator_line(path: Path, text: str) -> tuple[str, int, str | None]:
    """The text, the number of its first line, and the separator that a ``sep=`` line names."""
    first, _, rest = text.partition("\n")
    name = first.strip().lower()
    if path.suffix.lower() == ".tsv":
        return text, 1, "\t"
    for delimiter in DELIMITERS:
        if first.rstrip("\r") == f"sep={delimiter}" or name == f"sep={delimiter}":
            if not rest.strip():
                raise Place(path, 2).error("there is a separator and nothing else")
            return rest, 2, delimiter
    return text, 1, None


def _delimiter(path: Path, text: str, names: Collection[str]) -> str:
    firsts: dict[str, list[str]] = {}
    for delimiter in DELIMITERS:
        try:
            firsts[delimiter] = next(_parse_rows(path, text, delimiter, 1))[1]
        except StimuliError:
            continue
    for delimiter, row in firsts.items():
        if len(row) > 1 and any(field.strip().lower() in names for field in row):
            return delimiter
    for delimiter, row in firsts.items():
        if all(parse_number(field) is not None for field in row) or _has_decimal_commas(row):
            return delimiter
    columns = {d: _even_columns(path, text, d) for d, row in firsts.items() if len(row) > 1}
    return max(columns, key=lambda d: columns[d]) if any(columns.values()) else ","


def _even_columns(path: Path, text: str, delimiter: str) -> int:
    """The number of columns that every row has, 0 where they differ."""
    try:
        lengths = {len(row) for _, row in _parse_rows(path, text, delimiter, 1) if any(row)}
    except StimuliError:
        return 0
    return lengths.pop() if len(lengths) == 1 else 0


def _parse_rows(path: Path, text: str, delimiter: str, first_line: int) -> Iterator[Row]:
    lines = io.StringIO(text.rstrip("\r\n") + "\n", newline="")
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        place = Place(path, reader.line_num + first_line)
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # The reader names the rule that was broken, never the content.
            raise place.error(f"malformed CSV: {error}") from None
        yield place, row
