"""Usage adds up, once, whatever fails in between; what is lost is known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from unittest.mock import patch

from ztom.errors import LedgerError
from ztom.ledger import Ledger
from ztom.ledger.usage import Counter, Usage, UsageCounts, UsageDimension, UsageKey
from ztom.ledger.usage_book import UsageBook

DAYS = {"first": "2026-03-01", "last": "2026-03-31"}
ALL = tuple(UsageDimension)
A, B = "a" * 64, "b" * 64


def booked(ledger: Ledger, kind: str = "gateway", day: str = "2026-03-02") -> UsageBook:
    return UsageBook(ledger.usage, kind, today=lambda: day)


def asked(book: UsageBook, key: str, *, digest: str = A, project: str | None = "p") -> None:
    counts = UsageCounts(1, 0, 3, 5, 0.25)
    book.add(counts, digest=digest, project=project, key=key)


def test_what_several_processes_count_adds_up(ledger_address: str) -> None:
    with Ledger.open(ledger_address) as ledger:
        books = [booked(ledger), booked(ledger), booked(ledger, day="2026-03-03")]
        for book in books:
            asked(book, "ada")
            asked(book, "ada")
            asked(book, "eve", digest=B, project=None)
            book.write()
            asked(book, "ada")
            book.write()
        rows = ledger.usage.sums(ALL, **DAYS)
        assert rows[0] == (UsageKey("2026-03-02", "ada", "p", A), UsageCounts(6, 0, 18, 30, 1.5))
        by_key = {
            key.key_id: counts.requests
            for key, counts in ledger.usage.sums([UsageDimension.KEY], **DAYS)
        }
        assert by_key == {"ada": 9, "eve": 3}
        ((key, total),) = ledger.usage.sums([], **DAYS)
        assert (key, total.requests) == (UsageKey(), 12)
        assert ledger.usage.sums([], first="2026-04-01", last="2026-04-30") == []
        (mine,) = ledger.usage.sums([UsageDimension.PROJECT], projects={"p"}, **DAYS)
        assert (mine[0].project_id, mine[1].requests) == ("p", 9)
        both = ledger.usage.sums([UsageDimension.PROJECT], projects={"p"}, keys=["eve"], **DAYS)
        assert [row.requests for _, row in both] == [3, 9]


def test_a_batch_that_may_be_on_record_counts_once(ledger_address: str) -> None:
    with Ledger.open(ledger_address) as ledger:
        book, write = booked(ledger), Usage.write

        def written_and_lost(usage: Usage, *arguments: object, **options: object) -> None:
            write(usage, *arguments, **options)  # type: ignore[arg-type]
            raise LedgerError("the connection broke before it was said that it is on record")

        asked(book, "ada")
        with patch.object(Usage, "write", written_and_lost):
            book.write()
            asked(book, "ada")
            book.write()
        book.write()
        book.write()
        ((_, total),) = ledger.usage.sums([], **DAYS)
        assert total.requests == 2


def test_what_cannot_be_written_waits(ledger_address: str) -> None:
    with Ledger.open(ledger_address) as ledger:
        book = booked(ledger)
        with patch.object(Usage, "write", side_effect=LedgerError("the database is away")):
            for _ in range(3):
                asked(book, "ada")
                book.write()
        assert ledger.usage.sums([], **DAYS) == []
        book.write(ends=True)
        ((_, total),) = ledger.usage.sums([], **DAYS)
        assert total.requests == 3, "those of the first batch, and all that came after it"


def test_who_is_killed_is_missed_and_who_ends_is_not(ledger_address: str) -> None:
    today = datetime.now(UTC).date().isoformat()
    days = {"first": today, "last": today}
    with Ledger.open(ledger_address) as ledger:
        killed, ended = booked(ledger), booked(ledger)
        for book in (killed, ended):
            asked(book, "ada")
            book.write()
        assert ledger.usage.alive("gateway") == 2
        ended.write(ends=True)
        assert ledger.usage.alive("gateway") == 1
        assert ledger.usage.alive("controller") == 0
        assert ledger.usage.lost(**days) == ()
        later = (datetime.now(UTC) + timedelta(seconds=60)).isoformat()
        with patch("ztom.ledger.usage._ago", lambda seconds: later):
            assert ledger.usage.alive("gateway") == 0
            (lost,) = ledger.usage.lost(**days)
            assert (lost.id, lost.kind) == (killed.counter.id, "gateway")
            ledger.usage.forget_ended()
        assert ledger.usage.lost(**days) == ()
        ledger.usage.write(Counter("c", "n", "gateway", ""))
        assert ledger.usage.alive("gateway") == 1
