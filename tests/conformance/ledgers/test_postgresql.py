"""What a PostgreSQL ledger is refused for, and what a failover does to the lock on a study."""

from __future__ import annotations

import uuid

import postgres
import psycopg
import pytest
from pooler import transaction_pooler
from search_helpers import new_study
from sqlalchemy import make_url

from ztom.errors import LedgerError
from ztom.ledger import Ledger, TrialKind

_FACTORS = (0.1, 0.2)


def test_a_database_that_is_not_utf8_is_refused(postgresql: str) -> None:
    name = f"latin{uuid.uuid4().hex}"
    with _connect(f"{postgresql}/postgres") as connection:
        connection.execute(
            f"CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' "
            "LC_CTYPE 'C'"
        )
    with pytest.raises(LedgerError, match=r"not in UTF-8: got LATIN1.*ENCODING 'UTF8'"):
        Ledger.open(f"{postgresql}/{name}")


def test_a_pooler_in_transaction_mode_is_refused_by_name(postgresql: str) -> None:
    address = postgres.new_database(postgresql)
    url = make_url(address)
    assert url.port is not None
    with transaction_pooler(url.port) as port:
        behind = url.set(port=port).render_as_string(hide_password=False)
        with psycopg.connect(behind.replace("+psycopg", "")) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)  # the pooler itself works
        with pytest.raises(LedgerError, match="pooler in transaction mode"):
            Ledger.open(behind)
    Ledger.open(address).close()  # the server itself is fine


def test_a_lock_lost_in_a_failover_is_taken_again(postgresql: str) -> None:
    address = postgres.new_database(postgresql)
    with Ledger.open(address) as ledger, ledger.studies.lock("study"):
        study = new_study(ledger)
        _end_sessions(address)
        ledger.studies.ask(study, number=0, kind=TrialKind.BASELINE, factors=_FACTORS)
        with (
            Ledger.open(address) as other,
            pytest.raises(LedgerError, match="run by another process"),
            other.studies.lock("study"),
        ):
            pass
        _end_sessions(address)  # the release has nothing to give back, and says nothing


def test_a_lock_that_another_driver_took_meanwhile_stops_the_first(postgresql: str) -> None:
    address = postgres.new_database(postgresql)
    with Ledger.open(address) as ledger, Ledger.open(address) as other:
        study = new_study(ledger)
        with ledger.studies.lock("study"):
            _end_sessions(address)
            with (
                other.studies.lock("study"),
                pytest.raises(LedgerError, match="was lost.*another process runs the study now"),
            ):
                ledger.studies.ask(study, number=0, kind=TrialKind.BASELINE, factors=_FACTORS)
            assert ledger.studies.trials(study) == ()


def _connect(address: str) -> psycopg.Connection:
    return psycopg.connect(address.replace("+psycopg", ""), autocommit=True)


def _end_sessions(address: str) -> None:
    """As the server does when it fails over."""
    with _connect(address) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
