"""How much is on record, on both databases: of nothing, of searches in every state, of verdicts."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from serve_apps.controller.record_metrics import RecordMetrics
from ztom.ledger import Ledger
from ztom.ledger.accounts import NewUser
from ztom.ledger.models import GateVerdictRow, StudyRow, TrialRow, VerdictRow
from ztom.ledger.requests import NewRequest, RequestKind, RequestStatus
from ztom.ledger.work import RunningSearch, WorkCounts


@pytest.fixture
def ledger(ledger_address: str) -> Iterator[Ledger]:
    with Ledger.open(ledger_address) as ledger:
        yield ledger


def study(number: int) -> StudyRow:
    return StudyRow(
        id=number,
        name=f"s{number}",
        config={},
        config_digest="c",
        chain_digest="d",
        data_digests={},
        seed=0,
        versions={},
    )


def trial(study_id: int, number: int, error: float | None) -> TrialRow:
    ended = error is not None
    return TrialRow(
        study_id=study_id,
        number=number,
        kind="search",
        factors=[0.0],
        status="finished" if ended else "running",
        asked=number,
        told=number if ended else None,
        error=error,
    )


def test_nothing_is_on_record(ledger: Ledger) -> None:
    assert ledger.work.counts() == WorkCounts({}, None, (), {}, {})


def test_searches_and_verdicts_are_counted(ledger: Ledger) -> None:
    user = ledger.accounts.create(
        NewUser("ada", "ada@example.org", password_hash="x"), actor="tests"
    )
    made = [
        ledger.requests.create(NewRequest(kind, user.id))
        for kind in (*[RequestKind.SEARCH] * 3, RequestKind.EDIT)
    ]
    with ledger._database.write("fill") as session:
        session.add_all([study(1), study(2)])
        session.flush()
        session.add_all([trial(1, 1, 4.0), trial(1, 2, 3.5), trial(1, 3, None), trial(2, 1, 1.0)])
        session.add_all([VerdictRow(study_id=2, outcome="improved", content={})])
        session.add_all(
            GateVerdictRow(
                number=n, sha256=str(n), candidate="a", outcome=outcome, content={}, actor="t"
            )
            for n, outcome in enumerate(("pass", "pass", "fail"))
        )
    for record, study_id in zip(made[:2], (1, 2), strict=True):
        ledger.requests.start(record.id, job=f"job-{record.id}")
        ledger.requests.set_study(record.id, study_id)
    ledger.requests.end(made[1].id, RequestStatus.FAILED, reason="x")
    counts = ledger.work.counts()
    assert counts.searches == {"queued": 1, "running": 1, "failed": 1}
    assert counts.running == (RunningSearch("s1 (1)", 2, 3.5),)
    assert (counts.verdicts, counts.proofs) == ({"pass": 2, "fail": 1}, {"improved": 1})
    assert counts.oldest_queued == pytest.approx(time.time(), abs=60)


def test_what_is_counted_is_what_is_shown(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: dict[tuple[str, ...], float] = {}
    metrics = RecordMetrics(ledger.work)
    for name in ("_open", "_ended", "_wait", "_trials", "_best", "_verdicts", "_proofs"):
        gauge = getattr(metrics, name)
        series = gauge.info["name"]
        monkeypatch.setattr(
            gauge,
            "set",
            lambda value, tags=None, series=series: shown.update(
                {(series, *(tags or {}).values()): value}
            ),
        )
    user = ledger.accounts.create(
        NewUser("ada", "ada@example.org", password_hash="x"), actor="tests"
    )
    ledger.requests.create(NewRequest(RequestKind.SEARCH, user.id))
    metrics.look()
    assert shown[("ztom_searches", "queued")] == 1
    assert shown[("ztom_searches_ended", "failed")] == 0
    assert 0 <= shown[("ztom_search_wait_seconds",)] < 60
