"""One server per data folder: the second is refused at once, by name of the first.

The lock is the operating system's, on a file in the folder: it ends with the process that holds it,
however that ends, so a file that a killed server left is simply taken over.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from ztom.errors import ConfigError
from ztom.io.private import open_private

#: Name of the file in the data folder.
LOCK = "server.lock"


@contextmanager
def server_lock(data: Path) -> Iterator[Callable[[str], None]]:
    """Be the only server on a data folder.

    Args:
        data: The data folder, which is there.

    Yields:
        Function that writes down at which address the server listens.

    Raises:
        ConfigError: Another server runs on it; the message says which.
    """
    since = datetime.now(UTC).isoformat(timespec="seconds")
    with open_private(data / LOCK) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                "another server runs on this data folder",
                got=f"{data}: {_holder(file)}",
                fix="Use that one, end it, or give this one a folder of its own (--data).",
            ) from error

        def write(address: str) -> None:
            file.truncate(0)
            holder = {"process": os.getpid(), "host": socket.gethostname(), "since": since}
            file.write(json.dumps({**holder, "address": address}) + "\n")
            file.flush()

        write("not listening yet")
        yield write
        file.truncate(0)


def _holder(file: IO[str]) -> str:
    """What the file says of the server that holds it."""
    file.seek(0)
    try:
        holder = json.loads(file.read())
        return (
            f"process {holder['process']} on {holder['host']}, since {holder['since']}, "
            f"{holder['address']}"
        )
    except (ValueError, KeyError, TypeError):  # it has not written yet
        return "a process that has just started"
