"""Memory that processes of one node are about to take, so that two do not count on the same bytes.

A process claims what it will load, then looks at what is free without the claims of others, and
gives its claim back when its bytes are loaded, or will not be: from then on they are not free any
more. The claims are in one file, behind a lock; those of processes that have ended do not count.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ztom.io.memory import memory_limit


def claims_file() -> Path:
    """The file of this node's claims, of the processes of one user."""
    return Path(tempfile.gettempdir()) / f"ztom-memory-{os.getuid()}.json"


@contextmanager
def claimed_memory(nbytes: int, *, file: Path | None = None) -> Iterator[int]:
    """Claim memory for the time in which it is loaded.

    Args:
        nbytes: Bytes that are to be loaded at most.
        file: File of the claims; the node's where None.

    Yields:
        Bytes that are free, besides what others have claimed and not loaded yet.
    """
    file = file or claims_file()
    key = f"{os.getpid()}/{_start_of(os.getpid())}"
    with _locked(file) as claims:
        others = sum(size for owner, size in claims.items() if owner != key)
        claims[key] = claims.get(key, 0) + nbytes
    try:
        yield max(0, memory_limit().free - others)
    finally:
        with _locked(file) as claims:
            claims[key] = claims.get(key, 0) - nbytes


@contextmanager
def _locked(file: Path) -> Iterator[dict[str, int]]:
    """The claims of processes that live, written back in the end."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+", encoding="ascii") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        claims = _living(stream)
        yield claims
        stream.seek(0)
        stream.truncate()
        json.dump({owner: size for owner, size in claims.items() if size > 0}, stream)


def _living(stream: IO[str]) -> dict[str, int]:
    try:
        claims = json.load(stream)
    except ValueError:  # empty, or torn by a process that was killed as it wrote
        return {}
    return {owner: size for owner, size in claims.items() if _lives(owner)}


def _lives(owner: str) -> bool:
    process, _, start = owner.partition("/")
    return start != "" and _start_of(int(process)) == start


def _start_of(process: int) -> str:
    """When a process started, in ticks of the kernel; empty where it has ended."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
