"""How long an engine worked for whom.

While n requests are in work each of them has a share of 1/n of the engine's time, so that the
shares of all requests add up to the seconds for which the engine had work:

    busy = integral of [n(t) > 0] dt,   share of a request = integral over its time of dt / n(t)

Both integrals only grow, so a request's share is a difference of two readings.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class WorkShare:
    """A request in work.

    Attributes:
        began: Reading of the shares when it began, seconds.
        is_told: Whether whoever asked was told its share.
    """

    began: float
    is_told: bool = False


class WorkMeter:
    """Measures one engine; for one thread.

    Attributes:
        untold_s: Seconds of work of which nobody was told, as those who asked had gone.

    Args:
        clock: Monotonic clock, seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = self._since = clock()
        self._count = 0
        self._share_s = 0.0
        self._busy_s = 0.0
        self.untold_s = 0.0

    @property
    def busy_s(self) -> float:
        """Seconds for which there was work."""
        self._advance()
        return self._busy_s

    @property
    def up_s(self) -> float:
        """Seconds since the engine is there."""
        return self._clock() - self._since

    def begin(self) -> WorkShare:
        """A request begins."""
        self._advance()
        self._count += 1
        return WorkShare(self._share_s)

    def tell(self, share: WorkShare) -> float:
        """Seconds that a request has had so far; whoever asked is told."""
        self._advance()
        share.is_told = True
        return self._share_s - share.began

    def end(self, share: WorkShare) -> None:
        """A request has ended."""
        self._advance()
        self._count -= 1
        if not share.is_told:
            self.untold_s += self._share_s - share.began

    def _advance(self) -> None:
        now = self._clock()
        if self._count:
            self._busy_s += now - self._at
            self._share_s += (now - self._at) / self._count
        self._at = now
