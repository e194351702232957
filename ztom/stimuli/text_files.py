"""Reading text files without guessing: strict UTF-8, strict CSV, errors that name file and line.

Content never appears in an error: prompts may be private.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from pathlib import Path

from ztom.errors import StimuliError
from ztom.io.text import Place

MAX_FILE_BYTES = 2**30
#: Longest prompt, turn or expected output, in characters; the limit of Python's own CSV reader.
MAX_FIELD_CHARACTERS = 131_072


def read_text(path: Path) -> str:
    """The whole of a UTF-8 file.

    Raises:
        StimuliError: The file cannot be read, is empty or too large, starts with a byte-order
            mark, or holds a NUL or bytes that are not UTF-8.
    """
    data = _read_bytes(path)
    for mark in (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        if data.startswith(mark):
            raise Place(path, 1).error(
                "the file starts with a byte-order mark", fix="Save it as UTF-8 without BOM."
            )
    if (nul := data.find(b"\0")) >= 0:
        raise Place(path, _line_of(data, nul)).error(
            "a NUL character", fix="Save the file as UTF-8 text."
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Place(path, _line_of(data, error.start)).error(
            "not UTF-8", fix="Save the file as UTF-8 text."
        ) from None


def read_lines(path: Path) -> list[tuple[Place, str]]:
    """The lines of a file, ended by LF or CR LF; blank lines are allowed at the end only.

    Raises:
        StimuliError: The file cannot be read (see `read_text`), or a line is blank.
    """
    lines = read_text(path).rstrip("\r\n").split("\n")
    placed = [(Place(path, i), line.removesuffix("\r")) for i, line in enumerate(lines, start=1)]
    for place, line in placed:
        if not line.strip():
            raise place.error("the line is blank", fix="Remove it, or fill it in.")
    return placed


def read_rows(path: Path) -> list[tuple[Place, list[str]]]:
    """The rows of a CSV file, all of the same length, each with the line it starts on.

    Raises:
        StimuliError: The file cannot be read (see `read_text`), or the CSV is malformed: a quote is
            not closed, a row is shorter or longer than the first, a field is too long.
    """
    rows = list(_parse_rows(path, read_text(path)))
    columns = len(rows[0][1])
    for place, row in rows:
        if len(row) != columns:
            raise place.error(
                "the row has the wrong number of columns",
                got=len(row),
                expected=f"{columns}, as in the first row",
            )
        for field in row:
            check_length(field, place=place, field="a field")
    return rows


def check_length(text: str, *, place: Place, field: str) -> None:
    """Refuse text longer than `MAX_FIELD_CHARACTERS`.

    Raises:
        StimuliError: It is longer.
    """
    if len(text) > MAX_FIELD_CHARACTERS:
        raise place.error(
            f"{field} is too long",
            got=f"{len(text)} characters",
            expected=f"at most {MAX_FIELD_CHARACTERS}",
        )


def _parse_rows(path: Path, text: str) -> Iterator[tuple[Place, list[str]]]:
    reader = csv.reader(io.StringIO(text.rstrip("\r\n") + "\n", newline=""), strict=True)
    while True:
        place = Place(path, reader.line_num + 1)
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # The reader names the rule that was broken, never the content.
            raise place.error(f"malformed CSV: {error}") from None
        if not row:
            raise place.error("the row is blank", fix="Remove it, or fill it in.")
        yield place, row


def _read_bytes(path: Path) -> bytes:
    try:
        if not path.is_file():  # a FIFO or a device would never end
            what = "is not a regular file" if path.exists() else "does not exist"
            raise StimuliError(f"{path} {what}")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise StimuliError(
                f"{path} is too large",
                got=f"{path.stat().st_size} bytes",
                expected=f"at most {MAX_FILE_BYTES}",
            )
        data = path.read_bytes()
    except OSError as error:
        raise StimuliError(f"{path} cannot be read", reason=error.strerror) from error
    if not data.strip():
        raise Place(path, 1).error("the file is empty", expected="at least one line")
    return data


def _line_of(data: bytes, position: int) -> int:
    return data.count(b"\n", 0, position) + 1
