"""The command line of a node, and what is refused before Ray is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster import nodes
from cluster.nodes import RayNode, start_node
from ztom.cli.actions.cluster import node_of
from ztom.errors import ConfigError

RAY = """#!/bin/sh
env | sort > "$OUT"
echo "$@" >> "$OUT"
exit $STATUS
"""


@pytest.fixture(autouse=True)
def _no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "free_port", lambda host, port: port)


@pytest.fixture
def ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in the place of `ray`; the file of what it was given."""
    program, out = tmp_path / "ray", tmp_path / "out"
    program.write_text(RAY)
    program.chmod(0o700)
    monkeypatch.setattr(nodes, "_ray", lambda: str(program))
    monkeypatch.setenv("OUT", str(out))
    monkeypatch.setenv("STATUS", "0")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    return out


def test_a_head_has_no_processors_and_a_port_of_its_own() -> None:
    command = RayNode("10.0.0.5", port=6380, dashboard_port=8266).command
    assert command[:2] == ["start", "--node-ip-address=10.0.0.5"]
    assert {"--head", "--port=6380", "--dashboard-port=8266", "--num-cpus=0"} <= set(command)
    assert "--dashboard-agent-listen-port=0" in command


def test_a_worker_says_what_it_has() -> None:
    node = node_of(
        "10.0.0.6",
        head="10.0.0.5:6379",
        resources=["big-disk=1.5"],
        labels=["pool=l4"],
        object_store_mib=2,
        gpus=2,
    )
    assert set(node.command) >= {
        "--address=10.0.0.5:6379",
        "--num-gpus=2",
        '--resources={"big-disk": 1.5}',
        "--labels=pool=l4",
        "--object-store-memory=2097152",
    }
    assert not any(part.startswith(("--head", "--num-cpus")) for part in node.command)


def test_a_node_gets_its_settings_and_is_no_local_ray(
    ray: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    monkeypatch.setenv("RAY_ADDRESS", "10.9.9.9:6379")
    start_node(RayNode("10.0.0.5"), {"RAY_SERVE_HAPROXY_BINARY_PATH": "/opt/haproxy"})
    lines = ray.read_text().splitlines()
    assert "RAY_SERVE_ENABLE_HA_PROXY=1" in lines
    assert "RAY_health_check_period_ms=1000" in lines
    assert "RAY_SERVE_HAPROXY_BINARY_PATH=/opt/haproxy" in lines
    assert not any("WINDOWS" in line or line.startswith("RAY_ADDRESS") for line in lines)


def test_a_ray_that_does_not_start_says_why(ray: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATUS", "1")
    program = ray.with_name("ray")
    program.write_text("#!/bin/sh\necho trace\necho 'OSError: the port is taken' >&2\nexit 1\n")
    with pytest.raises(nodes.EngineError, match="OSError: the port is taken"):
        start_node(RayNode("10.0.0.5"), {})


def test_who_joins_needs_the_token_of_the_head(ray: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    with pytest.raises(ConfigError, match=r"no token for the cluster.*Copy ~/.ray/auth_token"):
        start_node(RayNode("10.0.0.6", head="10.0.0.5:6379"), {})
    assert not ray.exists()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"resources": ["disk=big"]}, "--resource is no number"),
        ({"labels": ["pool"]}, "--label is malformed"),
    ],
)
def test_malformed_options_are_refused(options: dict[str, Any], error: str) -> None:
    values = {"resources": [], "labels": [], "object_store_mib": None, **options}
    with pytest.raises(ConfigError, match=error):
        node_of("10.0.0.5", **values)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_an_address_that_nobody_else_reaches_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="other machines do not reach this address"):
        node_of(host, resources=[], labels=[], object_store_mib=None)
