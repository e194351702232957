"""Faults that are real: a stranger's eyes, a disk of so many bytes, a medium that is read only."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

#: Account without rights, as most systems number it.
NOBODY = 65534


def readable_by_a_stranger(folder: Path) -> list[Path]:
    """What of a folder, itself included, another user can open for reading.

    Asks the kernel, in a process with another user id, from the folder on: what lies above it is
    taken to be open.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can look as somebody else")
    paths = [folder, *folder.rglob("*")]
    # opened while we may, so that only the modes below count
    above = os.open(folder, os.O_RDONLY)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.fchdir(above)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        for place, path in enumerate(paths):
            try:
                os.close(os.open(path.relative_to(folder), os.O_RDONLY | os.O_NONBLOCK))
                os.write(writing, b"%d\n" % place)
            except OSError:
                continue
        os._exit(0)
    os.close(writing)
    os.close(above)
    with os.fdopen(reading) as lines:
        places = [int(line) for line in lines]
    os.waitpid(child, 0)
    return [paths[place] for place in places]


@contextmanager
def small_disk(folder: Path, *, mib: float) -> Iterator[Path]:
    """A file system of so many mebibytes; where none may be mounted the test is skipped."""
    folder.mkdir(parents=True, exist_ok=True)
    size = f"size={int(mib * 2**20)},mode=755"
    _mount("-t", "tmpfs", "-o", size, "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, *, leaving: int = 0) -> Path:
    """Use up a disk but for so many bytes; returns the file that does."""
    filler = disk / "filler"
    with filler.open("ab", 0) as file:
        with suppress(OSError):
            while True:
                file.write(bytes(4096))
        file.truncate(max(0, file.tell() - leaving))
    return filler


@contextmanager
def read_only(content: Path, folder: Path) -> Iterator[Path]:
    """A folder's files on a medium that cannot be written."""
    folder.mkdir(parents=True)
    _mount("--bind", str(content), str(folder))
    try:
        _mount("-o", "remount,bind,ro", str(folder))
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
