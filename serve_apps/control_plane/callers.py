"""Whom tokens and keys belong to, remembered for a moment: requests to models are many."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

from ztom.ledger.accounts import ApiKeyRecord, UserRecord

_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Known:
    """Account behind a token or key.

    Attributes:
        user: Account of the caller.
        key: The API key, if it was one.
        projects: Projects whose endpoints they may call, None among them for the administrators'
            ones; None is every project's.
    """

    user: UserRecord
    key: ApiKeyRecord | None
    projects: frozenset[str | None] | None


class RecentCallers:
    """Remembers the account behind each token and key for some seconds.

    Args:
        seconds: Seconds that an account is remembered: a revoked key may go on working as long.
    """

    def __init__(self, seconds: float = 2.0) -> None:
        self._seconds = seconds
        self._found: dict[bytes, tuple[float, Known]] = {}

    def get(self, secret: str) -> Known | None:
        """The account behind a secret, if it was looked up a moment ago; else None."""
        kept = self._found.get(_digest(secret))
        return kept[1] if kept is not None and kept[0] > time.monotonic() else None

    def put(self, secret: str, account: Known) -> None:
        """Remember who it is."""
        if len(self._found) >= _MOST:
            self._found.clear()
        self._found[_digest(secret)] = (time.monotonic() + self._seconds, account)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
