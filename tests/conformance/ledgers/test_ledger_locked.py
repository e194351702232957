"""A ledger that another holds, or whose connections are cut: row 67, on both databases."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager

import postgres
import psycopg
import pytest
from search_helpers import new_study

from ztom.errors import LedgerError
from ztom.ledger import AuditEvent, Ledger
from ztom.ledger.database import _WRITER_KEY

_EVENT = AuditEvent(actor="me", action="test.done", subject="test:1")


def raw_address(address: str) -> str:
    return address.replace("postgresql+psycopg://", "postgresql://")


@contextmanager
def held(address: str) -> Iterator[None]:
    """Another writer in the middle of a transaction."""
    if "://" not in address:
        with sqlite3.connect(address, isolation_level=None) as holder:
            holder.execute("BEGIN IMMEDIATE")
            yield
            holder.execute("ROLLBACK")
        holder.close()
        return
    with psycopg.connect(raw_address(address)) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(%s)", (_WRITER_KEY,))
        yield


@pytest.mark.abuse(67)
def test_who_waits_too_long_is_told_and_nothing_is_half_done(ledger_address: str) -> None:
    with Ledger.open(ledger_address, busy_timeout_s=0.3) as ledger:
        ledger.audit.append(_EVENT)
        with held(ledger_address):
            began = time.monotonic()
            with pytest.raises(LedgerError, match=r"lock"):
                ledger.audit.append(_EVENT)
            assert time.monotonic() - began < 10
            with pytest.raises(LedgerError, match=r"lock"):
                new_study(ledger)
            assert ledger.audit.check() == 1, "reading goes on"
        assert ledger.studies.all() == ()
        assert ledger.audit.append(_EVENT).sequence == 2
        assert ledger.audit.check() == 2


@pytest.mark.abuse(67)
def test_cut_connections_cost_one_transaction_each(postgresql: str) -> None:
    """As at a failover: the server ends every session, in the middle of a transaction too."""
    address = postgres.new_database(postgresql)
    with (
        Ledger.open(address) as ledger,
        psycopg.connect(raw_address(address), autocommit=True) as admin,
    ):
        ledger.audit.append(_EVENT)
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        end += " AND datname = current_database()"
        with pytest.raises(LedgerError):
            _cut_in_the_middle(ledger, admin, end)
        assert admin.execute("SELECT to_regclass('half')").fetchone() == (None,)
        admin.execute(end)  # now those that are idle: nobody notices
        assert ledger.audit.append(_EVENT).sequence == 2
        assert ledger.audit.check() == 2


def _cut_in_the_middle(ledger: Ledger, admin: psycopg.Connection[object], end: str) -> None:
    with ledger._database.write("cut") as session:
        session.connection().exec_driver_sql("CREATE TABLE half (a int)")
        admin.execute(end)  # type: ignore[call-overload]
        session.connection().exec_driver_sql("INSERT INTO half VALUES (1)")
