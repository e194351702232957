"""Rows of many callers in one transaction: each is told of its own, and none is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

import pytest
from sqlalchemy import create_engine, text

from ztom.errors import AlreadyOnRecordError, LedgerError
from ztom.ledger import Ledger
from ztom.ledger.accounts import NewUser
from ztom.ledger.database import Database, parse_address
from ztom.ledger.feedback import FeedbackRecord
from ztom.ledger.group_commit import GroupCommit


def test_who_comes_while_others_are_written_goes_along(ledger_address: str) -> None:
    with Ledger.open(ledger_address) as ledger:
        user = ledger.accounts.create(NewUser("ada", "ada@x.org", "h"), actor="local:test").id
        store = ledger.endpoints.rollouts.feedback
        rows = [FeedbackRecord(f"r{i % 150}", "v" * 12, "stable", 0.5, user) for i in range(200)]
        rows[77] = FeedbackRecord("r77", "v" * 12, "stable", 0.5, "nobody")
        outcomes: list[Exception | None] = [None] * len(rows)
        with patch.object(Database, "write", autospec=True, side_effect=Database.write) as write:

            def add(place: int) -> None:
                try:
                    store.add(rows[place])
                except Exception as error:
                    outcomes[place] = error

            with ThreadPoolExecutor(40) as pool:
                list(pool.map(add, range(len(rows))))
            transactions = write.call_count
        judged = [error for error in outcomes if isinstance(error, AlreadyOnRecordError)]
        assert len(judged) == 50, "the second one of each"
        assert sum(isinstance(error, LedgerError) for error in outcomes) == len(judged) + 1
        assert type(outcomes[77]) is LedgerError, "of a user who is not there, and of nobody else"
        assert transactions < 150, "one for many"


def test_nobody_waits_for_company_and_nobody_is_left() -> None:
    written: list[Sequence[int]] = []
    begun = threading.Event()

    def write(rows: Sequence[int]) -> list[Exception | None]:
        written.append(tuple(rows))
        begun.set()
        time.sleep(0.02)
        return [None] * len(rows)

    commit = GroupCommit(write, most=3)
    threads = [threading.Thread(target=commit.add, args=(number,)) for number in range(8)]
    threads[0].start()
    begun.wait(10)
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert written[0] == (0,), "the first was written at once"
    assert sorted(row for rows in written for row in rows) == list(range(8))
    assert max(map(len, written)) <= 3
    failing: GroupCommit[int] = GroupCommit(lambda rows: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        failing.add(1)


def test_what_callers_asked_adds_up_in_one_statement(ledger_address: str) -> None:
    with Ledger.open(ledger_address) as ledger:
        rollouts = ledger.endpoints.rollouts
        callers = {f"c{number}": number for number in range(2500)}
        rollouts.add_traffic({"support": callers, "other": {"c1": 1}})
        rollouts.add_traffic({"support": {"c2": 40, "new": 1}})
        rollouts.add_traffic({})
    engine = create_engine(parse_address(ledger_address))
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT alias, caller, requests FROM caller_traffic")).all()
    engine.dispose()
    counts = {(alias, caller): number for alias, caller, number in rows}
    assert (counts["support", "c2"], counts["support", "new"], counts["other", "c1"]) == (42, 1, 1)
    assert len(counts) == 2502
