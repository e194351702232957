"""What Prometheus sees of the record: searches, how they ended, what the gate said.

The numbers are those of the ledger, so that a controller that was started again goes on where the
one before it stopped. What a running search has come to leaves with it: see
`serve_apps.gateway.metrics`.
"""

from __future__ import annotations

import time

from ray.util.metrics import Gauge

from ztom.ledger.requests import RequestStatus
from ztom.ledger.work import RecordedWork


class RecordMetrics:
    """Gauges of searches and verdicts.

    Args:
        work: Work on record in the ledger.
    """

    def __init__(self, work: RecordedWork) -> None:
        self._work = work
        self._open = Gauge(
            "ztom_searches",
            description="Number of searches that wait or run.",
            tag_keys=("status",),
        )
        self._ended = Gauge(
            "ztom_searches_ended",
            description="Number of searches on record that ended so.",
            tag_keys=("status",),
        )
        self._wait = Gauge(
            "ztom_search_wait_seconds",
            description="Seconds since the oldest search that waits was asked for; 0 with none.",
        )
        self._trials = Gauge(
            "ztom_search_trials",
            description="Number of trials that a running search has finished.",
            tag_keys=("search",),
        )
        self._best = Gauge(
            "ztom_search_best_error",
            description="Lowest error on the search set that a running search has measured.",
            tag_keys=("search",),
        )
        self._verdicts = Gauge(
            "ztom_verdicts",
            description="Number of verdicts of the gate on record.",
            tag_keys=("outcome",),
        )
        self._proofs = Gauge(
            "ztom_proofs",
            description="Number of searches whose holdout said so.",
            tag_keys=("outcome",),
        )

    def look(self) -> None:
        """Count what is on record."""
        counts = self._work.counts()
        for status in RequestStatus:
            gauge = self._open if status.is_open else self._ended
            gauge.set(counts.searches.get(status.value, 0), {"status": status.value})
        waits = 0.0 if counts.oldest_queued is None else time.time() - counts.oldest_queued
        self._wait.set(max(0.0, waits))
        for search in counts.running:
            self._trials.set(search.trials, {"search": search.name})
            if search.best_error is not None:
                self._best.set(search.best_error, {"search": search.name})
        for outcome, number in counts.verdicts.items():
            self._verdicts.set(number, {"outcome": outcome})
        for outcome, number in counts.proofs.items():
            self._proofs.set(number, {"outcome": outcome})
