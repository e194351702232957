"""HAProxy, as `ztom up` configures it, in front of a server. Cases 82 and 93."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import requests
from server_helpers import Server, serving

from cluster.ports import free_port
from serve_apps.control_plane.config import ServerConfig
from serve_apps.server import haproxy_rules
from serve_apps.server.haproxy import KNOWN_RAY, write_haproxy

GOLDEN = Path(__file__).parents[1] / "golden"
STRANGERS = 320
HEALTH = "meth GET uri /health ver HTTP/1.1 hdr Host 127.0.0.1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(ServerConfig(data=tmp_path_factory.mktemp("door"))) as server:
        yield server


@pytest.fixture(scope="module")
def door(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of HAProxy, with deadlines that a test can wait for."""
    home = tmp_path_factory.mktemp("haproxy")
    release = "_".join(map(str, KNOWN_RAY))
    recorded = GOLDEN / f"haproxy_ray_{release}_application.cfg"
    port, stats, metrics = (free_port("127.0.0.1", 0) for _ in range(3))
    text = recorded.read_text(encoding="utf-8").replace("/run/ztom", str(home))
    for before, after in (
        ("127.0.0.1:8000", f"127.0.0.1:{port}"),
        ("127.0.0.1:18405", server.url.removeprefix("http://")),
        ("127.0.0.1:18406", server.url.removeprefix("http://")),
        (":18403", f":{stats}"),
        (":18404", f":{metrics}"),
        ("httpchk GET /-/healthz", f"httpchk\n    http-check send {HEALTH}"),
    ):
        text = text.replace(before, after)
    path = home / "haproxy.cfg"
    text = haproxy_rules.rewrite(text, (stats, metrics))
    for deadline in ("wait-for-body time", "timeout client"):
        text = re.sub(rf"{deadline} \d+s", f"{deadline} 1s", text)
    path.write_text(text, encoding="utf-8")
    program = write_haproxy(home, private_ports=(stats, metrics))
    with subprocess.Popen([program, "-db", "-f", path]) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_until_up(url)
            yield url
        finally:
            process.terminate()


def _wait_until_up(url: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            if requests.get(f"{url}/health", timeout=5).status_code == 200:
                return
        except requests.ConnectionError:
            assert time.monotonic() < deadline
        time.sleep(0.05)


def slow_body(url: str, path: str, *headers: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    opened = socket.create_connection((host, int(port)), timeout=20)
    head = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Length: 1000", *headers]
    opened.sendall(("\r\n".join(head) + "\r\n\r\n{").encode())
    return opened


def answer_of(opened: socket.socket) -> tuple[int, bytes]:
    """Status and all that comes until the connection is closed."""
    content = b""
    while piece := opened.recv(65536):
        content += piece
    match = re.match(rb"HTTP/1\.1 (\d{3})", content)
    assert match is not None, content
    return int(match[1]), content.partition(b"\r\n\r\n")[2]


@pytest.mark.abuse(82, 93)
def test_a_body_of_a_stranger_reaches_no_gateway_before_it_is_whole(
    server: Server, door: str
) -> None:
    with slow_body(door, "/api/auth/login") as opened:
        assert answer_of(opened)[0] == 408
    session = server.as_user("ada")
    whole = requests.post(
        f"{door}/api/auth/login", json={"username": "x", "password": "y"}, timeout=9
    )
    assert whole.status_code == 401
    assert session.get(f"{door}/project", timeout=9).status_code == 200


def test_a_body_of_an_impostor_is_refused_and_hung_up_on(door: str) -> None:
    for secret in ("Authorization: Bearer nonsense", "X-API-Key: nonsense"):
        with slow_body(door, "/project", secret) as opened:
            assert answer_of(opened)[0] == 401


def test_an_answer_may_take_longer_than_a_client_may_be_silent(
    server: Server, door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline is for who has something to send."""
    session = server.as_user("ada")
    visible = server.services.ledger.projects.visible_to

    def slow(*arguments: object) -> object:
        time.sleep(2.5)
        return visible(*arguments)

    monkeypatch.setattr(server.services.ledger.projects, "visible_to", slow)
    assert session.get(f"{door}/project", timeout=20).json() == []


@pytest.mark.abuse(93)
def test_strangers_at_the_door(server: Server, door: str) -> None:
    session = server.as_user("ada")
    with ExitStack() as stack:
        strangers = [
            stack.enter_context(closing(slow_body(door, "/v1/chat/completions")))
            for _ in range(STRANGERS)
        ]
        for path in ("/project", "/v1/models", "/api/auth/user") * 5:
            assert session.get(door + path, timeout=9).status_code == 200
        assert requests.get(f"{door}/health", timeout=9).status_code == 200
        answers = [answer_of(stranger) for stranger in strangers]
    statuses = [status for status, _ in answers]
    assert set(statuses) == {408, 429}
    assert statuses.count(408) <= haproxy_rules.STRANGERS_REQUESTS
    many = next(json.loads(body) for status, body in answers if status == 429)
    assert many["detail"] == many["error"]["message"]


def test_the_gateway_learns_where_a_request_is_from(server: Server, door: str) -> None:
    """What a caller claims stands before what HAProxy adds."""
    body = {"username": "nobody", "password": "wrong"}
    statuses = [
        requests.post(
            f"{door}/api/auth/login",
            json=body,
            headers={"X-Forwarded-For": f"203.0.113.{n}"},
            timeout=9,
        ).status_code
        for n in range(6)
    ]
    assert statuses == [401] * 5 + [429]
