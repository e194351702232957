"""Users, keys, projects, files and requests, on both databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from search_helpers import new_study, open_ledger

from ztom.errors import AlreadyOnRecordError, NotOnRecordError
from ztom.ledger import Ledger
from ztom.ledger.accounts import NewUser, Scope, UserChange, UserRecord
from ztom.ledger.checkpoints import CheckpointChange, FileStatus, NewCheckpoint, Part, Storage
from ztom.ledger.projects import Role
from ztom.ledger.requests import NewRequest, RequestKind, RequestStatus


@pytest.fixture
def ledger(ledger_address: str) -> Iterator[Ledger]:
    with open_ledger(ledger_address) as ledger:
        yield ledger


@pytest.fixture
def ada(ledger: Ledger) -> UserRecord:
    return ledger.accounts.create(
        NewUser("Ada", "Ada@Example.org", "hash", is_admin=True), actor="local:root"
    )


def file(number: int = 0, **more: object) -> NewCheckpoint:
    return NewCheckpoint(
        **{
            "file_name": f"{number}.tar",
            "format": "HF_TEXT_GENERATION",
            "storage": Storage.MANAGED,
            "address": f"/data/{number}.tar",
            **more,
        }
    )


@pytest.mark.abuse(79)
def test_names_and_addresses_are_taken_once(ledger: Ledger, ada: UserRecord) -> None:
    assert (ada.username, ada.email) == ("ada", "ada@example.org")
    for username, email in [("ADA", "x@example.org"), ("bob", "ADA@example.org")]:
        with pytest.raises(AlreadyOnRecordError):
            ledger.accounts.create(NewUser(username, email, "hash"), actor="ada")
    found = ledger.accounts.for_login("aDa")
    assert found == (ada, "hash") == ledger.accounts.for_login("ada@example.ORG")
    assert ledger.accounts.for_login("nobody' OR 1=1 --") is None


def test_a_change_of_password_or_a_disabling_ends_the_session(ledger, ada) -> None:
    changed = ledger.accounts.change(ada.id, UserChange(first_name="A."), actor="ada")
    assert changed.session == ada.session
    changed = ledger.accounts.change(ada.id, UserChange(password_hash="other"), actor="ada")
    assert changed.session == ada.session + 1


def test_an_administrator_always_remains(ledger: Ledger, ada: UserRecord) -> None:
    for change in (UserChange(enabled=False), UserChange(is_admin=False)):
        with pytest.raises(AlreadyOnRecordError, match="no administrator"):
            ledger.accounts.change(ada.id, change, actor="ada")
    with pytest.raises(AlreadyOnRecordError, match="no administrator"):
        ledger.accounts.remove(ada.id, actor="ada")
    bob = ledger.accounts.create(NewUser("bob", "b@x", "h", is_admin=True), actor="ada")
    ledger.accounts.remove(ada.id, actor="bob")
    assert ledger.accounts.for_login("ada") is None
    assert ledger.accounts.get(bob.id).is_admin
    ledger.accounts.create(NewUser("ada", "ada@example.org", "h"), actor="bob")  # free again


def test_keys(ledger: Ledger, ada: UserRecord) -> None:
    key, secret = ledger.accounts.create_key(
        ada.id, name="ci", scopes=[Scope.READ], project_id=None, actor="ada"
    )
    assert ledger.accounts.by_key(secret) == (ada, key)
    assert ledger.accounts.by_key(secret + "x") is None
    assert secret not in repr(ledger.accounts.keys(ada.id))
    with pytest.raises(NotOnRecordError):
        ledger.accounts.revoke_key("somebody", key.id, actor="eve")
    ledger.accounts.revoke_key(ada.id, key.id, actor="ada")
    assert ledger.accounts.by_key(secret) is None


def test_projects_are_seen_by_their_members(ledger: Ledger, ada: UserRecord) -> None:
    bob = ledger.accounts.create(NewUser("bob", "b@x", "h"), actor="ada")
    make = {"description": "", "format": "HF_TEXT_GENERATION", "actor": "ada"}
    one = ledger.projects.create(name="one", owner=ada.id, **make)
    two = ledger.projects.create(name="x'; DROP TABLE projects; --", owner=bob.id, **make)
    assert [p.id for p in ledger.projects.visible_to(ada.id)] == [one.id]
    assert {p.id for p in ledger.projects.visible_to(None)} == {one.id, two.id}
    assert ledger.projects.role(two.id, ada.id) is None
    ledger.projects.set_member(two.id, ada.id, Role.VIEWER, actor="bob")
    assert ledger.projects.role(two.id, ada.id) is Role.VIEWER
    with pytest.raises(AlreadyOnRecordError, match="no owner"):
        ledger.projects.remove_member(two.id, bob.id, actor="bob")
    with pytest.raises(AlreadyOnRecordError, match="no owner"):
        ledger.projects.set_member(two.id, bob.id, Role.VIEWER, actor="bob")
    ledger.projects.remove_member(two.id, ada.id, actor="bob")
    ledger.projects.delete([one.id], hard=False, actor="ada")
    assert ledger.projects.visible_to(ada.id) == ()
    with pytest.raises(NotOnRecordError):
        ledger.projects.get(one.id)


@pytest.mark.abuse(10)
def test_files_in_their_order_with_the_base_first(ledger: Ledger, ada: UserRecord) -> None:
    project = ledger.projects.create(
        name="p", description="", format="HF_TEXT_GENERATION", owner=ada.id, actor="ada"
    )
    placed: list[int] = []
    for number in (1, 2):
        ledger.files.add(project.id, file(number), actor="ada", place=lambda: placed.append(1))
    ledger.files.add(project.id, file(9, part=Part.MASTERED), actor="ada")
    ledger.files.add(project.id, file(0, part=Part.BASE), actor="ada")
    with pytest.raises(AlreadyOnRecordError, match="base model"):
        ledger.files.add(project.id, file(5, part=Part.BASE), actor="ada")
    found = ledger.projects.get(project.id)
    assert [f.file_name for f in found.files] == ["0.tar", "1.tar", "2.tar", "9.tar"]
    assert [f.file_name for f in found.chain] == ["0.tar", "1.tar", "2.tar"]
    again = ledger.files.add(project.id, file(1), actor="ada")
    assert again.id == found.files[1].id
    assert placed == [1, 1]

    def full() -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        ledger.files.add(project.id, file(3), actor="ada", place=full)
    assert len(ledger.projects.get(project.id).files) == 4


def test_bytes_are_free_when_nothing_refers_to_them(ledger: Ledger, ada: UserRecord) -> None:
    make = {"description": "", "format": "HF_TEXT_GENERATION", "owner": ada.id, "actor": "ada"}
    one, two = (ledger.projects.create(name=name, **make) for name in ("one", "two"))
    first = ledger.files.add(one.id, file(1), actor="ada")
    second = ledger.files.add(two.id, file(1), actor="ada")
    assert ledger.files.delete(one.id, first.id, hard=True, actor="ada") == ()
    assert ledger.files.delete(two.id, second.id, hard=False, actor="ada") == ()
    assert ledger.projects.delete([two.id], hard=True, actor="ada") == ("/data/1.tar",)
    assert ledger.audit.check() == 8


def test_scores_are_of_what_was_looked_at(ledger: Ledger, ada: UserRecord) -> None:
    make = {"description": "", "format": "HF_TEXT_GENERATION", "owner": ada.id, "actor": "ada"}
    project = ledger.projects.create(name="one", **make)
    added = ledger.files.add(project.id, file(1), actor="ada")
    assert [f.id for f in ledger.files.pending()] == [added.id]
    change = CheckpointChange(address="/data/2.tar", nbytes=3)
    changed, orphans = ledger.files.change(project.id, added.id, change, actor="ada")
    assert orphans == ("/data/1.tar",)
    ledger.files.set_scores(added.id, address="/data/1.tar", digest="old", weight_score=1.0)
    assert ledger.files.get(project.id, added.id) == changed
    ledger.files.set_scores(added.id, address="/data/2.tar", digest="new", weight_score=0.5)
    scored = ledger.files.get(project.id, added.id)
    assert (scored.status, scored.digest, scored.weight_score) == (FileStatus.VALID, "new", 0.5)
    ledger.files.set_scores(added.id, address="/data/2.tar", digest=None, message="NaN")
    assert ledger.files.get(project.id, added.id).status is FileStatus.INVALID


def test_a_request_ends_once(ledger: Ledger, ada: UserRecord) -> None:
    project = ledger.projects.create(
        name="p", description="", format="HF_TEXT_GENERATION", owner=ada.id, actor="ada"
    )
    asked = ledger.requests.create(NewRequest(RequestKind.SEARCH, ada.id, project.id, {"n": 1}))
    assert ledger.requests.open() == (asked,)
    ledger.requests.set_study(asked.id, new_study(ledger))
    running = ledger.requests.start(asked.id, job="j")
    assert (running.status, running.attempts) == (RequestStatus.RUNNING, 1)
    mastered = file(7, part=Part.MASTERED)
    for _ in range(2):
        done = ledger.requests.finish(asked.id, result={"e": 0.5}, checkpoint=mastered)
    assert len(ledger.projects.get(project.id).files) == 1
    assert done.checkpoint_id == ledger.projects.get(project.id).files[0].id
    late = ledger.requests.end(asked.id, RequestStatus.FAILED, reason="too late")
    assert late == done
    assert ledger.requests.open() == ()
    assert ledger.requests.of_project(project.id) == (done,)
    ledger.projects.delete([project.id], hard=True, actor="ada")
    with pytest.raises(NotOnRecordError):
        ledger.requests.get(asked.id)


def test_a_name_is_nobody_elses_address(ledger: Ledger, ada: UserRecord) -> None:
    for username, email in [("ada@example.org", "x@y"), ("x", "ada")]:
        with pytest.raises(AlreadyOnRecordError):
            ledger.accounts.create(NewUser(username, email, "h"), actor="eve")


def test_an_account_can_change_before_there_is_an_administrator(ledger: Ledger) -> None:
    bob = ledger.accounts.create(NewUser("bob", "b@x", "h"), actor="registration:bob")
    changed = ledger.accounts.change(bob.id, UserChange(first_name="B."), actor="bob")
    assert changed.first_name == "B."
    ledger.accounts.remove(bob.id, actor="bob")


def test_projects_are_deleted_all_or_none(ledger: Ledger, ada: UserRecord) -> None:
    make = {"description": "", "format": "HF_TEXT_GENERATION", "owner": ada.id, "actor": "ada"}
    one, two = (ledger.projects.create(name=name, **make) for name in ("one", "two"))
    asked = ledger.requests.create(NewRequest(RequestKind.SEARCH, ada.id, two.id))
    with pytest.raises(AlreadyOnRecordError, match="under way"):
        ledger.projects.delete([one.id, two.id], hard=True, actor="ada")
    assert len(ledger.projects.visible_to(ada.id)) == 2
    ledger.requests.end(asked.id, RequestStatus.CANCELLED, reason="no")
    ledger.projects.delete([one.id, two.id], hard=True, actor="ada")
    assert ledger.projects.visible_to(ada.id) == ()


def test_bytes_that_somebody_began_to_use_are_not_purged(ledger, ada) -> None:
    make = {"description": "", "format": "HF_TEXT_GENERATION", "owner": ada.id, "actor": "ada"}
    one, two = (ledger.projects.create(name=name, **make) for name in ("one", "two"))
    first = ledger.files.add(one.id, file(1), actor="ada")
    orphans = ledger.files.delete(one.id, first.id, hard=True, actor="ada")
    assert orphans == ("/data/1.tar",)
    ledger.files.add(two.id, file(1), actor="ada")
    removed: list[str] = []
    ledger.files.purge([*orphans, "/data/9.tar"], removed.append)
    assert removed == ["/data/9.tar"]


def test_a_request_that_was_cancelled_does_not_finish(ledger: Ledger, ada: UserRecord) -> None:
    asked = ledger.requests.create(NewRequest(RequestKind.SEARCH, ada.id))
    ledger.requests.end(asked.id, RequestStatus.CANCELLED, reason="no")
    assert ledger.requests.finish(asked.id, result={}).status is RequestStatus.CANCELLED
