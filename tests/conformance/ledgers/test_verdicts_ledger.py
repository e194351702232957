"""Verdicts of the gate on record, on both databases."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ztom.errors import AlreadyOnRecordError, LedgerError, NotOnRecordError
from ztom.ledger import Ledger
from ztom.ledger.accounts import NewUser
from ztom.ledger.verdicts import NewVerdict

KEY = base64.b64encode(bytes(32)).decode()
A, B, C = "a" * 64, "b" * 64, "c" * 64


@pytest.fixture
def ledger(ledger_address: str) -> Iterator[Ledger]:
    with Ledger.open(ledger_address) as ledger:
        yield ledger


@pytest.fixture
def projects(ledger: Ledger) -> tuple[str, str]:
    owner = ledger.accounts.create(NewUser("ada", "a@x.org", "h"), actor="t").id
    fields = {"description": "", "format": "HF_TEXT_GENERATION", "owner": owner, "actor": "t"}
    first, second = (ledger.projects.create(name=name, **fields) for name in ("p", "q"))
    return first.id, second.id


def new(
    outcome: str, champion: str | None = None, project: str | None = None, key: str | None = None
) -> NewVerdict:
    document = f'{{"outcome": "{outcome}", "champion": "{champion}"}}'.encode()
    return NewVerdict(document, A, champion, outcome, project, key)


def outcome(ledger: Ledger, **which: str | None) -> str | None:
    found = ledger.verdicts.latest(A, **{"project_id": None, **which})
    return None if found is None else found.outcome


def test_a_verdict_is_kept_with_its_row_of_the_audit_chain(ledger: Ledger) -> None:
    record = ledger.verdicts.record(new("fail", B), actor="user:1")
    assert record.sha256 == hashlib.sha256(new("fail", B).document).hexdigest()
    assert (record.candidate, record.champion, record.outcome) == (A, B, "fail")
    assert ledger.verdicts.content(record.number) == {"outcome": "fail", "champion": B}
    (entry,) = ledger.audit.entries()
    assert (entry.sequence, entry.event.action) == (record.number, "verdict.record")
    assert entry.event.subject == f"variant:{A}"
    assert (entry.event.before, entry.event.after) == ((B,), record.sha256)
    assert ledger.audit.check() == 1
    with pytest.raises(NotOnRecordError):
        ledger.verdicts.content(99)


def test_one_that_is_there_stays_as_it_is(ledger: Ledger) -> None:
    with ThreadPoolExecutor(4) as pool:
        records = set(pool.map(lambda _: ledger.verdicts.record(new("pass"), actor="t"), range(4)))
    assert len(records) == 1
    ledger.verdicts.record(new("fail"), actor="t")
    assert {ledger.verdicts.record(new("pass"), actor="u")} == records
    assert outcome(ledger) == "fail", "an old one does not become the latest"
    assert [record.outcome for record in ledger.verdicts.all()] == ["fail", "pass"]
    assert ledger.audit.length() == 2


def test_the_latest_of_a_candidate_and_of_a_comparison(ledger: Ledger) -> None:
    assert outcome(ledger) is None
    ledger.signing_keys.register("ci", KEY, actor="t")
    for each in (new("fail", B), new("pass", B, key=KEY), new("inconclusive", C), new("fail")):
        ledger.verdicts.record(each, actor="t")
    assert outcome(ledger) == "fail"
    assert outcome(ledger, champion=B) == "pass"
    assert outcome(ledger, champion=C) == "inconclusive"
    assert outcome(ledger, champion=A) is None
    assert len(ledger.verdicts.all(candidate=A[:8])) == 4
    assert ledger.verdicts.all(candidate=B) == ()


def test_a_pass_holds_that_a_registered_key_signed(ledger: Ledger) -> None:
    ledger.verdicts.record(new("fail", B), actor="t")
    ledger.verdicts.record(new("pass"), actor="t")
    assert outcome(ledger) == "fail", "a claim does not take it back"
    ledger.verdicts.record(new("pass", C, key=KEY), actor="t")
    assert outcome(ledger) == "fail", "nobody has registered the key"
    key = ledger.signing_keys.register("ci", KEY, actor="t")
    record = ledger.verdicts.latest(A, project_id=None)
    assert record is not None
    assert (record.outcome, record.signer, record.is_claim) == ("pass", "ci", False)
    ledger.signing_keys.revoke(key.id, actor="t")
    assert outcome(ledger) == "fail"
    with pytest.raises(AlreadyOnRecordError, match="was revoked"):
        ledger.signing_keys.register("ci", KEY, actor="t")
    assert ledger.audit.check() == 5


def test_a_verdict_counts_for_its_project_or_for_all(
    ledger: Ledger, projects: tuple[str, str]
) -> None:
    mine, theirs = projects
    ledger.verdicts.record(new("fail", None, theirs), actor="t")
    assert outcome(ledger) is None
    assert outcome(ledger, project_id=mine) is None
    ledger.signing_keys.register("ci", KEY, actor="t")
    ledger.verdicts.record(new("pass", key=KEY), actor="t")
    assert outcome(ledger, project_id=mine) == outcome(ledger, project_id=theirs) == "pass"
    ledger.verdicts.record(new("fail", None, mine), actor="t")
    assert outcome(ledger, project_id=mine) == "fail", "the same document, for another project"
    assert outcome(ledger) == outcome(ledger, project_id=theirs) == "pass"
    ledger.projects.delete([mine], hard=True, actor="t")
    assert [each.project_id for each in ledger.verdicts.all()] == [None, theirs]


def test_what_is_no_verdict_is_refused(ledger: Ledger) -> None:
    for wrong in (
        NewVerdict(b"{", A, None, "pass"),
        NewVerdict(b"{}", A, None, "green"),
        NewVerdict(b"{}", A, None, "pass", project_id="none"),
    ):
        with pytest.raises(LedgerError):
            ledger.verdicts.record(wrong, actor="t")
    assert (ledger.verdicts.all(), ledger.audit.length()) == ((), 0)
