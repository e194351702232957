"""What one process counts of usage, and writes to the ledger in batches.

A batch that could not be written, or of which it is not known whether it was, is written again
under its number; what comes meanwhile goes into the next one.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from ztom.errors import ZtomError
from ztom.ledger.usage import ALIVE_EVERY_S, Counter, Usage, UsageCounts, UsageKey

logger = logging.getLogger(__name__)

#: Seconds between two batches.
EVERY_S = 1.0

_Rows = dict[UsageKey, UsageCounts]


class UsageBook:
    """Counts, and writes down what was counted.

    Args:
        usage: Usage in the ledger.
        kind: What the process is: ``gateway`` or ``controller``.
        clock: Monotonic clock, seconds.
        today: Function that gives the day (UTC), as ``2026-03-02``.
    """

    def __init__(
        self,
        usage: Usage,
        kind: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], str] = lambda: datetime.now(UTC).date().isoformat(),
    ) -> None:
        node = socket.gethostname()
        self.counter = Counter(f"{kind}-{secrets.token_hex(8)}", node, kind, seen="")
        self._usage = usage
        self._clock = clock
        self._today = today
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._open: _Rows = {}
        self._batch: tuple[int, _Rows] = (0, {})
        self._wrote_s = -float("inf")

    def add(self, counts: UsageCounts, *, digest: str, project: str | None, key: str = "") -> None:
        """Count something.

        Args:
            counts: What was used.
            digest: Digest of the variant.
            project: Id of the project whose endpoint it was; None for the operator's own.
            key: Id of the key that asked; empty where nobody did.
        """
        where = UsageKey(self._today(), key, project or "", digest)
        with self._lock:
            self._open.setdefault(where, UsageCounts()).add(counts)

    async def keep_writing(self) -> None:
        """Write again and again, until cancelled."""
        while True:
            await asyncio.to_thread(self.write)
            await asyncio.sleep(EVERY_S)

    def alike(self) -> int:
        """Number of processes of this kind that live, this one included.

        Raises:
            LedgerError: The database failed.
        """
        return self._usage.alive(self.counter.kind)

    def write(self, *, ends: bool = False) -> None:
        """Write what is new, or that the process lives; what cannot be written waits.

        Args:
            ends: Whether the process counts no more.
        """
        with self._writing:
            number, rows = self._next_batch()
            now = self._clock()
            if not rows and not ends and now - self._wrote_s < ALIVE_EVERY_S:
                return
            try:
                self._usage.write(self.counter, number, rows, ends=ends)
            except ZtomError as error:
                logger.warning("usage waits to be written: %s", error)
                return
            self._wrote_s = now
            self._batch = (number, {})
            if ends and self._open:  # it came while the last batch was written
                self._usage.write(self.counter, *self._next_batch(), ends=True)

    def _next_batch(self) -> tuple[int, _Rows]:
        """The batch that waits to be written; the next one where there is none."""
        number, rows = self._batch
        if not rows:
            with self._lock:
                rows, self._open = self._open, {}
            self._batch = (number + 1 if rows else number, rows)
        return self._batch
