"""Reading a SQLite ledger as evidence: nothing of it, nor of the folder that it is in, changes.

SQLite itself writes when it reads: in the mode of a write-ahead log it makes two files beside the
ledger, and the last reader moves the log into it. So a ledger that nobody has open (there is no log
beside it) is read as a file that cannot change, and looked at once more afterwards; one that is
open is read through the log that is there; and one whose log lies on a medium that cannot be
written is read from a private copy.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL

from ztom.errors import LedgerError

_LOG, _INDEX = "-wal", "-shm"


class SqliteEvidence:
    """Where a SQLite ledger is read from. Close it when it has been read.

    Args:
        file: Path of the ledger.

    Attributes:
        address: SQLAlchemy address that is opened instead of the ledger's own.

    Raises:
        LedgerError: There is no such file, it is empty, or it cannot be read.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._undo = ExitStack()
        self._seen: tuple[int, ...] | None = None
        try:
            size = file.stat().st_size
            os.close(os.open(file, os.O_RDONLY | os.O_CLOEXEC))
            if size == 0:
                raise emptied_error(file)
            self.address = self._choose()
        except FileNotFoundError as error:
            raise LedgerError(
                "there is no ledger", got=str(file), fix="Searches keep it as ledger.db."
            ) from error
        except OSError as error:
            raise LedgerError(f"{file} cannot be read", reason=error.strerror) from error

    def copy(self) -> URL:
        """The content in a private file that may be changed; it goes when this is closed."""
        target = self._folder() / "copy.db"
        with (
            closing(sqlite3.connect(_uri(self.address), uri=True)) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)
        return URL.create("sqlite", database=str(target))

    def require_unchanged(self) -> None:
        """Look whether what was read as unchanging has stayed so.

        Raises:
            LedgerError: Somebody has written to it meanwhile.
        """
        if self._seen is not None and self._seen != self._state():
            raise LedgerError(
                f"{self._file} was written to while it was read", fix="Read it once more."
            )

    def close(self) -> None:
        """Remove the copies; calling it twice is harmless."""
        self._undo.close()

    def _choose(self) -> URL:
        log, index = (self._file.with_name(self._file.name + end) for end in (_LOG, _INDEX))
        if not log.exists() or log.stat().st_size == 0:
            self._seen = self._state()
            return _read_only(self._file, immutable="1")
        if index.exists() and os.access(index, os.R_OK | os.W_OK):
            return _read_only(self._file)
        folder = self._folder()
        for path in (log, self._file):  # the log first: what it lacks by then is in the file
            shutil.copyfile(path, folder / path.name)
        return URL.create("sqlite", database=str(folder / self._file.name))

    def _folder(self) -> Path:
        return Path(self._undo.enter_context(tempfile.TemporaryDirectory(prefix="ztom-ledger-")))

    def _state(self) -> tuple[int, ...]:
        there = self._file.stat()
        log = self._file.with_name(self._file.name + _LOG)
        written = log.stat().st_size if log.exists() else 0
        return (there.st_ino, there.st_size, there.st_mtime_ns, written)


def emptied_error(place: object) -> LedgerError:
    """The error for a ledger without content."""
    return LedgerError(
        f"{place} is empty",
        expected="a ledger with its tables",
        fix="Rows were removed, or this never was a ledger. Restore it from a copy.",
    )


def _read_only(file: Path, **options: str) -> URL:
    query = {"mode": "ro", "uri": "true", **options}
    return URL.create("sqlite", database=f"file:{quote(str(file))}", query=query)


def _uri(address: URL) -> str:
    """What `sqlite3.connect` takes for an address."""
    options = "&".join(f"{key}={value}" for key, value in address.query.items() if key != "uri")
    database = str(address.database)
    return f"{database}?{options}" if options else f"file:{quote(database)}?mode=ro"
