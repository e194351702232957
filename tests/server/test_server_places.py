"""Places: who holds connections open costs nobody else anything. Cases 82 and 93."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import requests
from server_helpers import Server, serving

from serve_apps.control_plane.access import Permission
from serve_apps.control_plane.config import ServerConfig
from serve_apps.control_plane.places import ServerSide
from serve_apps.server.app import create_app

STRANGERS = 320


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    config = ServerConfig(
        data=tmp_path_factory.mktemp("places"),
        poll_s=0.05,
        requests_per_caller=4,
        model_requests_per_caller=4,
        anonymous_body_s=0.3,
    )
    with serving(config) as server:
        yield server


def connection(server: Server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def slow_body(server: Server, path: str, *headers: str, method: str = "POST") -> socket.socket:
    """A connection that announces a body and sends the first byte of it."""
    opened = connection(server)
    head = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Length: 1000", *headers]
    head.append("Content-Type: application/json")
    opened.sendall(("\r\n".join(head) + "\r\n\r\n{").encode())
    return opened


def status_of(opened: socket.socket) -> int:
    """The status that the server sends before anything more was sent to it."""
    match = re.match(rb"HTTP/1\.1 (\d{3})", opened.recv(4096))
    assert match is not None
    return int(match[1])


def closed(opened: socket.socket) -> bool:
    """Whether the server hangs up."""
    with contextlib.suppress(ConnectionError):
        while opened.recv(65536):
            pass
    return True


def until(condition: Callable[[], Any], within_s: float = 10) -> Any:
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


def guarded_routes(server: Server) -> list[tuple[str, str]]:
    """Every route for which one has to be somebody, with values in its path."""
    routes = []
    for path, operations in create_app(server.services).openapi()["paths"].items():
        for method, operation in operations.items():
            if operation["x-permission"] != Permission.PUBLIC:
                routes.append((method.upper(), re.sub(r"\{[^}]*\}", "0" * 32, path)))
    return routes


@pytest.mark.abuse(93)
@pytest.mark.parametrize("secret", [None, "Bearer nonsense", "Bearer ztom_nonsense"])
def test_who_calls_is_asked_before_a_byte_of_the_body(server: Server, secret: str | None) -> None:
    headers = () if secret is None else (f"Authorization: {secret}",)
    for method, path in guarded_routes(server):
        with slow_body(server, path, *headers, method=method) as opened:
            opened.settimeout(5)
            assert status_of(opened) == 401, f"{method} {path}"


@pytest.mark.abuse(93)
def test_strangers_with_slow_bodies_cost_nobody_anything(server: Server) -> None:
    session = server.as_user("ada")
    paths = ("/api/auth/login", "/api/auth/register", "/project", "/v1/chat/completions")
    with ExitStack() as stack:
        began = time.monotonic()
        strangers = [
            stack.enter_context(slow_body(server, paths[number % len(paths)]))
            for number in range(STRANGERS)
        ]
        for _ in range(8):
            for path in ("/project", "/v1/models", "/api/auth/user"):
                answer = session.get(server.url + path, timeout=10)
                assert answer.status_code == 200, answer.text
        statuses = {status_of(stranger) for stranger in strangers}
        assert statuses <= {401, 408, 429}
        assert all(closed(stranger) for stranger in strangers)
        assert time.monotonic() - began < 30
    until(lambda: server.as_user("ada"))


def test_a_body_of_a_stranger_is_small(server: Server) -> None:
    long = {"username": "ada", "password": "x" * 20_000}
    answer = requests.post(f"{server.url}/api/auth/login", json=long, timeout=10)
    assert (answer.status_code, answer.json()["detail"]) == (
        413,
        "The body is longer than 16384 bytes.",
    )


@pytest.mark.abuse(82)
@pytest.mark.parametrize(
    ("side", "slow", "quick"),
    [
        (ServerSide.CONTROL, "/project", "/project"),
        (ServerSide.MODELS, "/v1/chat/completions", "/v1/models"),
    ],
)
def test_slow_bodies_of_one_account_cost_only_its_own_places(
    server: Server, side: ServerSide, slow: str, quick: str
) -> None:
    ada, grace = server.as_user("ada"), server.as_user("grace")
    user = ada.get(f"{server.url}/api/auth/user", timeout=10).json()["id"]
    token = f"Authorization: {ada.headers['Authorization']}"
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(slow_body(server, slow, token))

        until(lambda: server.services.places.held(side, user) == 4)
        answer = ada.get(server.url + quick, timeout=10)
        assert answer.status_code == 429
        assert f"4 of 4 {side} that your account has at once" in answer.text
        assert int(answer.headers["Retry-After"]) > 0
        assert grace.get(server.url + quick, timeout=10).status_code == 200
        other = "/v1/models" if quick == "/project" else "/project"
        assert ada.get(server.url + other, timeout=10).status_code == 200
    until(lambda: ada.get(server.url + quick, timeout=10).status_code == 200)
