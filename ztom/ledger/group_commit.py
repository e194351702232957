"""Many callers' rows in one transaction: whoever comes while one is written goes along in the next.

A transaction costs the same for a row and for a hundred: the writers' lock and the disk. Nobody
waits for company: a caller who comes alone is written alone, at once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


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
        self._waiting: deque[tuple[T, Future[None]]] = deque()
        self._turn = threading.Lock()

    def add(self, row: T) -> None:
        """Write a row; it is on record when this returns.

        Raises:
            Exception: What was wrong with the row, or what kept all of them from being written.
        """
        done: Future[None] = Future()
        self._waiting.append((row, done))
        while not done.done():
            with self._turn:
                if not done.done():
                    self._write_waiting()
        done.result()

    def _write_waiting(self) -> None:
        count = min(len(self._waiting), self._most)
        batch = [self._waiting.popleft() for _ in range(count)]
        try:
            errors = self._write([row for row, _ in batch])
        except Exception as error:
            errors = [error] * count
        for (_, done), problem in zip(batch, errors, strict=True):
            if problem is None:
                done.set_result(None)
            else:
                done.set_exception(problem)
