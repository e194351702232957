"""What the server does by itself: sweeping up after a kill, signing the end of the audit chain."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server_helpers import Server, serving
from variant_folders import wait_for

from serve_apps.control_plane.config import ServerConfig
from serve_apps.server.background import HeadExport, tidy
from ztom.errors import AuditError
from ztom.ledger.audit import SignedHead, read_head
from ztom.ledger.audit_store import AuditChain
from ztom.ledger.requests import NewRequest, RequestKind, RequestStatus


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    config = ServerConfig(
        data=tmp_path / "data",
        poll_s=3600,  # the tests say when
        audit_head=str(tmp_path / "elsewhere.json"),
    )
    with serving(config) as server:
        yield server


def state(server: Server, request: str) -> RequestStatus:
    return server.services.ledger.requests.get(request).status


def test_leftovers_of_a_killed_server(server: Server, tmp_path: Path) -> None:
    services = server.services
    server.as_user("ada")
    ada = services.ledger.accounts.for_login("ada")
    assert ada is not None
    dead, alive = (
        services.ledger.requests.create(NewRequest(RequestKind.METATUNE, ada[0].id))
        for _ in range(2)
    )
    services.ledger.requests.start(dead.id, job="replica-of-yesterday")
    services.ledger.requests.start(alive.id, job=services.store.replica)
    (services.store.staging / "half.part").write_bytes(b"x")
    being_written = services.store.begin()
    being_written.write(b"y")
    tidy(services)
    assert state(server, dead.id) is RequestStatus.FAILED
    assert state(server, alive.id) is RequestStatus.RUNNING
    assert [path.suffix for path in services.store.staging.iterdir()] == [".part"]
    being_written.discard()
    assert list(services.store.staging.iterdir()) == []


def test_the_signed_end_of_the_chain_goes_elsewhere(server: Server, tmp_path: Path) -> None:
    server.as_user("somebody")
    HeadExport().write(server.services)
    head = read_head(tmp_path / "elsewhere.json")
    head.check()
    assert server.services.ledger.audit.check(head) == head.sequence > 0


def test_the_end_of_the_chain_is_signed_when_it_has_moved(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed: list[int] = []
    sign = AuditChain.sign

    def counted(self: AuditChain, *arguments: Any, **options: Any) -> SignedHead:
        head = sign(self, *arguments, **options)
        signed.append(head.sequence)
        return head

    # the server signs once itself when it starts
    wait_for((tmp_path / "elsewhere.json").exists, "the first head")
    monkeypatch.setattr(AuditChain, "sign", counted)
    server.as_user("somebody")
    export = HeadExport()
    for each in (export, export, HeadExport()):  # the last one as after a restart
        each.write(server.services)
    server.as_user("somebody-else")
    export.write(server.services)
    assert len(signed) == len(set(signed)) == 2
    assert read_head(tmp_path / "elsewhere.json").sequence == signed[-1]


def test_a_head_of_another_chain_is_never_written_over(server: Server, tmp_path: Path) -> None:
    server.as_user("somebody")
    HeadExport().write(server.services)
    path = tmp_path / "elsewhere.json"
    evidence = path.read_bytes()
    with sqlite3.connect(server.services.config.data / "ledger.db") as raw:
        for name in ("audit_no_update", "audit_no_delete", "audit_at_the_end"):
            raw.execute(f"DROP TRIGGER {name}")
        raw.execute("DELETE FROM audit")
    raw.close()
    for name in ("one", "two", "three"):
        server.as_user(name)
    with pytest.raises(AuditError, match="signed"):
        HeadExport().write(server.services)
    assert path.read_bytes() == evidence
