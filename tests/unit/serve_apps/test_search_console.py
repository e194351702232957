"""What a server's console says of its searches."""

from __future__ import annotations

from serve_apps.server.console import SearchNow, lines_of
from ztom.ledger.requests import RequestKind, RequestRecord, RequestStatus
from ztom.wire.searches import SearchProgress


def search(status: RequestStatus, trials: int = 0, **more: object) -> SearchNow:
    values = dict(id="r", kind=RequestKind.SEARCH, user_id="u", project_id="p", parameters={})
    values |= dict(study_id=None, job=None, attempts=0, reason=None, result=None, artifact=None)
    values |= dict(checkpoint_id=None, created="now", ended=None, status=status)
    error = 0.25 if trials else None
    progress = SearchProgress(trials=trials, max_evaluations=5, best_error=error, best_factors=None)
    return SearchNow(RequestRecord(**{**values, **more}), progress)


def test_a_search_from_its_beginning_to_its_end() -> None:
    running, shown, seen = RequestStatus.RUNNING, [], {}
    result = {"trained_model_error": 1.0, "optimized_model_error": 0.25, "verdict": "improved"}
    for now, at in (
        (0.0, search(RequestStatus.QUEUED)),
        (2.0, search(RequestStatus.QUEUED)),
        (4.0, search(running)),
        (6.0, search(running, 1)),
        (8.0, search(running, 1)),
        (22.0, search(running, 1)),
        (24.0, search(RequestStatus.FINISHED, 7, result=result)),
        (26.0, search(RequestStatus.FINISHED, 7, result=result)),
    ):
        lines, seen = lines_of(seen, [at], now=now)
        shown += lines
    assert shown == [
        "search r: queued",
        "search r: 0 of about 5 trials",
        "search r: 1 of about 5 trials, lowest error 0.25",
        "search r: 1 of about 5 trials, lowest error 0.25",
        "search r: finished, error 1 -> 0.25, proof: improved",
    ]


def test_a_failure_says_why_and_what_ended_before_is_old_news() -> None:
    failed = search(RequestStatus.FAILED, reason="ChainError: does not fit")
    assert lines_of({}, [failed], now=0.0) == ([], {})
    _, seen = lines_of({}, [search(RequestStatus.RUNNING)], now=0.0)
    lines, _ = lines_of(seen, [failed], now=1.0)
    assert lines == ["search r: failed: ChainError: does not fit"]
