"""Adding numbers to rows that may not be there yet, many at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    insert: Any = insert_in_sqlite
    if session.get_bind().dialect.name == "postgresql":
        insert = insert_in_postgresql
    key = [column.name for column in inspect(table).primary_key]
    for start in range(0, len(rows), _ROWS):
        statement = insert(table).values([dict(row) for row in rows[start : start + _ROWS]])
        sums = {name: getattr(table, name) + getattr(statement.excluded, name) for name in numbers}
        session.execute(statement.on_conflict_do_update(index_elements=key, set_=sums))
