"""How much memory this process and its children hold, read from ``/proc``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")


def resident_bytes() -> int:
    """Resident bytes of this process and of all that descend from it, each page per process."""
    return sum(_resident(process) for process in [os.getpid(), *_descendants(os.getpid())])


def _resident(process: int) -> int:
    try:
        pages = int((_PROC / str(process) / "statm").read_text().split()[1])
    except (OSError, IndexError):  # it has ended
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _descendants(process: int) -> Iterator[int]:
    try:
        tasks = list((_PROC / str(process) / "task").iterdir())
    except OSError:
        return
    for task in tasks:
        try:
            children = [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
        for child in children:
            yield child
            yield from _descendants(child)
