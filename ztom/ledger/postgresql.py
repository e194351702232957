"""What a PostgreSQL database must be to hold a ledger, looked at when one is opened.

Its text is UTF-8, as ids, prompts and reasons are. And a session is ours until we end it: locks of
a session (`ztom.ledger.lock`) keep drivers of one study apart. A pooler in transaction or statement
mode gives the session to others between two transactions, and with it the locks.
"""

from __future__ import annotations

import secrets

from sqlalchemy import Connection, Engine, text

from ztom.errors import LedgerError

_PROBE = "ztom.session"


def require_postgresql(engine: Engine) -> None:
    """See that a ledger can be kept in the database.

    Raises:
        LedgerError: It is not in UTF-8, or is behind a pooler that shares sessions.
    """
    with engine.connect() as connection:
        _require_utf8(connection)
        _require_own_session(connection, engine)


def _require_utf8(connection: Connection) -> None:
    encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
    connection.commit()
    if encoding != "UTF8":
        raise LedgerError(
            "the ledger's database is not in UTF-8",
            got=encoding,
            expected="UTF8",
            fix="Make another one: CREATE DATABASE ledger ENCODING 'UTF8' TEMPLATE template0.",
        )


def _require_own_session(connection: Connection, engine: Engine) -> None:
    """Set something for the session, which nobody else may see and which has to stay."""
    token = secrets.token_hex(8)
    _set(connection, token)
    with engine.connect() as other:
        is_shared = _get(other) == token
        other.rollback()
    is_lost = _get(connection) != token
    if is_shared or is_lost:
        raise LedgerError(
            "the ledger's database is behind a pooler in transaction mode",
            got="a session that others have too between two transactions",
            expected="a session of one's own, whose locks keep two drivers of a study apart",
            fix="Connect to PostgreSQL itself, or to the pooler in session mode (PgBouncer: "
            "pool_mode = session; Supabase: port 5432).",
        )
    _set(connection, "")


def _set(connection: Connection, value: str) -> None:
    connection.execute(
        text("SELECT set_config(:name, :value, false)"), {"name": _PROBE, "value": value}
    )
    connection.commit()


def _get(connection: Connection) -> str | None:
    value: str | None = connection.execute(
        text("SELECT current_setting(:name, true)"), {"name": _PROBE}
    ).scalar()
    connection.commit()
    return value
