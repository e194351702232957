"""Keys are the same for all processes of a server, or they do not start."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import postgres
import pytest
import requests
from server_helpers import InProcessRunner, Server, Stage, serving

from serve_apps.control_plane.config import ServerConfig
from serve_apps.control_plane.identity import NAME_FILE, ServerIdentity
from serve_apps.control_plane.keys import ServerKeys, rotate_token_key
from serve_apps.control_plane.services import Services
from serve_apps.control_plane.tokens import LOGIN, Tokens
from ztom.errors import ConfigError
from ztom.ledger.ledger import Ledger


def opened(config: ServerConfig) -> ServerKeys:
    with Ledger.open(config.ledger_address) as ledger:
        return ServerKeys.open(config, ledger.server_keys)


def holds(server: Server, session: requests.Session) -> int:
    return session.get(f"{server.url}/api/auth/user", timeout=30).status_code


def test_a_login_on_one_node_holds_on_the_others(postgresql: str, tmp_path: Path) -> None:
    """Two nodes without a common disk, one database: 8 of 8 calls were 401."""
    ledger = postgres.new_database(postgresql)
    first = ServerConfig(data=tmp_path / "node-1", ledger=ledger)
    second = ServerConfig(data=tmp_path / "node-2", ledger=ledger)
    with serving(first) as one, serving(second) as two:
        session = one.as_user("ada", admin=True)
        assert [holds(server, session) for server in (one, two) * 4] == [200] * 8
        assert one.services.keys.fingerprint == two.services.keys.fingerprint
        assert one.services.callers is not two.services.callers
        gateways = one.services.gateway, two.services.gateway
        assert len({gateway.callers.caller("key") for gateway in gateways}) == 1
    stored = one.services.keys.variants_file.read_bytes()
    assert two.services.keys.variants_file.read_bytes() == stored
    with Ledger.open(ledger) as shared:
        rotate_token_key(second, shared.server_keys, actor="local:test")
        assert shared.audit.length() > 0
    token = Tokens(one.services.keys.tokens).issue("u", audience=LOGIN, seconds=60)
    assert Tokens(opened(first).tokens).check(token, audience=LOGIN) is not None
    assert opened(first).tokens[0] != one.services.keys.tokens[0]


def test_keys_of_one_secret_are_the_same_everywhere(tmp_path: Path, monkeypatch) -> None:
    secret = base64.b64encode(os.urandom(48)).decode()
    file = tmp_path / "secret"
    file.write_text(secret)
    file.chmod(0o600)
    nodes = [ServerConfig(data=tmp_path / name, secret_file=file) for name in ("a", "b")]
    by_file = {opened(node).fingerprint for node in nodes}
    monkeypatch.setenv("ZTOM_SECRET", secret)
    by_variable = {opened(ServerConfig(data=tmp_path / name)).fingerprint for name in ("a", "b")}
    assert by_file == by_variable
    assert len(by_file) == 1
    assert not (tmp_path / "a" / "keys" / "jwt.keys").exists()
    before = opened(nodes[0])
    with (
        Ledger.open(nodes[0].ledger_address) as ledger,
        pytest.raises(ConfigError, match="a secret of yours.*new line on top"),
    ):
        rotate_token_key(nodes[0], ledger.server_keys, actor="local:test")
    file.write_text(f"{base64.b64encode(os.urandom(48)).decode()}\n{secret}\n")
    after = opened(nodes[0])
    assert after.tokens[1] == before.tokens[0] != after.tokens[0]
    assert after.callers == before.callers
    file.write_text("short")
    with pytest.raises(ConfigError, match="at least 48"):
        opened(nodes[0])
    file.write_text("")
    with pytest.raises(ConfigError, match="empty"):
        opened(nodes[0])
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="read by others"):
        opened(nodes[0])
    file.unlink()
    with pytest.raises(ConfigError, match="on every node"):
        opened(nodes[0])


def test_a_file_of_keys_stays_where_a_server_has_one(postgresql: str, tmp_path: Path) -> None:
    """Servers that were there before go on with their keys when they move to PostgreSQL."""
    before = opened(ServerConfig(data=tmp_path))
    after = opened(ServerConfig(data=tmp_path, ledger=postgres.new_database(postgresql)))
    assert after.fingerprint == before.fingerprint
    assert str(tmp_path) in after.source


def test_a_node_that_does_not_share_the_data_does_not_start(tmp_path: Path) -> None:
    here, there = (ServerConfig(data=tmp_path / name) for name in ("here", "there"))
    here.data.mkdir()
    identity = ServerIdentity.of(here)
    assert ServerIdentity.of(here) == identity
    Services.open(here, InProcessRunner(), Stage(), identity=identity).close()
    with pytest.raises(ConfigError, match="does not share the server's data.*not there"):
        Services.open(there, InProcessRunner(), Stage(), identity=identity)
    assert not there.data.exists(), "a ledger of its own was made"
    there.data.mkdir()
    (there.data / NAME_FILE).write_text(identity.data)  # the disk is shared, the secret is not
    with pytest.raises(ConfigError, match="other keys than the server.*secret_file"):
        Services.open(there, InProcessRunner(), Stage(), identity=identity)


def test_two_servers_do_not_work_on_one_database(postgresql: str, tmp_path: Path) -> None:
    ledger = postgres.new_database(postgresql)
    first, second = (ServerConfig(data=tmp_path / name, ledger=ledger) for name in ("a", "b"))
    for config in (first, second):
        config.data.mkdir()
    identity = ServerIdentity.of(first)
    with pytest.raises(ConfigError, match="another data folder") as caught:
        ServerIdentity.of(second)
    assert identity.data in str(caught.value)
    (second.data / NAME_FILE).write_text(identity.data + "\n")  # what the message says to do
    assert ServerIdentity.of(second) == identity
