"""Many callers' rows in one transaction: whoever comes while one is written goes along in the next.

A transaction costs the same for a row and for a hundred: the writers' lock and the disk. Nobody
waits for company: a caller who comes alone is written alone, at once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ztom.errors import LedgerError

T = TypeVar("T")


@dataclass(slots=True)
class _Entry(Generic[T]):
    row: T
    is_done: bool = False
    error: Exception | None = None


class GroupCommit(Generic[T]):
    """Writes rows of several threads together.

    Args:
        write: Function that writes some rows in one transaction, and says of each what was wrong
            with it alone; None where nothing was. It raises where none was written.
        most: Number of rows that go into one transaction at most.
    """

    def __init__(
        self, write: Callable[[Sequence[T]], Sequence[Exception | None]], *, most: int = 500
    ) -> None:
        self._write = write
        self._most = most
        self._waiting: deque[_Entry[T]] = deque()
        self._changed = threading.Condition()
        self._is_writing = False

    def add(self, row: T) -> None:
        """Write a row; it is on record when this returns.

        Raises:
            Exception: What was wrong with the row, or what kept all of them from being written.
        """
        entry = _Entry(row)
        with self._changed:
            self._waiting.append(entry)
        while not entry.is_done:
            batch = self._turn(entry)
            if batch:
                self._write_batch(batch)
        if entry.error is not None:
            raise entry.error

    def _turn(self, entry: _Entry[T]) -> list[_Entry[T]]:
        """Wait until an entry is on record, and give nothing; or until nobody writes: what waits.

        Whoever's entry is on record goes on at once, while the next ones are written.
        """
        with self._changed:
            while self._is_writing and not entry.is_done:
                self._changed.wait()
            if entry.is_done:
                return []
            self._is_writing = True
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), self._most))]

    def _write_batch(self, batch: list[_Entry[T]]) -> None:
        interrupted = LedgerError("a row was not written", reason="its writer was interrupted")
        errors: Sequence[Exception | None] = [interrupted] * len(batch)
        try:
            errors = self._write([entry.row for entry in batch])
        except Exception as error:
            errors = [error] * len(batch)
        finally:  # whatever came between, those who wait are told
            with self._changed:
                for entry, problem in zip(batch, errors, strict=True):
                    entry.error, entry.is_done = problem, True
                self._is_writing = False
                self._changed.notify_all()
