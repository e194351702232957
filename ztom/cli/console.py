"""How commands print: tables and times for people, one JSON document for scripts."""

from __future__ import annotations

import json
from dataclasses import asdict, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

#: Columns; wider than any table.
_WIDEST = 10_000


def moment(time: str) -> str:
    """A time of the ledger, in ISO 8601, to the second."""
    return datetime.fromisoformat(time).isoformat(timespec="seconds")


class PlainConsole(Console):
    """A console to which names and reasons are text: brackets and colons in them mean nothing.

    Nothing is cut or broken to a width, on a terminal or in a pipe: an id that is copied is whole.
    A terminal goes on in its next line with what it has no room for.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(width=_WIDEST, markup=False, emoji=False, highlight=False, stderr=stderr)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print without the blanks that fill a table's last column up."""
        with self.capture() as captured:
            super().print(*objects, **options)
        lines = captured.get().split("\n")
        self.file.write("\n".join(line.rstrip(" ") for line in lines))
        self.file.flush()


def plain_console(*, stderr: bool = False) -> PlainConsole:
    """A console for names, reasons and tables of them."""
    return PlainConsole(stderr=stderr)


def print_error(message: str) -> None:
    """Print an error's message on standard error, word for word."""
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    console.print(message, style="red", soft_wrap=True)


def print_document(content: object) -> None:
    """Print one JSON document on standard output: what ``--json`` promises, and nothing else.

    Args:
        content: Mappings, sequences, dataclasses and pydantic models, nested as one likes.
    """
    print(json.dumps(_values(content), indent=1), flush=True)


def print_row(content: object) -> None:
    """Print one JSON document as one line, at once: for lists that grow while one reads them."""
    print(json.dumps(_values(content)), flush=True)


def _values(content: object) -> Any:
    """Content as JSON values; a number that is none (NaN, infinity) is null."""
    return json.loads(json.dumps(content, default=_plain), parse_constant=lambda _: None)


def _plain(value: object) -> Any:
    """What JSON can hold instead of a value that it cannot.

    Raises:
        TypeError: There is nothing like that.
    """
    if hasattr(value, "model_dump"):  # pydantic's; not imported for this
        return value.model_dump(mode="json", by_alias=True)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
