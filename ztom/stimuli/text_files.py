"""Reading text files as people have them: UTF-8 with or without a byte-order mark, UTF-16 with one,
lines ended by LF or CR LF. Nothing is guessed: errors name file and line.

Content never appears in an error: prompts may be private.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from pathlib import Path

from ztom.errors import StimuliError
from ztom.io.text import Place

MAX_FILE_BYTES = 2**30
#: Longest prompt, turn or expected output, in characters; the limit of Python's own CSV reader.
MAX_FIELD_CHARACTERS = 131_072

#: Marks that say how a file is encoded, and the codec that drops them.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: Path) -> str:
    """The whole of a text file, without its byte-order mark.

    UTF-16, which spreadsheets call "Unicode text", is read where it begins with its mark.

    Raises:
        StimuliError: The file cannot be read, is empty or too large, or holds a NUL or bytes that
            are not of its encoding.
    """
    data = read_bytes(path)
    encoding = next((codec for mark, codec in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        nul = data.find(b"\0", 0, error.start)
        if encoding != "utf-16" and nul >= 0:
            raise _nul(path, data.count(b"\n", 0, nul)) from None
        before = data[: error.start].decode(encoding, errors="ignore")
        name = "UTF-16" if encoding == "utf-16" else "UTF-8"
        raise Place(path, before.count("\n") + 1).error(
            f"not {name}", fix="Save the file as UTF-8 text."
        ) from None
    if (nul := text.find("\0")) >= 0:
        raise _nul(path, text.count("\n", 0, nul))
    if not text.strip():
        raise _empty(path)
    return text


def read_lines(
    path: Path, *, on_blank: Callable[[Place], None] | None = None
) -> list[tuple[Place, str]]:
    """The lines of a file, ended by LF or CR LF, without the blank ones at its end.

    Args:
        path: Path of the file.
        on_blank: Callback that takes the place of each blank line between others, which is then
            passed over; without it such a line is an error.

    Raises:
        StimuliError: The file cannot be read (see `read_text`), or a line is blank.
    """
    return split_lines(path, read_text(path), on_blank=on_blank)


def split_lines(
    path: Path, text: str, *, on_blank: Callable[[Place], None] | None = None
) -> list[tuple[Place, str]]:
    """The lines of a text that was read; see `read_lines`.

    Raises:
        StimuliError: A line is blank, and that is an error.
    """
    lines = text.split("\n")
    while not lines[-1].strip():
        lines.pop()
    placed = []
    for number, line in enumerate(lines, start=1):
        place = Place(path, number)
        # files that were put together have their byte-order marks between
        line = line.removesuffix("\r").removeprefix("\ufeff")
        if line.strip():
            placed.append((place, line))
        elif on_blank is None:
            raise place.error("the line is blank", fix="Remove it, or fill it in.")
        else:
            on_blank(place)
    return placed


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


def require_file(path: Path) -> None:
    """Look whether there is a file that can be read to its end.

    Raises:
        StimuliError: There is none, or it is a folder, a FIFO or a device.
    """
    if not path.is_file():
        what = "is not a regular file" if path.exists() else "does not exist"
        raise StimuliError(f"{path} {what}")


def check_file(path: Path) -> None:
    """Refuse what is no regular file, such as a pipe, which would never end, or is too large.

    Raises:
        StimuliError: It is.
    """
    try:
        require_file(path)
        if path.stat().st_size > MAX_FILE_BYTES:
            raise StimuliError(
                f"{path} is too large",
                got=f"{path.stat().st_size} bytes",
                expected=f"at most {MAX_FILE_BYTES}",
            )
    except OSError as error:
        raise StimuliError(f"{path} cannot be read", got=error.strerror) from error


def read_bytes(path: Path) -> bytes:
    """The bytes of a file that has some.

    Raises:
        StimuliError: The file cannot be read, is empty or too large.
    """
    check_file(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StimuliError(f"{path} cannot be read", reason=error.strerror) from error
    if not data.strip():
        raise _empty(path)
    return data


def _empty(path: Path) -> StimuliError:
    return Place(path, 1).error("the file is empty", expected="at least one line")


def _nul(path: Path, lines_before: int) -> StimuliError:
    return Place(path, lines_before + 1).error(
        "a NUL character", fix="Save the file as UTF-8 text."
    )
