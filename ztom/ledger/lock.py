"""Locks between processes, which the operating system gives back when their holder dies.

One driver per study: the lock is held on a file beside a SQLite ledger, and by the server itself
(an advisory lock) where the ledger is PostgreSQL, so it holds for every machine that can reach it.

One writer per SQLite ledger, where SQLite is older than 3.51.3: such a version can damage the file
when two processes write back the write-ahead log at once (sqlite.org/wal.html, "the WAL-reset
bug"), which a writer does when it commits or closes.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sqlalchemy import URL, Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from ztom.errors import LedgerError
from ztom.io.private import open_private

logger = logging.getLogger(__name__)

_SAFE_SQLITE = (3, 51, 3)
_POLL_S = 0.002


class StudyLock:
    """The lock on a study, as long as its context lasts."""

    def require(self) -> None:
        """See that it is still held; the operating system's is, until the process ends."""


@contextmanager
def study_lock(engine: Engine, name: str) -> Iterator[StudyLock]:
    """Hold the lock on the study called ``name``.

    Raises:
        LedgerError: Another driver holds it.
    """
    if engine.dialect.name == "postgresql":
        lock = SessionLock(engine, name)
        try:
            yield lock
        finally:
            lock.release()
        return
    url = engine.url
    path = _lock_path(url, name)
    with _lock_file(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise _held_error(name, file.read().strip() or None) from error
        file.truncate(0)
        file.write(f"process {os.getpid()}\n")
        file.flush()
        yield StudyLock()


class SessionLock(StudyLock):
    """An advisory lock of PostgreSQL's, which ends with its session: at a failover, too.

    Args:
        engine: Engine that connections come from.
        name: Name of the study.

    Raises:
        LedgerError: Another driver holds it.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name
        digest = hashlib.sha256(name.encode()).digest()
        self._key = int.from_bytes(digest[:8], signed=True)
        self._connection = self._take()

    def require(self) -> None:
        """See that the session lives; where it does not, take the lock anew.

        Raises:
            LedgerError: Another driver has taken it meanwhile, or the database is not there.
        """
        try:
            self._connection.execute(text("SELECT 1"))
            self._connection.commit()
            return
        except DBAPIError as error:
            logger.warning(
                "the session that held the lock on study %r has ended: %s", self._name, error.orig
            )
        self._connection.invalidate()
        self._connection.close()
        try:
            self._connection = self._take()
        except LedgerError as error:
            raise LedgerError(
                f"the lock on the study {self._name!r} was lost when its session with the "
                "database ended, and another process runs the study now",
                fix="Leave it to that one; this one has stopped before it wrote more.",
            ) from error
        logger.warning("the lock on study %r is held again", self._name)

    def release(self) -> None:
        """Give the lock back; a session that has ended has done so."""
        if self._connection.closed:
            return
        try:
            self._connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": self._key})
            self._connection.commit()
        except DBAPIError as error:
            logger.warning("the lock on study %r ended before: %s", self._name, error.orig)
            self._connection.invalidate()
        self._connection.close()

    def _take(self) -> Connection:
        connection = self._engine.connect()
        free = connection.execute(
            text("SELECT pg_try_advisory_lock(:key)"), {"key": self._key}
        ).scalar()
        connection.commit()
        if not free:
            connection.close()
            raise _held_error(self._name, None)
        return connection


def _held_error(name: str, by: str | None) -> LedgerError:
    return LedgerError(
        f"the study {name!r} is being run by another process",
        got=by,
        fix="Wait for it to end, end it, or give this search another name.",
    )


@contextmanager
def writer_lock(url: URL, *, timeout_s: float) -> Iterator[None]:
    """Be the only process that writes to a SQLite ledger; nothing for other databases.

    Raises:
        LedgerError: Another process holds it for longer than the timeout.
    """
    if sqlite3.sqlite_version_info >= _SAFE_SQLITE or not is_sqlite_file(url):
        yield
        return
    deadline = time.monotonic() + timeout_s
    with _lock_file(Path(f"{url.database}.writing")) as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise LedgerError(
                        f"the ledger {url.database} is locked by another process",
                        got=f"no turn within {timeout_s:g} s",
                        fix="Wait for it, or end it.",
                    ) from error
                time.sleep(_POLL_S)
        yield


def _lock_file(path: Path) -> IO[str]:
    try:
        return open_private(path)
    except OSError as error:
        raise LedgerError(f"{path} cannot be written", reason=error.strerror) from error


def is_sqlite_file(url: URL) -> bool:
    """Whether the ledger is a file of this machine."""
    name = url.database or ":memory:"
    return url.get_backend_name() == "sqlite" and not name.startswith((":memory:", "file:"))


def _lock_path(url: URL, name: str) -> Path:
    key = hashlib.sha256(f"{url.render_as_string()}\x1f{name}".encode()).hexdigest()[:16]
    if is_sqlite_file(url):
        return Path(f"{url.database}.{key}.lock")
    return Path(tempfile.gettempdir()) / f"ztom-{os.getuid()}-{key}.lock"
