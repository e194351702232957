"""How often an account may be tried with a wrong password."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque

_WINDOW_S = 60.0
_MOST_ACCOUNTS = 10_000


class LoginLimit:
    """Counts wrong passwords by account, in the memory of one replica.

    Args:
        failures: Wrong passwords in a minute after which the account is not tried any more, not
            with the right one either: otherwise a guesser would learn which one it was.
    """

    def __init__(self, failures: int) -> None:
        self._failures = failures
        self._times: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, account: str, *, now: float) -> float:
        """Seconds until the account may be tried again, 0 when it may be now.

        Args:
            account: As it was typed.
            now: Monotonic time.
        """
        with self._lock:
            times = self._times.get(account.lower())
            if times is None:
                return 0.0
            while times and times[0] <= now - _WINDOW_S:
                times.popleft()
            return times[0] + _WINDOW_S - now if len(times) >= self._failures else 0.0

    def failed(self, account: str, *, now: float) -> None:
        """The password was wrong."""
        with self._lock:
            times = self._times.setdefault(account.lower(), deque(maxlen=self._failures))
            times.append(now)
            self._times.move_to_end(account.lower())
            while len(self._times) > _MOST_ACCOUNTS:
                self._times.popitem(last=False)
