"""What a server's console says of its searches: a line when something has changed.

The lines come from the ledger, so it does not matter which process does the work. What is worth a
line is a function of what was seen before and what is there now.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from serve_apps.control_plane.search_answers import progress_of
from ztom.errors import ZtomError
from ztom.ledger.ledger import Ledger
from ztom.ledger.requests import RequestKind, RequestRecord, RequestStatus
from ztom.wire.searches import SearchProgress

logger = logging.getLogger(__name__)

_LOOK_S = 2.0
#: Seconds after which a search that goes on gets a line although no trial has ended.
_SILENT_S = 15.0
_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Seen:
    """A search as it was last shown.

    Attributes:
        status: Status that was shown.
        trials: Number of trials that was shown.
        at: Time of the last line, monotonic, seconds.
    """

    status: RequestStatus
    trials: int
    at: float


@dataclass(frozen=True, slots=True)
class SearchNow:
    """A search and how far it is."""

    request: RequestRecord
    progress: SearchProgress


def lines_of(
    before: Mapping[str, Seen], searches: Sequence[SearchNow], *, now: float
) -> tuple[list[str], dict[str, Seen]]:
    """What is to be said, and what is known then.

    Args:
        before: Searches as they were last shown, by id.
        searches: Searches as they are, oldest first; ended ones that were never shown are left out.
        now: Monotonic time, seconds.
    """
    lines, after = [], dict(before)
    for search in searches:
        request, trials = search.request, search.progress.trials
        seen = before.get(request.id)
        if seen is None and not request.status.is_open:
            continue
        moved = seen is None or seen.status is not request.status or seen.trials != trials
        waits = request.status is RequestStatus.RUNNING and (
            seen is not None and now - seen.at >= _SILENT_S
        )
        if moved or waits:
            lines.append(_line(search))
            after[request.id] = Seen(request.status, trials, now)
    return lines, after


def _line(search: SearchNow) -> str:
    request, progress = search.request, search.progress
    start = f"search {request.id}"
    if request.status is RequestStatus.QUEUED:
        return f"{start}: queued"
    if request.status is RequestStatus.RUNNING:
        most = "" if progress.max_evaluations is None else f" of about {progress.max_evaluations}"
        best = "" if progress.best_error is None else f", lowest error {progress.best_error:.5g}"
        return f"{start}: {progress.trials}{most} trials{best}"
    if request.status is RequestStatus.FINISHED:
        result = request.result or {}
        errors = f"{_number(result, 'trained_model_error')} -> " + _number(
            result, "optimized_model_error"
        )
        return f"{start}: finished, error {errors}, proof: {result.get('verdict') or 'none'}"
    return f"{start}: {request.status}: {request.reason}"


def _number(result: Mapping[str, object], name: str) -> str:
    value = result.get(name)
    return f"{value:.5g}" if isinstance(value, int | float) else "unknown"


@contextlib.contextmanager
def search_lines(ledger_address: str, say: Callable[[str], None]) -> Iterator[None]:
    """Say how searches go while in the context.

    Args:
        ledger_address: File or SQLAlchemy address of the server's ledger.
        say: Function that prints a line.
    """
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(ledger_address, say, ended), daemon=True)
    watch.start()
    try:
        yield
    finally:
        ended.set()
        watch.join(2 * _LOOK_S)


def _watch(ledger_address: str, say: Callable[[str], None], ended: threading.Event) -> None:
    seen: dict[str, Seen] = {}
    with Ledger.open(ledger_address) as ledger:
        while not ended.wait(_LOOK_S):
            try:
                lines, seen = lines_of(seen, _searches(ledger, seen), now=time.monotonic())
            except ZtomError as error:
                logger.warning("how searches go is not known: %s", error)
                continue
            for line in lines:
                say(line)


def _searches(ledger: Ledger, seen: Mapping[str, Seen]) -> list[SearchNow]:
    """Searches that are open, or were when they were last shown; oldest first."""
    latest = ledger.requests.latest(RequestKind.SEARCH, projects=None, most=_SHOWN)
    return [
        SearchNow(request, progress_of(request, ledger))
        for request in reversed(latest)
        if request.status.is_open or _was_open(seen.get(request.id))
    ]


def _was_open(seen: Seen | None) -> bool:
    return seen is not None and seen.status.is_open
