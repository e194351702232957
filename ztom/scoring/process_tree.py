"""Processes below one process, and the memory that they have together. Linux; elsewhere none."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

_KIB = 1024


def descendants(pid: int) -> list[int]:
    """Process ids of all that descends from a process, zombies aside."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # After the name in parentheses: state, parent, group, session.
            text = (folder / "stat").read_text(encoding="utf-8", errors="replace")
            state, parent = text.rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(folder.name))
    tree, rest = [], [pid]
    while rest:
        below = children.get(rest.pop(), [])
        tree += below
        rest += below
    return tree


def memory_of(pids: Sequence[int], *, limit: int) -> int:
    """Memory that processes have together, bytes.

    That is what is theirs alone, and the larger of what they have mapped of shared memory and what
    lies in files of shared memory (``/dev/shm``, ``memfd``), mapped or not. What a fork shares with
    its parent counts twice at first; only above the limit it is looked at closely.

    Args:
        pids: Process ids; those that have ended count nothing.
        limit: Bytes above which it is worth to look closely.
    """
    private = mapped = 0
    for pid in pids:
        fields = _fields(pid, "status")
        private += fields.get("RssAnon", 0)
        mapped += fields.get("RssShmem", 0)
    files = _shared_files(pids)
    if private + max(mapped, files) <= limit:
        return private + max(mapped, files)
    private = mapped = 0
    for pid in pids:
        fields = _fields(pid, "smaps_rollup") or _fields(pid, "status")
        private += fields.get("Pss_Anon", fields.get("RssAnon", 0))
        mapped += fields.get("Pss_Shmem", fields.get("RssShmem", 0))
    return private + max(mapped, files)


def _fields(pid: int, name: str) -> dict[str, int]:
    """The sizes in a file of /proc, bytes."""
    fields = {}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if value.endswith(" kB"):
                fields[key] = int(value.split()[0]) * _KIB
    return fields


def _shared_files(pids: Sequence[int]) -> int:
    """Bytes in files of shared memory: the ``/dev/shm`` of their own, and files without a name."""
    own = _device(Path("/dev/shm"))
    systems: dict[int, int] = {}
    nameless: dict[tuple[int, int], int] = {}
    for pid in pids:
        place = Path(f"/proc/{pid}/root/dev/shm")
        device = _device(place)
        if device not in (None, own):
            with contextlib.suppress(OSError):
                usage = os.statvfs(place)
                systems[int(device or 0)] = (usage.f_blocks - usage.f_bfree) * usage.f_frsize
        with contextlib.suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                if str(link.readlink()).startswith("/memfd:"):
                    there = link.stat()
                    nameless[there.st_dev, there.st_ino] = there.st_blocks * 512
    return sum(systems.values()) + sum(nameless.values())


def _device(path: Path) -> int | None:
    try:
        return path.stat().st_dev
    except OSError:
        return None
