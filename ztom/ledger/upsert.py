"""Rows that may be there already: adding to their numbers, or replacing them, many at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.dialects.postgresql import insert as insert_in_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_in_sqlite
from sqlalchemy.orm import Session

from ztom.ledger.models import Base

#: Rows of one statement; SQLite takes 32,766 values of one.
_ROWS = 1000


def add_up(
    session: Session,
    table: type[Base],
    rows: Sequence[Mapping[str, Any]],
    numbers: Sequence[str],
) -> None:
    """Add the numbers of each row to those of the row with the same primary key, or insert it.

    Args:
        session: Session of the transaction.
        table: Table with columns that add up.
        rows: Values by column; no two of them have the same primary key.
        numbers: Names of the columns that add up.
    """
    for statement, key in _statements(session, table, rows):
        sums = {name: getattr(table, name) + getattr(statement.excluded, name) for name in numbers}
        session.execute(statement.on_conflict_do_update(index_elements=key, set_=sums))


def put(
    session: Session,
    table: type[Base],
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
) -> None:
    """Insert rows, or give those with the same primary key these values.

    Args:
        session: Session of the transaction.
        table: Table.
        rows: Values by column; no two of them have the same primary key.
        columns: Names of the columns that are replaced.
    """
    for statement, key in _statements(session, table, rows):
        values = {name: getattr(statement.excluded, name) for name in columns}
        session.execute(statement.on_conflict_do_update(index_elements=key, set_=values))


def _statements(
    session: Session, table: type[Base], rows: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[Any, list[str]]]:
    """Statements that insert the rows, and the columns of the primary key."""
    insert: Any = insert_in_sqlite
    if session.get_bind().dialect.name == "postgresql":
        insert = insert_in_postgresql
    key = [column.name for column in inspect(table).primary_key]
    for start in range(0, len(rows), _ROWS):
        yield insert(table).values([dict(row) for row in rows[start : start + _ROWS]]), key
