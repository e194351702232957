"""One server per data folder: the second is refused at once, by name of the first.

The lock is the operating system's, on a file in the folder: it ends with the process that holds it,
however that ends, so a file that a killed server left is simply taken over. What that one wrote
says in which Ray it ran: on a cluster its applications have outlived it.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from ztom.errors import ConfigError
from ztom.io.private import open_private

#: Name of the file in the data folder.
LOCK = "server.lock"


@dataclass
class HeldLock:
    """The lock, while this process holds it.

    Attributes:
        session_before: Name of the Ray session of a server that held it before and was killed;
            empty where the one before had ended, or there was none.
    """

    file: IO[str]
    session_before: str
    _since: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def write(self, address: str, session: str = "") -> None:
        """Write down who holds the lock.

        Args:
            address: Address at which the server listens.
            session: Name of the Ray session that it runs in.
        """
        self.file.truncate(0)
        holder = {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "since": self._since,
            "address": address,
            "session": session or self.session_before,
        }
        self.file.write(json.dumps(holder) + "\n")
        self.file.flush()


@contextmanager
def server_lock(data: Path) -> Iterator[HeldLock]:
    """Be the only server on a data folder.

    Args:
        data: The data folder, which is there.

    Yields:
        The lock.

    Raises:
        ConfigError: Another server runs on it; the message says which.
    """
    with open_private(data / LOCK) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                "another server runs on this data folder",
                got=f"{data}: {_holder(file)}",
                fix="Use that one, end it, or give this one a folder of its own (--data).",
            ) from error

        held = HeldLock(file, str(_read(file).get("session", "")))
        held.write("not listening yet")
        yield held
        file.truncate(0)


def _holder(file: IO[str]) -> str:
    """What the file says of the server that holds it."""
    holder = _read(file)
    try:
        return (
            f"process {holder['process']} on {holder['host']}, since {holder['since']}, "
            f"{holder['address']}"
        )
    except KeyError:  # it has not written yet
        return "a process that has just started"


def _read(file: IO[str]) -> dict[str, object]:
    file.seek(0)
    try:
        holder = json.loads(file.read())
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}
