"""The records of a file of data, whatever kind of file it is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ztom.errors import StimuliError
from ztom.io.text import Place
from ztom.stimuli.csv_files import DELIMITERS, Row, parse_number, read_separated_rows
from ztom.stimuli.fields import EXPECTED_FIELDS, PROMPT_FIELDS
from ztom.stimuli.json_files import Record, read_json_records
from ztom.stimuli.left_out import LeftOutCounter
from ztom.stimuli.parquet_files import MAGIC, read_parquet

#: Every field that some form has.
KNOWN_FIELDS = (
    *PROMPT_FIELDS,
    *EXPECTED_FIELDS,
    *("context", "system", "history", "tools", "functions", "rejected"),
    *("id", "group", "metadata"),
)
CSV_SUFFIXES = (".csv", ".tsv")
#: Columns of rows without a header.
_BARE_COLUMNS = ("prompt", "expected")


def read_records(path: Path, *, counter: LeftOutCounter) -> tuple[str, list[Record]]:
    """The kind of file in words, and its records, each with its place.

    Args:
        path: Path of the file.
        counter: Counter of blank lines, and of columns that are not read.

    Raises:
        StimuliError: The file cannot be read, or is malformed.
    """
    on_blank = partial(counter.add, "blank line")
    if path.suffix.lower() in CSV_SUFFIXES:
        delimiter, rows = read_separated_rows(path, names=KNOWN_FIELDS, on_blank=on_blank)
        header, records = _csv_records(rows)
        return f"CSV ({DELIMITERS[delimiter]}, {header})", records
    if _is_parquet(path):
        return "Parquet", read_parquet(path, columns=KNOWN_FIELDS, counter=counter)
    return read_json_records(path, on_blank=on_blank)


def _is_parquet(path: Path) -> bool:
    if path.suffix.lower() == ".parquet":
        return True
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise StimuliError(f"{path} cannot be read", got=error.strerror) from error


def _csv_records(rows: Sequence[Row]) -> tuple[str, list[Record]]:
    if all(parse_number(field) is not None for field in rows[0][1]):
        return "no header", [(place, {"features": _numbers(row, place)}) for place, row in rows]
    place, first = rows[0]
    header = [name.strip() for name in first]
    known = [name.lower() for name in header if name.lower() in KNOWN_FIELDS]
    if not known:
        if len(header) > len(_BARE_COLUMNS):
            raise place.error(
                "the header is not usable",
                got=f"{len(header)} columns, none with a name that is known",
                expected=f"a header with names out of {', '.join(KNOWN_FIELDS)}",
            )
        header, rows = list(_BARE_COLUMNS[: len(header)]), [rows[0], *rows]
    elif len(set(known)) != len(known):
        raise place.error("the header is not usable", expected="no name twice")
    elif len(rows) == 1:
        raise place.error("there is a header and nothing else", expected="at least one row")
    names = [name.lower() if name.lower() in KNOWN_FIELDS else name for name in header]
    records: list[Record] = [(place, _record(names, row)) for place, row in rows[1:]]
    return "header" if known else "no header", records


def _record(names: Sequence[str], row: Sequence[str]) -> dict[str, object]:
    """A row as a record; an empty cell is a field that is absent."""
    pairs = zip(names, row, strict=True)
    return {name: text if text.strip() else None for name, text in pairs if name or text.strip()}


def _numbers(row: Sequence[str], place: Place) -> list[float]:
    numbers = [number for field in row if (number := parse_number(field)) is not None]
    if len(numbers) != len(row):
        raise place.error("a field is not a finite number", expected="numbers, as in the first row")
    return numbers
