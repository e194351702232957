"""How commands print: tables and times for people, one JSON document for scripts."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console


def moment(time: str) -> str:
    """A time of the ledger, in ISO 8601, to the second."""
    return datetime.fromisoformat(time).isoformat(timespec="seconds")


def plain_console(*, stderr: bool = False) -> Console:
    """A console to which names and reasons are text: brackets and colons in them mean nothing.

    Piped output is not cut to the width of a terminal that is not there.
    """
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 200
    return Console(width=width, markup=False, emoji=False, highlight=False, stderr=stderr)


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
