"""Bombs: small things that become large. They are refused, and nobody else notices. Rows 5, 13, 96
and 97.
"""

from __future__ import annotations

import gzip
import io
import json
import statistics
import struct
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import requests
from server_helpers import Server, serving

from serve_apps.control_plane.config import ServerConfig

MIB = 2**20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    config = ServerConfig(data=tmp_path_factory.mktemp("bounds") / "data", poll_s=0.2)
    with serving(config) as server:
        yield server


@pytest.fixture(scope="module")
def ada(server: Server) -> requests.Session:
    return server.as_user("ada")


@pytest.fixture(scope="module")
def project(server: Server, ada: requests.Session) -> str:
    return server.project(ada)


def tar_of_files(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def config_bomb() -> bytes:
    """A config.json of nearly 64 MB in 64 KB."""
    content = b'{"a": [' + b"[]," * (20 * MIB) + b"[]]}"
    return gzip.compress(tar_of_files(config__json=content, model__safetensors=b"x"), 6)


def zeros_bomb() -> bytes:
    """A file of 3 GiB in 14 MB: gzip files one after the other are one."""
    info = tarfile.TarInfo("model.safetensors")
    info.size = 3 * 2**30
    block = gzip.compress(bytes(64 * MIB), 1)
    return gzip.compress(info.tobuf()) + block * 48


def header_bomb() -> bytes:
    """A safetensors file whose header is 30 MB of empty lists."""
    header = b'{"a": [' + b"[]," * (10 * MIB) + b"[]]}"
    weights = struct.pack("<Q", len(header)) + header
    return gzip.compress(tar_of_files(config__json=b"{}", model__safetensors=weights), 6)


@contextmanager
def others(server: Server) -> Iterator[list[float]]:
    """Somebody else, who asks for his projects again and again: how long each answer took."""
    session, times, stop = server.as_user("bob"), [], threading.Event()

    def ask() -> None:
        while not stop.is_set():
            began = time.perf_counter()
            assert session.get(f"{server.url}/project", timeout=30).status_code == 200
            times.append(time.perf_counter() - began)
            time.sleep(0.005)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield times
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    ("bomb", "reason"),
    [
        (config_bomb, "objects and lists, at most"),
        (zeros_bomb, "is too large"),
        (header_bomb, "too many tensors"),
    ],
)
def test_a_bomb_is_refused_and_nobody_else_notices(
    server: Server,
    ada: requests.Session,
    project: str,
    bomb: Callable[[], bytes],
    reason: str,
) -> None:
    content = bomb()
    assert len(content) < 16 * MIB
    with others(server) as times:
        time.sleep(0.3)
        quiet = len(times)
        began = time.perf_counter()
        answer = server.upload(ada, project, content)
        seconds = time.perf_counter() - began
    assert (answer.status_code, seconds < 10) == (422, True), (seconds, answer.text)
    assert reason in answer.json()["detail"]
    assert str(server.services.store.root) not in answer.text
    attacked = times[quiet:]
    assert max(attacked) < 1.0, "nobody is kept waiting"
    if len(attacked) > 20:
        assert statistics.median(attacked) < 10 * statistics.median(times[:quiet])
    store = server.services.store
    assert list(store.staging.iterdir()) == []
    assert list((store.cache / "archives").iterdir()) == []


def test_a_body_of_many_values_is_refused_and_nobody_else_notices(
    server: Server, ada: requests.Session
) -> None:
    bomb = b'{"name": [' + b"[]," * (2 * MIB) + b"[]]}"
    headers = {"Content-Type": "application/json"}
    for path in ("/project", "/v1/chat/completions"):
        with others(server) as times:
            answer = ada.post(f"{server.url}{path}", data=bomb, headers=headers, timeout=30)
        assert answer.status_code == (400 if "chat" in path else 422), answer.text
        assert "are taken" in answer.text
        assert max(times) < 0.5


def test_a_long_body_is_taken(server: Server, ada: requests.Session) -> None:
    body = {"name": "long", "description": "x", "more": ["text"] * 60_000}
    answer = ada.post(f"{server.url}/project", json=body, timeout=30)
    assert answer.status_code == 201, answer.text
    chat = {"model": "none", "messages": [{"role": "user", "content": "x" * 400_000}]}
    answer = ada.post(f"{server.url}/v1/chat/completions", json=chat, timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    broken = json.dumps(body)[:-1].encode()
    answer = ada.post(
        f"{server.url}/project", data=broken, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422


def test_deep_nesting_is_refused(server: Server, ada: requests.Session) -> None:
    headers = {"Content-Type": "application/json"}
    for depth in (101, 990, 100_000):
        deep = b'{"name": "p", "description": ' + b"[" * depth + b"]" * depth + b"}"
        for path in ("/project", "/v1/chat/completions"):
            answer = ada.post(f"{server.url}{path}", data=deep, headers=headers, timeout=30)
            assert answer.status_code in (400, 422), (depth, path, answer.text)
