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
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import PoolProxiedConnection

from ztom.errors import LedgerError, ZtomError
from ztom.extras import require_extra
from ztom.io.places import LEDGER_FIX, is_store_address
from ztom.io.private import private_file
from ztom.ledger.evidence import SqliteEvidence, emptied_error
from ztom.ledger.lock import is_sqlite_file, writer_lock
from ztom.ledger.postgresql import require_postgresql

#: Of the lock that PostgreSQL keeps writers apart with; any number that nobody else uses.
_WRITER_KEY = 0x5A2D544F4D

_MIGRATIONS = Path(__file__).parent / "migrations"


def parse_address(address: str | Path, *, make: bool = True) -> URL:
    """A file path becomes a SQLite address; anything with ``://`` is kept.

    Args:
        address: Path of a file, or a SQLAlchemy address.
        make: Whether the folder of the file is made.

    Raises:
        LedgerError: Not an address, or a folder that cannot be made.
    """
    text = str(address)
    if is_store_address(text):
        raise LedgerError("a ledger cannot be an object of a store", got=text, fix=LEDGER_FIX)
    try:
        if "://" in text:
            return make_url(text)
        path = Path(text).expanduser().resolve()
        if make:
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
    _make_private(url)
    with writer_lock(url, timeout_s=busy_timeout_s), guarded(url, "open"):
        engine = _create(url, busy_timeout_s)
        if engine.dialect.name == "postgresql":
            require_postgresql(engine)
        with engine.execution_options(ztom_write=True).begin() as connection:
            if url.get_backend_name() == "sqlite":
                _check_whole(connection)
            _migrate(connection)
    return Database(engine, url, busy_timeout_s=busy_timeout_s)


def read_database(url: URL, *, busy_timeout_s: float) -> Database:
    """Connect to what is there and change nothing, not even the folder that it is in.

    A ledger of an older version is brought up to date in a private copy.

    Raises:
        LedgerError: There is none, it is empty or damaged, or was made by a newer version.
    """
    evidence = SqliteEvidence(Path(str(url.database))) if is_sqlite_file(url) else None
    database = None
    try:
        with guarded(url, "read"):
            engine = _create(evidence.address if evidence else url, busy_timeout_s, reads=True)
            database = Database(
                engine, url, busy_timeout_s=busy_timeout_s, reads=True, evidence=evidence
            )
            with engine.begin() as connection:
                if _is_current(connection, url):
                    return database
            database.engine = _newer_copy(evidence, url, engine, busy_timeout_s)
            return database
    except BaseException:
        if database is not None:
            database.close()
        elif evidence is not None:
            evidence.close()
        raise


class Database:
    """Transactions on an open database, for everything that keeps its rows in it.

    Threads of one process may share it: their writes are serialised.
    """

    def __init__(
        self,
        engine: Engine,
        url: URL,
        *,
        busy_timeout_s: float,
        reads: bool = False,
        evidence: SqliteEvidence | None = None,
    ) -> None:
        self.engine = engine
        self.url = url
        self._busy_timeout_s = busy_timeout_s
        self._reads = reads
        self._evidence = evidence
        self._writing = threading.Lock()
        self._watching = threading.Lock()
        self._watch: PoolProxiedConnection | None = None

    @contextmanager
    def write(self, action: str) -> Iterator[Session]:
        """One transaction that may write; it is undone if anything raises.

        Args:
            action: Verb for the message, as in "could not <action> the ledger".

        Raises:
            LedgerError: The database failed, or was locked for too long.
        """
        if self._reads:
            raise LedgerError(f"could not {action} the ledger", reason="it is only read here")
        engine = self.engine.execution_options(ztom_write=True)
        with (
            self._writing,
            writer_lock(self.url, timeout_s=self._busy_timeout_s),
            guarded(self.url, action),
            Session(engine, autoflush=False) as session,
            session.begin(),
        ):
            if self.engine.dialect.name == "postgresql":
                # what BEGIN IMMEDIATE does for SQLite: who checks and then writes is alone, and
                # who has waited for so long is told
                wait = {"wait": f"{round(1000 * self._busy_timeout_s)}ms"}
                session.execute(text("SELECT set_config('lock_timeout', :wait, true)"), wait)
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
        if self._evidence is not None:
            self._evidence.require_unchanged()

    def revision(self) -> str:
        """A text that is another one once anybody has written.

        It costs less than any look at a table, and may change for nothing: PostgreSQL's is of all
        its databases.

        Raises:
            LedgerError: The database failed.
        """
        if self.engine.dialect.name == "postgresql":
            with self.read() as session:
                return str(session.execute(text("SELECT pg_current_snapshot()::text")).scalar_one())
        with guarded(self.url, "read"), self._watching:
            if self._watch is None:
                self._watch = self.engine.raw_connection()
            # SQLite counts what other connections have written, and this one writes nothing
            rows = self._watch.cursor().execute("PRAGMA data_version")
            return str(rows.fetchone()[0])

    def close(self) -> None:
        """Give back the connections; calling it twice is harmless."""
        with self._watching:
            if self._watch is not None:
                self._watch.close()
            self._watch = None
        if self._reads:  # who does not write closes without the writers' lock
            self.engine.dispose()
            if self._evidence is not None:
                self._evidence.close()
            return
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


def _make_private(url: URL) -> None:
    """Close a SQLite ledger to others; what SQLite puts beside the file has the file's mode."""
    if not is_sqlite_file(url):
        return
    file = Path(str(url.database))
    beside = (file.with_name(file.name + suffix) for suffix in ("-wal", "-shm"))
    try:
        for path in (file, *(path for path in beside if path.exists())):
            private_file(path)
    except OSError as error:
        raise LedgerError(f"{file} cannot be written", reason=error.strerror) from error


def _create(url: URL, busy_timeout_s: float, *, reads: bool = False) -> Engine:
    dumps = json.JSONEncoder(allow_nan=False, ensure_ascii=False).encode
    if url.get_backend_name() != "sqlite":
        if url.get_driver_name() == "psycopg":
            require_extra("psycopg", extra="postgresql", purpose="a ledger in PostgreSQL")
        level = {"execution_options": {"postgresql_readonly": True}} if reads else {}
        return create_engine(url, pool_pre_ping=True, json_serializer=dumps, **level)
    engine = create_engine(url, json_serializer=dumps, connect_args={"timeout": busy_timeout_s})
    event.listen(engine, "connect", _prepare_reading if reads else _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    """Runs once per connection; ``isolation_level = None`` leaves BEGIN to `_begin_sqlite`."""
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _prepare_reading(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA query_only = ON").close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("ztom_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _check_whole(connection: Connection) -> None:
    report = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if report != "ok":
        raise LedgerError("the ledger's file is damaged", got=report, fix="Restore it from a copy.")


def _migrate(connection: Connection) -> None:
    config = _migrations()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except (CommandError, ResolutionError) as error:
        raise _unknown_schema(error) from error


def _migrations() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


def _is_current(connection: Connection, url: URL) -> bool:
    """Whether a ledger that is only read has this version's tables, or an older one's.

    Raises:
        LedgerError: It is damaged, has no tables, or a newer version's.
    """
    if url.get_backend_name() == "sqlite":
        _check_whole(connection)
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is None:
        raise emptied_error(url.render_as_string(hide_password=True))
    scripts = ScriptDirectory.from_config(_migrations())
    if revision not in {script.revision for script in scripts.walk_revisions()}:
        raise _unknown_schema(f"its revision is {revision}")
    return revision == scripts.get_current_head()


def _newer_copy(
    evidence: SqliteEvidence | None, url: URL, engine: Engine, busy_timeout_s: float
) -> Engine:
    """What an older version wrote, in a copy with this version's tables."""
    engine.dispose()
    if evidence is None:
        raise LedgerError(
            f"{url.render_as_string(hide_password=True)} was written by an older version",
            fix="Start the server on it once (`ztom up`): that brings it up to date.",
        )
    copy = _create(evidence.copy(), busy_timeout_s)
    with copy.execution_options(ztom_write=True).begin() as connection:
        _migrate(connection)
    return copy


def _unknown_schema(reason: object) -> LedgerError:
    return LedgerError(
        "the ledger has a schema that this version does not know",
        reason=reason,
        fix="Use the version of ztom that wrote it, or a newer one.",
    )
