"""Who gets an account, who deploys, and under which names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
import requests
from server_helpers import PASSWORD, Server, serving

from serve_apps.control_plane.config import ServerConfig
from serve_apps.endpoints.aliases import AliasRules
from ztom.errors import ConfigError


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(ServerConfig(data=tmp_path / "data", poll_s=0.05)) as server:
        yield server


@pytest.fixture
def admin(server: Server) -> requests.Session:
    return server.as_user("chief", admin=True)


@pytest.mark.abuse(99)
def test_registration_takes_an_invitation(server: Server, admin) -> None:
    """The original's unchanged body with an invited address is accepted; no other is."""
    url = f"{server.url}/api/auth/register"
    account = {
        "username": "newcomer",
        "emailAddress": "Newcomer@Example.org",
        "password": PASSWORD,
        "firstName": "New",
        "lastName": "Comer",
    }
    refused = requests.post(url, json=account, timeout=30)
    assert refused.status_code == 403
    assert "invite your e-mail address (`ztom user invite ADDRESS`" in refused.json()["detail"]
    invitations = f"{server.url}/v1/invitations"
    body = {"emailAddress": "newcomer@example.org"}
    assert server.as_user("owner").post(invitations, json=body, timeout=30).status_code == 403
    invited = admin.post(invitations, json=body, timeout=30)
    assert (invited.status_code, invited.json()["roles"]) == (201, ["USER"])
    assert len(admin.get(invitations, timeout=30).json()) == 1
    made = requests.post(url, json=account, timeout=30)
    assert (made.status_code, made.json()["roles"]) == (201, ["USER"])
    again = {**account, "username": "second", "emailAddress": "other@example.org"}
    assert requests.post(url, json=again, timeout=30).status_code == 403, "once, and by address"
    assert admin.get(invitations, timeout=30).json() == []
    withdrawn = admin.post(invitations, json={"emailAddress": "x@y.org"}, timeout=30)
    gone = f"{invitations}/{withdrawn.json()['id']}"
    assert admin.delete(gone, timeout=30).status_code == 204
    assert admin.delete(gone, timeout=30).status_code == 404
    lapsed = server.services.ledger.invitations
    lapsed.invite("late@example.org", may_deploy=True, actor="t")
    assert lapsed.holds("Late@example.org")
    with patch("ztom.ledger.invitations.DAYS", 0):
        assert not lapsed.holds("late@example.org")


@pytest.mark.abuse(99)
def test_a_fresh_account_deploys_nothing_and_takes_no_alias_of_others(
    server: Server, admin
) -> None:
    fresh = server.as_user("fresh", deployer=False)
    project = server.project(fresh, "Fresh ideas")
    url = f"{server.url}/v1/deployments"
    body = {
        "alias": "mine",
        "path": "/nowhere",
        "projectId": project,
        "options": {"max_replicas": 1000},
    }
    refused = fresh.post(url, json=body, timeout=30)
    assert refused.status_code == 403
    assert "role DEPLOYER" in refused.json()["detail"]
    stable = {"path": "/nowhere"}
    file = {"endpoints": {"mine": {"stable": stable, "project": project}}}
    assert fresh.post(f"{server.url}/v1/apply", json=file, timeout=30).status_code == 403
    user = fresh.get(f"{server.url}/api/auth/user", timeout=30).json()["id"]
    change = {"roles": ["DEPLOYER", "USER"]}
    granted = admin.patch(f"{server.url}/api/auth/admin/user/{user}", json=change, timeout=30)
    assert granted.json()["roles"] == ["DEPLOYER", "USER"]
    assert "allowed roots" in fresh.post(url, json=body, timeout=30).json()["detail"]
    for alias in ("gpt-4", "GPT-4o", "o3-mini", "claude-x"):
        reserved = fresh.post(url, json={**body, "alias": alias}, timeout=30)
        assert reserved.status_code == 422
        assert "reserved by the operator" in reserved.json()["detail"], alias
        operator = admin.post(url, json={**body, "alias": alias}, timeout=30)
        assert "allowed roots" in operator.json()["detail"]
    server.services.ledger.endpoints.claim("gpt-4", project)
    assert (
        "allowed" in fresh.post(url, json={**body, "alias": "gpt-4"}, timeout=30).json()["detail"]
    )


def test_registration_can_be_closed(tmp_path: Path) -> None:
    config = ServerConfig(data=tmp_path, registration="closed")
    account = {"username": "m", "emailAddress": "m@x", "password": PASSWORD}
    with serving(config) as closed:
        answer = requests.post(f"{closed.url}/api/auth/register", json=account, timeout=30)
    assert answer.status_code == 403
    opened = ServerConfig(data=tmp_path / "open", registration="open")
    with serving(opened) as server:
        answer = requests.post(f"{server.url}/api/auth/register", json=account, timeout=30)
    assert answer.status_code == 201


def test_a_project_may_be_held_to_aliases_of_its_name() -> None:
    rules = AliasRules(prefixed=True)
    for alias in ("fresh-ideas", "fresh-ideas-2", "Fresh-Ideas-chat"):
        rules.require_claimable(alias, "Fresh ideas!")
    for alias in ("support", "fresh", "fresh-ideas2"):
        with pytest.raises(ConfigError, match="begins with fresh-ideas-"):
            rules.require_claimable(alias, "Fresh ideas!")
