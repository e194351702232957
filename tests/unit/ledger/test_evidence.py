"""A ledger that is only read: nothing of it changes, wherever it lies."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import command_line
import faults
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

import ztom.ledger.database
from ztom.errors import LedgerError
from ztom.ledger import Ledger
from ztom.ledger.records import AuditEvent

_EVENT = AuditEvent(actor="me", action="test.done", subject="test:1")


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "evidence" / "ledger.db"
    with Ledger.open(path) as ledger:
        for _ in range(3):
            ledger.audit.append(_EVENT)
    return path


def state_of(folder: Path) -> dict[str, tuple[int, str]]:
    """Time and content of every file, and what files there are."""
    return {
        path.name: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.iterdir())
    }


def test_reading_changes_nothing_and_writing_is_refused(ledger: Path) -> None:
    before = state_of(ledger.parent)
    with Ledger.read(ledger) as evidence:
        assert evidence.audit.check() == 3
        with pytest.raises(LedgerError, match="only read"):
            evidence.audit.append(_EVENT)
    assert state_of(ledger.parent) == before
    for arguments in (("log", ledger), ("audit", "verify", ledger)):
        done = command_line.ztom(*arguments)
        assert done.returncode == 0, done.stderr
    assert state_of(ledger.parent) == before


@pytest.mark.abuse(108)
@pytest.mark.parametrize("kind", ["no bytes", "no tables", "no rows"])
def test_an_emptied_ledger_fails_and_stays_as_it_is(ledger: Path, kind: str) -> None:
    if kind == "no bytes":
        ledger.write_bytes(b"")
    else:
        with sqlite3.connect(ledger, isolation_level=None) as raw:
            for (name,) in raw.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'"):
                raw.execute(f"DROP TRIGGER {name}")
            if kind == "no rows":
                raw.execute("DELETE FROM audit")
            else:
                raw.execute("PRAGMA foreign_keys = OFF")
                query = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 's%'"
                for (name,) in raw.execute(query).fetchall():
                    raw.execute(f"DROP TABLE {name}")
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        raw.close()
    before = state_of(ledger.parent)
    done = command_line.ztom("audit", "verify", ledger)
    assert done.returncode in (1, 3), done.stdout
    assert ("no rows" if kind == "no rows" else "is empty") in " ".join(
        (done.stdout + done.stderr).split()
    )
    assert state_of(ledger.parent) == before


def test_a_signed_head_finds_what_was_emptied(ledger: Path, tmp_path: Path) -> None:
    head = tmp_path / "head.json"
    signing = ("audit", "sign", ledger, "--output", head, "--key", tmp_path / "key")
    assert command_line.ztom(*signing).returncode == 0
    ledger.unlink()
    Ledger.open(ledger).close()  # what used to happen by itself
    done = command_line.ztom("audit", "verify", ledger, "--head", head)
    assert done.returncode == 1
    assert "shorter than its signed head" in " ".join(done.stdout.split())


def test_rows_that_are_in_the_log_only_are_read(ledger: Path) -> None:
    with Ledger.open(ledger) as writer:
        writer.audit.append(_EVENT)
        with Ledger.read(ledger) as evidence:
            assert evidence.audit.check() == 4
            writer.audit.append(_EVENT)
            assert evidence.audit.check() == 5


def test_a_log_left_by_a_killed_process_is_read_on_a_copy(ledger: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    with Ledger.open(ledger) as writer:
        writer.audit.append(_EVENT)
        shutil.copytree(ledger.parent, killed)
    (killed / "ledger.db-shm").unlink()
    before = state_of(killed)
    assert (killed / "ledger.db-wal").stat().st_size
    with Ledger.read(killed / "ledger.db") as evidence:
        assert evidence.audit.check() == 4
    assert state_of(killed) == before


@pytest.mark.abuse(108)
def test_a_medium_that_cannot_be_written_is_read(ledger: Path, tmp_path: Path) -> None:
    with faults.read_only(ledger.parent, tmp_path / "medium") as medium:
        with pytest.raises(OSError, match="Read-only"):
            (medium / "x").touch()
        done = command_line.ztom("audit", "verify", medium / "ledger.db")
        assert done.returncode == 0, done.stderr
        assert "3 rows" in done.stdout


def test_a_write_meanwhile_is_noticed(ledger: Path) -> None:
    with Ledger.read(ledger) as evidence:
        with Ledger.open(ledger) as writer:
            writer.audit.append(_EVENT)
        with pytest.raises(LedgerError, match="written to while it was read"):
            list(evidence.audit.entries())


def test_an_older_ledger_is_read_in_a_copy(tmp_path: Path) -> None:
    old = tmp_path / "ledger.db"
    config = Config()
    folder = Path(ztom.ledger.database.__file__).with_name("migrations")
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    engine = create_engine(f"sqlite:///{old}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0005")
    engine.dispose()
    before = state_of(tmp_path)
    with Ledger.read(old) as evidence:
        assert evidence.audit.check() == 0
        assert evidence.files.managed_addresses() == frozenset()  # reads what 0006 has added
    assert state_of(tmp_path) == before


def test_a_newer_ledger_is_refused(ledger: Path) -> None:
    with sqlite3.connect(ledger, isolation_level=None) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw.close()
    with pytest.raises(LedgerError, match="schema that this version does not know"):
        Ledger.read(ledger)


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_nobody_else_reads_a_ledger(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    old = tmp_path / "ledger.db"
    old.touch(0o666)
    with Ledger.open(old) as ledger, ledger.studies.lock("s"):
        ledger.audit.append(_EVENT)
        names = sorted(path.name for path in tmp_path.iterdir())
        assert {"ledger.db", "ledger.db-shm", "ledger.db-wal"} <= set(names)
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
        assert modes == dict.fromkeys(names, 0o600)
        if os.geteuid() == 0:
            assert faults.readable_by_a_stranger(tmp_path) == [tmp_path]


def test_a_stranger_reads_what_is_open(tmp_path: Path) -> None:
    """So the test above can fail."""
    tmp_path.chmod(0o755)
    (tmp_path / "open").write_text("x")
    (tmp_path / "open").chmod(0o644)
    assert [path.name for path in faults.readable_by_a_stranger(tmp_path)][1:] == ["open"]
