"""Opening the ledger's database: address, pragmas, schema.

SQLite is set up to survive a killed process (write-ahead log, ``synchronous = FULL``) and to wait
for a lock rather than fail; a write transaction takes the write lock when it begins, so two writers
never find out half-way that only one of them may commit.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script.revision import ResolutionError
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from ztom.errors import LedgerError, ZtomError
from ztom.extras import require_extra
from ztom.ledger.lock import writer_lock

#: Of the lock that PostgreSQL keeps writers apart with; any number that nobody else uses.
_WRITER_KEY = 0x5A2D544F4D

_MIGRATIONS = Path(__file__).parent / "migrations"


def parse_address(address: str | Path) -> URL:
    """A file path becomes a SQLite address, whose folder is made; anything with ``://`` is kept.

    Raises:
        LedgerError: Not an address, or a folder that cannot be made.
    """
    text = str(address)
    try:
        if "://" in text:
            return make_url(text)
        path = Path(text).expanduser().resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
    except (SQLAlchemyError, OSError) as error:
        raise LedgerError(
            "the ledger's address cannot be used",
            got=text if "://" not in text else "an address that does not parse",
            expected="a file, or a SQLAlchemy address such as sqlite:///ledger.db",
            fix=str(error),
        ) from error
    return URL.create("sqlite", database=str(path))


def open_database(url: URL, *, busy_timeout_s: float) -> Database:
    """Connect, check that the file is whole, and bring the schema up to date.

    Raises:
        LedgerError: Unreachable, locked, damaged, or made by a newer version.
    """
    with writer_lock(url, timeout_s=busy_timeout_s), guarded(url, "open"):
        engine = _create(url, busy_timeout_s)
        with engine.execution_options(ztom_write=True).begin() as connection:
            if url.get_backend_name() == "sqlite":
                _check_whole(connection)
            _migrate(connection)
    return Database(engine, url, busy_timeout_s=busy_timeout_s)


class Database:
    """Transactions on an open database, for everything that keeps its rows in it.

    Threads of one process may share it: their writes are serialised.
    """

    def __init__(self, engine: Engine, url: URL, *, busy_timeout_s: float) -> None:
        self.engine = engine
        self.url = url
        self._busy_timeout_s = busy_timeout_s
        self._writing = threading.Lock()

    @contextmanager
    def write(self, action: str) -> Iterator[Session]:
        """One transaction that may write; it is undone if anything raises.

        Args:
            action: Verb for the message, as in "could not <action> the ledger".

        Raises:
            LedgerError: The database failed, or was locked for too long.
        """
        engine = self.engine.execution_options(ztom_write=True)
        with (
            self._writing,
            writer_lock(self.url, timeout_s=self._busy_timeout_s),
            guarded(self.url, action),
            Session(engine, autoflush=False) as session,
            session.begin(),
        ):
            if self.engine.dialect.name == "postgresql":
                # what BEGIN IMMEDIATE does for SQLite: who checks and then writes is alone
                session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _WRITER_KEY})
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One transaction that only reads.

        Raises:
            LedgerError: The database failed.
        """
        with guarded(self.url, "read"), Session(self.engine) as session:
            yield session

    def close(self) -> None:
        """Give back the connections; calling it twice is harmless."""
        with writer_lock(self.url, timeout_s=self._busy_timeout_s):
            self.engine.dispose()


@contextmanager
def guarded(url: URL, action: str) -> Iterator[None]:
    """Turn whatever the database raises into a LedgerError without the password."""
    try:
        yield
    except ZtomError:
        raise
    except (SQLAlchemyError, ValueError) as error:
        cause = getattr(error, "orig", None) or error
        raise LedgerError(
            f"could not {action} the ledger {url.render_as_string(hide_password=True)}",
            got=cause,
            fix="If another process holds it, wait or end it; a damaged file has to be restored "
            "from a copy or moved aside.",
        ) from error


def _create(url: URL, busy_timeout_s: float) -> Engine:
    dumps = json.JSONEncoder(allow_nan=False, ensure_ascii=False).encode
    if url.get_backend_name() != "sqlite":
        if url.get_driver_name() == "psycopg":
            require_extra("psycopg", extra="postgresql", purpose="a ledger in PostgreSQL")
        return create_engine(url, pool_pre_ping=True, json_serializer=dumps)
    engine = create_engine(url, json_serializer=dumps, connect_args={"timeout": busy_timeout_s})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    """Runs once per connection; ``isolation_level = None`` leaves BEGIN to `_begin_sqlite`."""
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("ztom_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _check_whole(connection: Connection) -> None:
    report = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if report != "ok":
        raise LedgerError("the ledger's file is damaged", got=report, fix="Restore it from a copy.")


def _migrate(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except (CommandError, ResolutionError) as error:
        raise LedgerError(
            "the ledger has a schema that this version does not know",
            reason=error,
            fix="Use the version of ztom that wrote it, or a newer one.",
        ) from error
