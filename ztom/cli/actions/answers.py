"""How answers of a server are printed: as JSON, or as a line or a table for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table

from ztom.cli.console import plain_console, print_document


def print_answer(answer: object, line: str, *, as_json: bool) -> None:
    """Print an answer as JSON, or the line that says it to people."""
    if as_json:
        print_document(answer)
    else:
        plain_console().print(line)


def print_table(
    answer: object, headers: Sequence[str], rows: Iterable[Sequence[object]], *, as_json: bool
) -> None:
    """Print an answer as JSON, or as a table; None is an empty cell."""
    if as_json:
        print_document(answer)
        return
    table = Table(*headers, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    plain_console().print(table)
