from __future__ import annotations

import math
import multiprocessing
import sqlite3
import threading
import time

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from search_helpers import new_study, open_ledger

from ztom.errors import LedgerError
from ztom.ledger import Ledger, StudyStatus, TrialKind, TrialOutcome, TrialStatus
from ztom.ledger.models import Base


def test_round_trip(ledger_address):
    outcome = TrialOutcome(
        error=1 / 3,
        per_stimulus=(0.1, 1e-300),
        guardrails={"general": 2.5},
        seconds={"blend": 0.25},
        generated_tokens=7,
        attempts=2,
    )
    with open_ledger(ledger_address) as ledger:
        study = new_study(ledger)
        asked = ledger.studies.ask(study, number=0, kind=TrialKind.SEARCH, factors=(0.1, -1 / 3))
        assert asked.status is TrialStatus.RUNNING
        told = ledger.studies.tell(study, 0, outcome)
    with open_ledger(ledger_address) as ledger:
        assert ledger.studies.trials(study) == (told,)
        assert told.outcome == outcome
        assert told.factors == (0.1, -1 / 3)


def test_events_come_in_the_order_in_which_they_happened(ledger_address):
    with open_ledger(ledger_address) as ledger:
        study = new_study(ledger)
        for number in range(3):
            ledger.studies.ask(study, number=number, kind=TrialKind.SEARCH, factors=(0.0,))
        ledger.studies.tell(study, 2, TrialOutcome(error=1.0))
        ledger.studies.tell(study, 0, TrialOutcome(reason="it broke"))
        events = ledger.studies.events(study)
    assert [(e.action, e.trial.number) for e in events] == [
        ("ask", 0),
        ("ask", 1),
        ("ask", 2),
        ("tell", 2),
        ("tell", 0),
    ]
    assert [e.sequence for e in events] == list(range(5))
    assert events[-1].trial.status is TrialStatus.FAILED


def test_a_number_is_asked_once_and_told_once(ledger_address):
    with open_ledger(ledger_address) as ledger:
        study = new_study(ledger)
        ledger.studies.ask(study, number=0, kind=TrialKind.SEARCH, factors=(0.0,))
        with pytest.raises(LedgerError):
            ledger.studies.ask(study, number=0, kind=TrialKind.SEARCH, factors=(0.0,))
        ledger.studies.tell(study, 0, TrialOutcome(error=1.0))
        with pytest.raises(LedgerError, match="has ended"):
            ledger.studies.tell(study, 0, TrialOutcome(error=2.0))
        with pytest.raises(LedgerError, match="no trial 5"):
            ledger.studies.tell(study, 5, TrialOutcome(error=2.0))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_json_cannot_hold_is_refused(ledger_address, bad):
    with open_ledger(ledger_address) as ledger:
        study = new_study(ledger)
        with pytest.raises(LedgerError):
            ledger.studies.ask(study, number=0, kind=TrialKind.SEARCH, factors=(bad,))
        assert ledger.studies.trials(study) == ()


def test_newest_study_of_a_name_and_its_status(ledger_address):
    with open_ledger(ledger_address) as ledger:
        new_study(ledger, "a")
        newest = new_study(ledger, "a")
        new_study(ledger, "b")
        assert ledger.studies.latest("a").id == newest
        assert ledger.studies.latest("c") is None
        ledger.studies.set_status(newest, StudyStatus.FAILED, reason="why")
        assert ledger.studies.get(newest).status is StudyStatus.FAILED
        assert ledger.studies.get(newest).reason == "why"
        with pytest.raises(LedgerError, match="no such study"):
            ledger.studies.get(99)


def test_result_is_replaced(ledger_address):
    with open_ledger(ledger_address) as ledger:
        study = new_study(ledger)
        assert ledger.studies.result(study) is None
        ledger.studies.save_result(study, {"a": 1})
        ledger.studies.save_result(study, {"a": 2})
        assert ledger.studies.result(study) == {"a": 2}
        with pytest.raises(LedgerError):
            ledger.studies.save_result(99, {})


@pytest.mark.abuse(79)
def test_names_are_values_and_not_sql(ledger_address):
    nasty = "x'; DROP TABLE studies; --"
    with open_ledger(ledger_address) as ledger:
        study = new_study(ledger, nasty)
        assert ledger.studies.latest(nasty).id == study


def test_migrations_make_what_the_models_say(ledger_address):
    with open_ledger(ledger_address) as ledger, ledger._database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_file_is_set_up_to_survive_a_kill(tmp_path):
    with open_ledger(tmp_path) as ledger, ledger._database.engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 10_000,
    }


def test_newer_schema_is_refused(tmp_path):
    open_ledger(tmp_path).close()
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(LedgerError, match="does not know"):
        open_ledger(tmp_path)


@pytest.mark.parametrize("content", [b"not a database, just some text" * 100, b"\0" * 5000])
def test_file_that_is_no_database_is_refused(tmp_path, content):
    (tmp_path / "ledger.db").write_bytes(content)
    with pytest.raises(LedgerError):
        open_ledger(tmp_path)


def test_torn_file_is_refused(tmp_path):
    with open_ledger(tmp_path) as ledger:
        study = new_study(ledger)
        for number in range(300):
            ledger.studies.ask(study, number=number, kind=TrialKind.SEARCH, factors=(0.1,) * 20)
    path = tmp_path / "ledger.db"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LedgerError):
        open_ledger(tmp_path)


def test_locked_file_is_an_error_after_the_timeout(tmp_path):
    open_ledger(tmp_path).close()
    holder = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError, match="locked"):
        Ledger.open(tmp_path / "ledger.db", busy_timeout_s=0.05)
    holder.close()


@pytest.mark.parametrize("address", ["nonsense://x", "://", "/proc/no/such/ledger.db"])
def test_unusable_address_is_refused(address):
    with pytest.raises(LedgerError):
        Ledger.open(address)


def test_password_is_never_shown():
    with pytest.raises(LedgerError) as caught:
        Ledger.open("postgresql+nodriver://user:s3cret@127.0.0.1:1/none")
    assert "s3cret" not in str(caught.value)


def test_threads_share_a_ledger(ledger_address):
    with open_ledger(ledger_address) as ledger:
        study = new_study(ledger)

        def write(first: int) -> None:
            for number in range(first, first + 10):
                ledger.studies.ask(study, number=number, kind=TrialKind.SEARCH, factors=(0.0,))
                ledger.studies.tell(study, number, TrialOutcome(error=1.0))

        threads = [threading.Thread(target=write, args=(10 * i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [e.sequence for e in ledger.studies.events(study)] == list(range(80))


def _hold(path, ready):
    with Ledger.open(path) as ledger, ledger.studies.lock("study"):
        ready.set()
        threading.Event().wait()


def test_lock_is_exclusive_and_dies_with_its_holder(ledger_address):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(ledger_address, ready))
    holder.start()
    assert ready.wait(30)
    with open_ledger(ledger_address) as ledger:
        who = "another process" if "://" in ledger_address else str(holder.pid)
        with pytest.raises(LedgerError, match=who), ledger.studies.lock("study"):
            pass
        with ledger.studies.lock("another"):
            pass
        holder.kill()
        holder.join()
        deadline = time.monotonic() + 60  # a server notices a lost connection a moment later
        while True:
            try:
                with ledger.studies.lock("study"):
                    break
            except LedgerError:
                assert time.monotonic() < deadline
                time.sleep(0.1)


def test_the_revision_is_another_one_once_anybody_has_written(ledger_address):
    with open_ledger(ledger_address) as ledger, open_ledger(ledger_address) as other:
        seen = [ledger.revision()]
        for writer in (other, ledger):
            new_study(writer, name=f"of {id(writer)}")
            seen.append(ledger.revision())
        assert len(set(seen)) == 3
        if ledger_address.startswith("postgresql"):
            return  # others write to other databases of the same server
        other.studies.events("none")
        assert ledger.revision() == seen[-1]
