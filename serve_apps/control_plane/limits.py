"""How often an account may be tried with a wrong password."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque

_WINDOW_S = 60.0
_MOST_ACCOUNTS = 10_000


class LoginLimit:
    """Counts wrong passwords by account, in the memory of one replica.

    Args:
        failures: Number of wrong passwords in a minute after which the account is not tried any
            more, not with the right one either: otherwise a guesser would learn which one it was.
    """

    def __init__(self, failures: int) -> None:
        self._failures = failures
        self._times: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, account: str, *, now: float) -> float:
        """Count one try, if it may be made.

        Args:
            account: Name of the account as it was typed.
            now: Monotonic time, seconds.

        Returns:
            0, or the seconds until the account may be tried again.
        """
        with self._lock:
            times = self._times.setdefault(account.lower(), deque(maxlen=self._failures))
            self._times.move_to_end(account.lower())
            while len(self._times) > _MOST_ACCOUNTS:
                self._times.popitem(last=False)
            while times and times[0] <= now - _WINDOW_S:
                times.popleft()
            if len(times) >= self._failures:
                return times[0] + _WINDOW_S - now
            times.append(now)
            return 0.0

    def succeeded(self, account: str) -> None:
        """The last try was right: it does not count, nor do those before it."""
        with self._lock:
            self._times.pop(account.lower(), None)
