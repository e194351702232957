"""What objects show in a notebook: a title and a few small tables, every text escaped.

Notebooks bring their own style sheet, so there is none here. Long tables are cut, with a line that
says so: the report has all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ztom.pages.formats import count, visible
from ztom.pages.svg import tag

#: Rows of one table that are shown.
MOST_ROWS = 20


@dataclass(frozen=True)
class NotebookTable:
    """A table with a row of names above it.

    Attributes:
        columns: Name of each column.
        rows: Texts, as many a row as there are columns.
    """

    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]


def notebook_panel(title: str, facts: Mapping[str, str], *tables: NotebookTable) -> str:
    """HTML of one object.

    Args:
        title: What it is, and what came of it.
        facts: Text of each fact, by its name.
        tables: Shown below the facts.
    """
    facts_table = tag("table", *[_row((name, fact), head=True) for name, fact in facts.items()])
    shown = [_table(table) for table in tables if table.rows]
    return str(tag("div", tag("strong", visible(title)), facts_table, *shown))


def notebook_progress(title: str, done: int, total: int | None, lines: Sequence[str]) -> str:
    """HTML of a progress bar with lines of text under it.

    Args:
        title: Name of what is under way.
        done: Number of steps that have ended.
        total: Number of steps in all; None while nobody knows.
        lines: Lines of text under the bar.
    """
    steps = {} if total is None else {"value": str(done), "max": str(total)}
    counted = f" {count(done)}" + ("" if total is None else f" of {count(total)}")
    texts = [tag("div", visible(line)) for line in lines]
    bar = tag("progress", style="width: 20em", **steps)
    return str(tag("div", tag("strong", visible(title)), Markup(" "), bar, counted, *texts))


def _table(table: NotebookTable) -> Markup:
    rows = [_row(row) for row in table.rows[:MOST_ROWS]]
    hidden = len(table.rows) - len(rows)
    head = tag("tr", *[tag("th", name, scope="col") for name in table.columns])
    note = tag("div", f"and {count(hidden)} more") if hidden else Markup("")
    return tag("div", tag("table", head, *rows), note)


def _row(texts: Sequence[str], *, head: bool = False) -> Markup:
    cells = [tag("td", visible(text), style="text-align: left") for text in texts]
    if head:
        cells[0] = tag("th", visible(texts[0]), scope="row", style="text-align: left")
    return tag("tr", *cells)
