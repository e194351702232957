"""How often an account may be tried with a wrong password, and from where.

An account that is guessed at stays open to its owner: wrong passwords count against the address
that they came from, and those from everywhere together close the account only to addresses from
which nobody has logged in to it before.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque

from serve_apps.control_plane.limit_settings import LimitSettings

_MINUTE_S, _HOUR_S = 60.0, 3600.0
_MOST_KEYS = 10_000


class LoginLimit:
    """Counts tries of passwords, in the memory of one replica.

    Args:
        settings: Settings that say how many may be wrong.
    """

    def __init__(self, settings: LimitSettings) -> None:
        self._pairs = _Tries(settings.login_failures, _MINUTE_S)
        self._addresses = _Tries(settings.login_failures_per_address, _MINUTE_S)
        self._accounts = _Tries(settings.login_failures_per_account, _HOUR_S)
        self._known: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, account: str, address: str, *, now: float) -> float:
        """Count one try, if it may be made: before the password is looked at.

        An account that may not be tried is not tried with the right password either: otherwise a
        guesser would learn which one it was.

        Args:
            account: Id of the account, or the name that was typed where there is none; see
                `ztom.ledger.accounts.login_name`.
            address: Address that the try came from.
            now: Monotonic time, seconds.

        Returns:
            0, or the seconds until it may be tried again.
        """
        pair = _pair(account, address)
        with self._lock:
            wait_s = self._pairs.wait_s(pair, now)
            if pair not in self._known:
                by_address = self._addresses.wait_s(address, now)
                wait_s = max(wait_s, by_address, self._accounts.wait_s(account, now))
            if wait_s > 0:
                return wait_s
            self._pairs.add(pair, now)
            self._addresses.add(address, now)
            self._accounts.add(account, now)
            return 0.0

    def take_registration(self, address: str, *, now: float) -> float:
        """Count a new account, whose password has to be hashed, like a try from its address.

        Args:
            address: Address that the account is made from.
            now: Monotonic time, seconds.

        Returns:
            0, or the seconds until another account may be made.
        """
        with self._lock:
            wait_s = self._addresses.wait_s(address, now)
            if wait_s == 0:
                self._addresses.add(address, now)
            return wait_s

    def succeeded(self, account: str, address: str) -> None:
        """The last try was right: it does not count, nor do those of the same address before it."""
        pair = _pair(account, address)
        with self._lock:
            self._pairs.forget(pair)
            self._addresses.take_back(address)
            self._accounts.take_back(account)
            self._known[pair] = None
            self._known.move_to_end(pair)
            while len(self._known) > _MOST_KEYS:
                self._known.popitem(last=False)


class _Tries:
    """When each key was tried, as far back as it counts."""

    def __init__(self, most: int, window_s: float) -> None:
        self._most = most
        self._window_s = window_s
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, key: str, now: float) -> float:
        """0, or the seconds until the key may be tried."""
        times = self._times.get(key)
        if times is None or len(times) < self._most:
            return 0.0
        return max(0.0, times[0] + self._window_s - now)

    def add(self, key: str, now: float) -> None:
        """Take note of a try; only as many as count are kept."""
        self._times.setdefault(key, deque(maxlen=self._most)).append(now)
        self._times.move_to_end(key)
        while len(self._times) > _MOST_KEYS:
            self._times.popitem(last=False)

    def take_back(self, key: str) -> None:
        """Forget the last try."""
        if self._times.get(key):
            self._times[key].pop()

    def forget(self, key: str) -> None:
        """Forget every try."""
        self._times.pop(key, None)


def _pair(account: str, address: str) -> str:
    return f"{address} {account}"
