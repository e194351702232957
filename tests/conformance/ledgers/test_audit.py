"""The audit chain: rows 87 to 90 and 92 of the abuse cases."""

from __future__ import annotations

import multiprocessing
import sqlite3
from collections.abc import Iterator

import psycopg
import pytest
from search_helpers import new_study, open_ledger
from sqlalchemy.exc import IntegrityError

from ztom.errors import AuditError, LedgerError, SignatureError, VariantError
from ztom.io.signatures import signing_key
from ztom.ledger import AuditEvent, Ledger, NewVariant
from ztom.ledger.audit import GENESIS, SignedHead, follow, read_head

NOW = "2030-01-01T00:00:00+00:00"


def event(number: int) -> AuditEvent:
    return AuditEvent(
        actor="ada",
        action="variant.release",
        subject=f"variant:{number}",
        recipe_digest="r" * 64,
        data_digests={"search": "s" * 64, "holdout": "h" * 64},
        before=("a" * 64, "b" * 64),
        after="c" * 64,
    )


@pytest.fixture
def ledger(ledger_address: str) -> Iterator[Ledger]:
    with open_ledger(ledger_address) as ledger:
        for number in range(5):
            ledger.audit.append(event(number))
        yield ledger


@pytest.fixture
def raw(
    ledger: Ledger, ledger_address: str
) -> Iterator[sqlite3.Connection | psycopg.Connection[object]]:
    """The database as somebody with full access to it has it."""
    if "://" in ledger_address:
        plain = ledger_address.replace("+psycopg", "")
        connection = psycopg.connect(plain, autocommit=True)
    else:
        connection = sqlite3.connect(ledger_address, isolation_level=None)
    yield connection
    connection.close()


def test_round_trip(ledger: Ledger) -> None:
    entries = list(ledger.audit.entries())
    assert [entry.sequence for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry.event for entry in entries] == [event(number) for number in range(5)]
    assert entries[0].previous == GENESIS
    assert ledger.audit.check() == 5


@pytest.mark.abuse(87)
@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE audit SET time = 'never' WHERE sequence = 2", "append-only"),
        ("DELETE FROM audit WHERE sequence = 5", "append-only"),
        ("REPLACE INTO audit SELECT * FROM audit WHERE sequence = 5", "follow the last"),
        ("TRUNCATE audit", "append-only"),
        ("INSERT INTO audit SELECT 9, time, event, hash, 'x' FROM audit LIMIT 1", "follow the"),
        ("INSERT INTO audit SELECT 6, time, event, previous, 'x' FROM audit LIMIT 1", "follow the"),
    ],
)
def test_the_database_refuses_to_change_it(ledger, raw, statement: str, reason: str) -> None:
    sqlite = isinstance(raw, sqlite3.Connection)
    if statement.startswith("TRUNCATE" if sqlite else "REPLACE"):
        return  # the other database's
    with pytest.raises(sqlite3.IntegrityError if sqlite else psycopg.Error, match=reason):
        raw.execute(statement)
    assert ledger.audit.check() == 5


def without_triggers(raw: sqlite3.Connection | psycopg.Connection[object]) -> None:
    if not isinstance(raw, sqlite3.Connection):
        raw.execute("ALTER TABLE audit DISABLE TRIGGER ALL")
        return
    for name in ("audit_no_update", "audit_no_delete", "audit_at_the_end"):
        raw.execute(f"DROP TRIGGER {name}")


@pytest.mark.abuse(88)
@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (["UPDATE audit SET time = 'x' WHERE sequence = 3"], "row 3 .* was changed"),
        (
            ['UPDATE audit SET event = \'{"actor": "eve"}\' WHERE sequence = 2'],
            "row 2 .* was changed",
        ),
        (["UPDATE audit SET event = '{}' WHERE sequence = 2"], "row 2 .* was changed"),
        (["DELETE FROM audit WHERE sequence = 3"], "row 3 .* is missing"),
        (["DELETE FROM audit WHERE sequence = 1"], "row 1 .* is missing"),
        (
            [
                "UPDATE audit SET sequence = 99 WHERE sequence = 2",
                "UPDATE audit SET sequence = 2 WHERE sequence = 3",
                "UPDATE audit SET sequence = 3 WHERE sequence = 99",
            ],
            "row 2 .* does not follow",
        ),
    ],
)
def test_the_first_bad_row_is_named(ledger, raw, statements, message: str) -> None:
    without_triggers(raw)
    for statement in statements:
        raw.execute(statement)
    with pytest.raises(AuditError, match=message):
        ledger.audit.check()


@pytest.mark.abuse(89)
def test_a_cut_tail_is_found_by_the_signed_head(ledger, raw, tmp_path) -> None:
    head = ledger.audit.sign(signing_key(tmp_path / "key"), time=NOW)
    without_triggers(raw)
    raw.execute("DELETE FROM audit WHERE sequence > 3")
    assert ledger.audit.check() == 3  # it fits in itself
    with pytest.raises(AuditError, match="row 4 is missing"):
        ledger.audit.check(head)


@pytest.mark.abuse(89)
def test_a_chain_written_anew_is_found_by_the_signed_head(ledger, raw, tmp_path) -> None:
    head = ledger.audit.sign(signing_key(tmp_path / "key"), time=NOW)
    without_triggers(raw)
    raw.execute("DELETE FROM audit")
    for number in range(6):
        ledger.audit.append(event(number + 10))
    assert ledger.audit.check() == 6
    with pytest.raises(AuditError, match="row 5 of the audit chain is not the one"):
        ledger.audit.check(head)


def test_a_head_of_an_older_chain_still_holds(ledger, tmp_path) -> None:
    head = ledger.audit.sign(signing_key(tmp_path / "key"), time=NOW)
    ledger.audit.append(event(9))
    assert ledger.audit.check(head) == 6


def test_heads_are_checked(ledger, tmp_path) -> None:
    key = signing_key(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    head = ledger.audit.sign(key, time=NOW)
    (tmp_path / "head.json").write_text(head.model_dump_json())
    read = read_head(tmp_path / "head.json")
    read.check()
    read.check(head.public_key)
    again = SignedHead.sign(None, signing_key(tmp_path / "key"), time=NOW)
    assert again.public_key == head.public_key
    with pytest.raises(AuditError, match="does not fit"):
        read.model_copy(update={"sequence": 4}).check()
    other = SignedHead.sign(None, signing_key(tmp_path / "other"), time=NOW)
    with pytest.raises(AuditError, match="another key"):
        other.check(head.public_key)


def test_keys_that_are_none_are_refused(tmp_path) -> None:
    (tmp_path / "text").write_text("no key")
    (tmp_path / "text").chmod(0o600)
    with pytest.raises(SignatureError, match="not a private key"):
        signing_key(tmp_path / "text")
    signing_key(tmp_path / "open")
    (tmp_path / "open").chmod(0o644)
    with pytest.raises(SignatureError, match="read by others"):
        signing_key(tmp_path / "open")
    with pytest.raises(AuditError, match="not a signed head"):
        read_head(tmp_path / "text")


def new_variant(**more) -> NewVariant:
    return NewVariant(digest="d", address="a", recipe={"form": "dense"}, event=event(5), **more)


@pytest.mark.abuse(90)
def test_a_variant_and_its_row_are_written_together(ledger) -> None:
    placed: list[str] = []

    def broken() -> None:
        raise VariantError("the disk is full")

    with pytest.raises(VariantError, match="disk is full"):
        ledger.variants.record(new_variant(), broken)
    with pytest.raises(LedgerError) as caught:  # there is no such study
        ledger.variants.record(new_variant(study_id=77), lambda: placed.append("v"))
    assert isinstance(caught.value.__cause__, IntegrityError)
    assert placed == []
    assert ledger.variants.all() == ()
    assert ledger.audit.check() == 5
    ledger.variants.record(new_variant(), lambda: placed.append("v"))
    assert placed == ["v"]
    assert [variant.digest for variant in ledger.variants.all()] == ["d"]
    assert ledger.audit.check() == 6


def test_a_search_releases_its_variant(ledger) -> None:
    study = new_study(ledger)
    assert ledger.studies.proof(study) is None
    ledger.studies.save_proof(study, "inconclusive", {"outcome": "inconclusive"})
    ledger.studies.save_proof(study, "improved", {"outcome": "improved"})
    ledger.variants.record(new_variant(study_id=study, insisted=True), lambda: None)
    assert ledger.studies.proof(study) == {"outcome": "improved"}
    release = ledger.variants.published()[0]
    assert (release.digest, release.study_id, release.actor) == ("d", study, "ada")
    assert release.insisted


def append_many(address: str, count: int) -> None:
    with open_ledger(address) as ledger:
        for number in range(count):
            ledger.audit.append(event(number))


@pytest.mark.abuse(92)
def test_two_writers_make_no_fork(ledger_address: str) -> None:
    append_many(ledger_address, 0)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=append_many, args=(ledger_address, 20)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0]
    with open_ledger(ledger_address) as ledger:
        assert ledger.audit.check() == 40


def test_the_hash_depends_on_every_field() -> None:
    first = follow(event(0), None, time=NOW)
    others = [
        follow(event(1), None, time=NOW),
        follow(event(0), None, time="2030-01-02T00:00:00+00:00"),
        follow(event(0), first, time=NOW),
    ]
    assert len({first.hash, *(other.hash for other in others)}) == 4
