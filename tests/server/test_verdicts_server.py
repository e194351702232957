"""Verdicts over HTTP, and what they decide where somebody deploys."""

from __future__ import annotations

import hashlib
import json

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from server_helpers import Server, serving
from variant_folders import (
    FAST,
    ZEROS,
    chief_of,
    deploy,
    ready,
    trusted_key,
    variant,
    variants_config,
    verdict_of,
)

from ztom.client import Client
from ztom.errors import ConfigError, ServerError
from ztom.io.signatures import public_key_of


def key_of(session: requests.Session) -> str:
    return str(session.headers["Authorization"]).removeprefix("Bearer ")


def notes(server: Server) -> list[str]:
    return [entry.event.note for entry in server.services.ledger.audit.entries()]


def test_a_verdict_is_recorded_listed_and_given_back(server, admin, tmp_path) -> None:
    document = verdict_of("a" * 64, champion="b" * 64)
    path = tmp_path / "verdict.json"
    path.write_text(json.dumps(document, sort_keys=True, indent=1) + "\n")
    record = admin.verdicts.record(path)
    assert record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (record.outcome, record.champion) == ("pass", "b" * 64)
    assert admin.verdicts.record(document) == record, "again"
    other = admin.verdicts.record(verdict_of("c" * 64, "fail"))
    assert admin.verdicts.all() == [other, record]
    assert admin.verdicts.all("aaaaaaaa") == [record]
    assert admin.verdicts.get(record.sha256).verdict == document
    with pytest.raises(ServerError, match="404"):
        admin.verdicts.get(ZEROS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outcome": "green"}, "outcome"),
        ({"signature": "me"}, "signature"),
        ({"seed": None}, "seed"),
        ({"format": 2}, "format"),
        ({"candidate": {"name": "c", "digest": "A" * 64}}, "digest"),
        ({"outcome": "pass", "suites": []}, "contradicts itself"),
        ({"outcome": "fail"}, "contradicts itself"),
    ],
)
def test_what_is_no_verdict_is_refused(admin, change, message) -> None:
    with pytest.raises(ServerError, match=f"422.*{message}"):
        admin.verdicts.record(verdict_of(ZEROS) | change)
    assert admin.verdicts.all() == []


def test_a_file_that_is_no_verdict_is_not_sent(admin, tmp_path) -> None:
    path = tmp_path / "verdict.json"
    for content in (None, "[]", "{", '{"alpha": NaN}', "[" * 10**5):
        if content is not None:
            path.write_text(content)
        with pytest.raises(ConfigError, match=r"verdict\.json"):
            admin.verdicts.record(path)


def test_a_body_that_is_too_long_is_refused(tmp_path) -> None:
    with (
        serving(variants_config(tmp_path, max_body_bytes=2000)) as server,
        chief_of(server) as admin,
        pytest.raises(ServerError, match="413"),
    ):
        admin.verdicts.record(verdict_of(ZEROS) | {"reasons": ["x" * 2000]})


def test_a_verdict_is_its_projects(server, admin) -> None:
    owner, stranger = server.as_user("owner"), server.as_user("stranger")
    project = server.project(owner)
    folder, digest = variant(server, "one")
    with (
        Client(server.url, key=key_of(owner)) as mine,
        Client(server.url, key=key_of(stranger)) as other,
    ):
        record = mine.verdicts.record(verdict_of(digest, "fail"), project_id=project)
        assert [each.project_id for each in mine.verdicts.all()] == [project]
        assert other.verdicts.all() == []
        with pytest.raises(ServerError, match="404"):
            other.verdicts.get(record.sha256)
        with pytest.raises(ServerError, match="404"):
            other.verdicts.record(verdict_of(digest), project_id=project)
        with pytest.raises(ServerError, match="403"):
            mine.verdicts.record(verdict_of(digest))
        with pytest.raises(ServerError, match="the gate says fail"):
            mine.endpoints.deploy("mine", path=folder, project_id=project)
        theirs = server.project(stranger, "q")
        assert other.endpoints.deploy("other", path=folder, project_id=theirs).state
        with pytest.raises(ServerError, match="404.*no such endpoint"):
            mine.endpoints.deploy("other", path=folder, project_id=project, insist=True)


def test_what_the_gate_failed_takes_insistence(server, admin) -> None:
    folder, digest = variant(server, "one")
    record = admin.verdicts.record(verdict_of(digest, "fail"))
    with pytest.raises(ServerError, match="the gate says fail"):
        admin.endpoints.deploy("support", path=folder)
    assert admin.endpoints.deployments() == []
    assert admin.endpoints.deploy("support", path=folder, insist=True).insisted
    actor = f"user:{server.services.ledger.accounts.by_email('chief@example.org').id}"
    gate = f"fail ({record.sha256[:12]}), unsigned claim"
    note = f"for support; verdict: improved; gate: {gate}; variant unsigned; insisted on by {actor}"
    assert note in notes(server)


def test_what_the_gate_passed_needs_no_proof(server, admin) -> None:
    folder, digest = variant(server, "hand", verdict=None)
    with pytest.raises(ServerError, match="not proved to be better"):
        admin.endpoints.deploy("support", path=folder)
    record = admin.verdicts.record(verdict_of(digest, key=trusted_key(server.services.ledger)))
    assert record.signed_by == "ci"
    assert not admin.endpoints.deploy("support", path=folder).insisted
    gate = f"pass ({record.sha256[:12]}) signed by ci"
    assert f"for support; verdict: none; gate: {gate}; variant unsigned" in notes(server)


def test_a_verdict_comes_with_its_deployment(server, admin) -> None:
    folder, digest = variant(server, "hand", verdict=None)
    with pytest.raises(ServerError, match="422.*another variant"):
        admin.endpoints.deploy("support", path=folder, verdict=verdict_of(ZEROS), insist=True)
    assert admin.verdicts.all() == []
    with pytest.raises(ServerError, match="the gate says inconclusive"):
        admin.endpoints.deploy("support", path=folder, verdict=verdict_of(digest, "inconclusive"))
    assert [each.outcome for each in admin.verdicts.all(digest)] == ["inconclusive"]
    key = trusted_key(server.services.ledger)
    admin.endpoints.deploy("support", path=folder, verdict=verdict_of(digest, key=key))
    ready(admin, digest, server)


def test_what_the_gate_of_its_own_search_refused_needs_insistence(server, admin) -> None:
    for outcome in ("fail", "inconclusive"):
        folder, _ = variant(server, outcome, gate=outcome)
        with pytest.raises(ServerError, match=f"the gate of its search says {outcome}"):
            admin.endpoints.deploy("support", path=folder)
    assert admin.endpoints.deploy("support", path=folder, insist=True).insisted
    folder, digest = variant(server, "passed", gate="pass")
    assert not admin.endpoints.deploy("other", path=folder).insisted
    ready(admin, digest, server)


def test_no_pass_no_traffic(tmp_path) -> None:
    """Unless the server is told otherwise, whatever the search has proved."""
    with serving(variants_config(tmp_path)) as server, chief_of(server) as admin:
        folder, digest = variant(server, "one", gate="pass")
        with pytest.raises(ServerError, match="no verdict of the gate is on record"):
            admin.endpoints.deploy("support", path=folder)
        with pytest.raises(ServerError, match="422.*is a claim: pass .*, unsigned claim"):
            admin.endpoints.deploy("support", path=folder, verdict=verdict_of(digest))
        key = trusted_key(server.services.ledger)
        admin.endpoints.deploy("support", path=folder, verdict=verdict_of(digest, key=key))
        ready(admin, digest, server)


@pytest.mark.abuse(95)
def test_a_forged_verdict_does_not_ship(tmp_path) -> None:
    """Whoever forges a verdict forges what is under it as well: what counts is who signed."""
    with serving(variants_config(tmp_path)) as server, chief_of(server) as admin:
        folder, digest = variant(server, "one", verdict=None)
        empty = verdict_of(digest)
        empty["suites"][0] |= {"findings": [], "n": 0, "clusters": 0}
        with pytest.raises(ServerError, match="422.*contradicts itself"):
            admin.endpoints.deploy("support", path=folder, verdict=empty, insist=True)
        consistent = verdict_of(digest)
        with pytest.raises(ServerError, match="422.*is a claim"):
            admin.endpoints.deploy("support", path=folder, verdict=consistent)
        assert admin.endpoints.deployments() == []
        assert admin.verdicts.all()[0].signed_by is None
        assert admin.endpoints.deploy("support", path=folder, insist=True).insisted
        assert "unsigned claim; variant unsigned; insisted on by user:" in notes(server)[-1]


def test_only_administrators_say_whose_signature_counts(server, admin) -> None:
    key = Ed25519PrivateKey.generate()
    public = public_key_of(key)
    with Client(server.url, key=key_of(server.as_user("ada"))) as ada:
        with pytest.raises(ServerError, match="403"):
            ada.verdicts.register_key("mine", public)
        with pytest.raises(ServerError, match="422.*32 bytes"):
            admin.verdicts.register_key("ci", public[:-4])
        record = admin.verdicts.record(verdict_of(ZEROS, key=key))
        assert (record.signed_by, record.public_key) == (None, public)
        registered = admin.verdicts.register_key("ci", public)
        assert [known.name for known in ada.verdicts.signing_keys()] == ["ci"]
        assert admin.verdicts.all()[0].signed_by == "ci", "whenever the key was registered"
        with pytest.raises(ServerError, match="409.*is registered"):
            admin.verdicts.register_key("other", public)
        with pytest.raises(ServerError, match="403"):
            ada.verdicts.revoke_key("ci")
        assert admin.verdicts.revoke_key("ci").revoked_at
        assert admin.verdicts.all()[0].signed_by is None
        with pytest.raises(ServerError, match="409.*was revoked"):
            admin.verdicts.register_key("again", public)
    actions = [entry.event.action for entry in server.services.ledger.audit.entries()]
    assert actions[-2:] == ["signing_key.register", "signing_key.revoke"]
    assert registered.actor.startswith("user:")


def test_a_release_by_a_gated_plan(server, admin) -> None:
    _, one = deploy(server, admin, "one")
    folder, two = variant(server, "two")
    plan = {**FAST, "gate": "champion"}
    for verdict in (None, verdict_of(two, champion=ZEROS)):
        for insist in (False, True):
            with pytest.raises(ServerError, match=f"422.*compared with {one[:12]}"):
                admin.endpoints.deploy(
                    "support", path=folder, plan=plan, verdict=verdict, insist=insist
                )
    assert len(admin.endpoints.deployments()) == 1
    passed = verdict_of(two, champion=one, key=trusted_key(server.services.ledger))
    admin.endpoints.deploy("support", path=folder, plan=plan, verdict=passed)
    ready(admin, two, server)
    (release,) = admin.endpoints.releases()
    assert (release.candidate, release.plan.gate) == (two, "champion")


def test_a_declarative_file_holds_verdicts(server, admin) -> None:
    folder, digest = variant(server, "hand", verdict=None)
    verdict = verdict_of(digest, key=trusted_key(server.services.ledger))
    stable = {"path": str(folder), "verdict": verdict}
    assert admin.endpoints.apply({"support": {"stable": stable}}, dry_run=True)
    assert admin.verdicts.all() == []
    admin.endpoints.apply({"support": {"stable": stable}})
    assert [each.outcome for each in admin.verdicts.all(digest)] == ["pass"]
    ready(admin, digest, server)
    assert admin.endpoints.apply({"support": {"stable": stable}}) == []
