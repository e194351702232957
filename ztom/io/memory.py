"""How much memory this process may still take: its cgroup's limit, not the machine's.

In a container ``/proc/meminfo`` tells of the whole machine. The limit is in the files of cgroups,
of version 2 (``memory.max``) or 1 (``memory.limit_in_bytes``), of the process's own group and of
every group above it; what is free is the least of them all. Pages of files that are kept only in
case they are read again (``inactive_file``) count as free, as the kernel drops them first.

https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Version 1 says "no limit" with the largest number of pages.
_NO_LIMIT = 1 << 60


@dataclass(frozen=True)
class MemoryLimit:
    """What may be taken, by one source.

    Attributes:
        total: Bytes altogether.
        free: Bytes that are left.
        source: The file that says so.
    """

    total: int
    free: int
    source: str


def memory_limit(*, root: Path = Path("/")) -> MemoryLimit:
    """The tightest limit on this process.

    Args:
        root: Folder that holds ``proc`` and ``sys``.
    """
    limits = [*_cgroup_limits(root), _machine(root)]
    return min(limits, key=lambda limit: limit.free)


def _machine(root: Path) -> MemoryLimit:
    """The machine's memory, by ``/proc/meminfo``; half of it as free where nothing says more."""
    file = root / "proc/meminfo"
    values = {}
    for line in _read(file).splitlines():
        name, _, rest = line.partition(":")
        if rest.split():
            values[name] = int(rest.split()[0]) * 1024
    total = values.get("MemTotal") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return MemoryLimit(total, values.get("MemAvailable", total // 2), str(file))


@dataclass(frozen=True)
class _Files:
    """Names in a folder of cgroups.

    Attributes:
        limit: File of the limit, bytes.
        usage: File of what is used, bytes.
        idle: Key in ``memory.stat`` of the pages that are dropped first, bytes.
    """

    limit: str
    usage: str
    idle: str


_VERSION_1 = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2 = _Files("memory.max", "memory.current", "inactive_file")


def _cgroup_limits(root: Path) -> Iterator[MemoryLimit]:
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _limits(root / "sys/fs/cgroup", path, _VERSION_2)
        elif "memory" in controllers.split(","):
            yield from _limits(root / "sys/fs/cgroup/memory", path, _VERSION_1)


def _limits(top: Path, path: str, files: _Files) -> Iterator[MemoryLimit]:
    """Limits of a group and of all above it; a container may see only the topmost folder."""
    group = top / path.strip("/")
    if ".." in group.parts:  # a group outside of what is mounted here
        group = top
    for folder in (group, *group.parents):
        limit = _limit(folder, files)
        if limit is not None:
            yield limit
        if folder == top:
            return


def _limit(folder: Path, files: _Files) -> MemoryLimit | None:
    total, used = _number(folder / files.limit), _number(folder / files.usage)
    if total is None or total >= _NO_LIMIT or used is None:
        return None
    stat = dict(line.split(maxsplit=1) for line in _read(folder / "memory.stat").splitlines())
    needed = max(0, used - int(stat.get(files.idle, 0)))
    return MemoryLimit(total, max(0, total - needed), str(folder / files.limit))


def _number(file: Path) -> int | None:
    """The number in a file; None where there is none, as in ``max``."""
    text = _read(file).strip()
    return int(text) if text.isdecimal() else None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except OSError:
        return ""
