"""Which Ray a process connects to, and whether it ends it."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
from ray._private import parameter

from cluster import local
from cluster.local import RayConnection, ray_connection


class FakeRay:
    """Ray, as far as connecting goes; notes what it is told, and the environment it starts in."""

    def __init__(self, *, connected: bool) -> None:
        self.connected = connected
        self.options: dict[str, Any] = {}
        self.variables: dict[str, str] = {}
        self.agent_port: int | None = None

    def is_initialized(self) -> bool:
        return self.connected

    def init(self, **options: Any) -> SimpleNamespace:
        self.connected, self.options, self.variables = True, options, dict(os.environ)
        self.agent_port = parameter.RayParams().dashboard_agent_listen_port
        url = "127.0.0.1:8265" if options.get("include_dashboard", True) else ""
        return SimpleNamespace(dashboard_url=url)

    def shutdown(self) -> None:
        self.connected = False


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay(connected=False)
    monkeypatch.setattr(local, "ray", fake)
    monkeypatch.setattr(local, "_raylet", lambda: os.getpid())  # which nothing was started by
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("ZTOM_TEST", raising=False)
    return fake


def test_a_ray_that_the_process_is_in_stays(ray: FakeRay) -> None:
    ray.connected = True
    with ray_connection() as connection:
        assert connection == RayConnection(is_ours=False, dashboard="")
    assert ray.connected
    assert ray.options == {}


def test_a_cluster_with_an_address_is_joined_and_left(
    ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with ray_connection(dashboard=True, variables={"ZTOM_TEST": "1"}) as connection:
        assert connection == RayConnection(is_ours=False, dashboard="http://127.0.0.1:8265")
        assert ray.connected
    assert not ray.connected
    assert "address" not in ray.options
    assert "ZTOM_TEST" not in ray.variables


def test_a_local_ray_is_started_and_ended(ray: FakeRay) -> None:
    with ray_connection(variables={"ZTOM_TEST": "1"}) as connection:
        assert connection == RayConnection(is_ours=True, dashboard="")
        assert "ZTOM_TEST" not in os.environ
    assert not ray.connected
    assert ray.options["address"] == "local"
    assert ray.options["include_dashboard"] is False
    assert ray.variables["ZTOM_TEST"] == "1"
    assert ray.variables["PYTHONPATH"]
    assert ray.agent_port == 0  # any that is free: another Ray has the usual one
    assert parameter.RayParams().dashboard_agent_listen_port != 0


def test_a_dashboard_listens_on_this_machine_only(ray: FakeRay) -> None:
    with ray_connection(dashboard=True) as connection:
        assert connection == RayConnection(is_ours=True, dashboard="http://127.0.0.1:8265")
    assert ray.options["dashboard_host"] == "127.0.0.1"


def test_a_ray_that_does_not_come_up_is_taken_down(
    ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**options: Any) -> None:
        ray.connected = True
        raise RuntimeError("the raylet died")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(RuntimeError, match="raylet"), ray_connection():
        pass
    assert not ray.connected
