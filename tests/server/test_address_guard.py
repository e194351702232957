"""Calls that are led elsewhere: a redirect, or a name that means another machine a moment later."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from hub_client import use_hub
from hub_server import Hub

from ztom.checkpoints.registries.mlflow import MlflowRegistry
from ztom.errors import ReferenceRefusedError, ZtomError
from ztom.io.address_guard import AddressGuard
from ztom.io.hub import fetch_hub_file

METADATA = "http://169.254.169.254/latest/meta-data/"
_connected: list[str] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        _connected.append(str(arguments[1][0]))


sys.addaudithook(_watch)


@contextmanager
def leading_to(target: str) -> Iterator[str]:
    """A server that redirects every call; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", target)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    _connected.clear()
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.abuse(36)
def test_the_hub_leads_nobody_to_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with leading_to(METADATA) as url:
        use_hub(monkeypatch, Hub(url=url), tmp_path / "cache")
        with pytest.raises(ReferenceRefusedError, match="169.254.169.254"):
            fetch_hub_file("hf://datasets/acme/data/s.jsonl")
    assert "127.0.0.1" in _connected
    assert "169.254.169.254" not in _connected


@pytest.mark.abuse(36)
def test_a_registry_leads_nobody_to_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with leading_to(METADATA) as url:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        with pytest.raises(ZtomError):
            MlflowRegistry().resolve("models:/m/1", cache=tmp_path)
    assert "127.0.0.1" in _connected
    assert "169.254.169.254" not in _connected


def guarded(service: str, mounts: Mapping[str, httpx.BaseTransport] | None = None) -> httpx.Client:
    client = httpx.Client(follow_redirects=True, trust_env=False, timeout=5, mounts=mounts)
    guard = AddressGuard(service)
    guard.add_to(client)
    guard.add_to(client)
    assert len(client.event_hooks["request"]) == 1, "once"
    return client


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names mean, call by call; the last meaning stays."""
    meanings: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def resolve(host: Any, *arguments: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        known = meanings.get(name)
        if known is None:
            return real(host, *arguments, **options)
        return real(known.pop(0) if len(known) > 1 else known[0], *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return meanings


@pytest.mark.parametrize("inside", ["10.0.0.5", "127.0.0.1", "192.168.1.1", "::1", "0.0.0.0"])
def test_a_public_service_leads_nobody_inside(names, inside: str) -> None:
    names["hub.example"], names["inside.example"] = ["93.184.216.34"], [inside]
    with (
        guarded("hub.example") as client,
        pytest.raises(ReferenceRefusedError, match="network behind"),
    ):
        client.get("http://inside.example:9/")
    assert _connected == []


@contextmanager
def listening(address: str) -> Iterator[tuple[int, Callable[[], bytes]]]:
    """A port at an address, and the first byte that whoever connected has sent before it left."""

    def first_byte() -> bytes:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(10)
            return connection.recv(1)

    with socket.create_server((address, 0)) as listener:
        listener.settimeout(10)
        yield listener.getsockname()[1], first_byte


@pytest.mark.abuse(36)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_name_that_changes_its_meaning_gets_no_byte(names, scheme: str) -> None:
    """Public when it is looked at, this machine when it is connected to."""
    names["service.example"] = ["93.184.216.34"]
    names["changing.example"] = ["93.184.216.34", "127.0.0.2"]
    with listening("127.0.0.2") as (port, first_byte):
        with (
            guarded("service.example") as client,
            pytest.raises(ReferenceRefusedError, match="127.0.0.2"),
        ):
            client.get(f"{scheme}://changing.example:{port}/")
        assert first_byte() == b"", "it was left before anything was sent"
    assert _connected == ["127.0.0.2"]


@pytest.mark.abuse(36)
def test_a_redirect_to_a_name_that_changes_its_meaning_gets_no_byte(names) -> None:
    """A proxy of the service's leads there; the service counts as public by what it meant first."""
    names["service.example"] = ["93.184.216.34"]
    names["changing.example"] = ["93.184.216.34", "127.0.0.2"]
    steps: list[str] = []
    with listening("127.0.0.2") as (port, first_byte):
        moved = httpx.Response(302, headers={"location": f"http://changing.example:{port}/"})
        first = httpx.MockTransport(lambda request: moved)
        with guarded("service.example", {"http://service.example": first}) as client:
            request = client.build_request("GET", "http://service.example/")
            request.extensions["trace"] = lambda step, details: steps.append(step)
            with pytest.raises(ReferenceRefusedError, match="127.0.0.2"):
                client.send(request)
        assert first_byte() == b""
    assert steps == ["connection.connect_tcp.started"], "whoever traced before goes on doing so"


def test_the_service_itself_that_changes_its_meaning_gets_no_byte(names) -> None:
    names["service.example"] = ["93.184.216.34", "93.184.216.34", "127.0.0.2"]
    with listening("127.0.0.2") as (port, first_byte):
        with (
            guarded("service.example") as client,
            pytest.raises(ReferenceRefusedError, match="network behind"),
        ):
            client.get(f"http://service.example:{port}/")
        assert first_byte() == b""


@pytest.mark.abuse(36)
def test_the_hubs_own_client_sends_no_byte_to_where_its_name_leads_now(
    names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names["hub.example"] = ["93.184.216.34", "93.184.216.34", "127.0.0.2"]
    with listening("127.0.0.2") as (port, first_byte):
        use_hub(monkeypatch, Hub(url=f"http://hub.example:{port}"), tmp_path / "cache")
        with pytest.raises(ReferenceRefusedError, match="127.0.0.2"):
            fetch_hub_file("hf://datasets/acme/data/s.jsonl")
        assert first_byte() == b""


def test_a_service_of_ones_own_network_may_lead_there(names) -> None:
    with (
        leading_to("http://127.0.0.1:9/") as url,
        guarded("127.0.0.1") as client,
        pytest.raises(httpx.ConnectError),  # where nothing listens, so it was followed
    ):
        client.get(url)
    assert _connected.count("127.0.0.1") == 2
