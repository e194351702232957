"""Whom tokens and keys belong to, remembered for a moment: requests to models are many."""

from __future__ import annotations

import time

from ztom.ledger.accounts import ApiKeyRecord, UserRecord

_MOST = 10_000

Known = tuple[UserRecord, ApiKeyRecord | None]


class RecentCallers:
    """Remembers who was found behind a token or key.

    Args:
        seconds: For how long: a revoked key may go on working as long as that.
    """

    def __init__(self, seconds: float = 2.0) -> None:
        self._seconds = seconds
        self._found: dict[str, tuple[float, Known]] = {}

    def get(self, secret: str) -> Known | None:
        """Who it is, if that was found out a moment ago."""
        kept = self._found.get(secret)
        return kept[1] if kept is not None and kept[0] > time.monotonic() else None

    def put(self, secret: str, found: Known) -> None:
        """Remember who it is."""
        if len(self._found) >= _MOST:
            self._found.clear()
        self._found[secret] = (time.monotonic() + self._seconds, found)
