"""One driver per study: a lock that the operating system gives back when its holder dies.

It is held on a file, beside a SQLite ledger or else in the machine's temporary folder, so for a
ledger on a server it keeps out a second driver on the same machine only.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL

from ztom.errors import LedgerError


@contextmanager
def study_lock(url: URL, name: str) -> Iterator[None]:
    """Hold the lock on the study called ``name``.

    Raises:
        LedgerError: Another driver holds it.
    """
    path = _lock_path(url, name)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise LedgerError(
                f"the study {name!r} is being run by another process",
                got=file.read().strip() or None,
                fix="Wait for it to end, end it, or give this search another name.",
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()}\n")
        file.flush()
        yield


def _lock_path(url: URL, name: str) -> Path:
    key = hashlib.sha256(f"{url.render_as_string()}\x1f{name}".encode()).hexdigest()[:16]
    if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
        return Path(f"{url.database}.{key}.lock")
    return Path(tempfile.gettempdir()) / f"ztom-{os.getuid()}-{key}.lock"
