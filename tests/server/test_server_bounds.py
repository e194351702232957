"""Bombs: small things that become large. They are refused, and nobody else notices. Rows 5, 13, 96
and 97.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import statistics
import struct
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from server_helpers import Server, serving

from serve_apps.control_plane.config import ServerConfig
from serve_apps.server.app import create_app
from ztom.wire.examples import PROJECT

MIB = 2**20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    config = ServerConfig(data=tmp_path_factory.mktemp("bounds") / "data", poll_s=0.2)
    import ztom.checkpoints.checkpoint  # noqa: F401  # torch: a second, at the first upload

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


@pytest.mark.abuse(5, 13, 96, 97)
@pytest.mark.brings(
    "checkpoint",
    "an archive, a configuration or a header of kilobytes that becomes gigabytes",
    "422 in another process; nobody else notices",
)
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
    assert (answer.status_code, seconds < 30) == (422, True), (seconds, answer.text)
    assert reason in answer.json()["detail"]
    assert str(server.services.store.root) not in answer.text
    attacked = times[quiet:]
    assert max(attacked) < 3.0, "nobody is kept waiting: it was 8 s"
    assert statistics.median(attacked) < 0.2 + 2 * statistics.median(times[:quiet])
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
        assert max(times) < 2.0


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


#: Numbers that are none, or that nobody means; as they stand in JSON, and as text elsewhere.
NUMBERS = ("1e308", "-1e30", '"inf"', "NaN", "9" * 400)


def numeric_leaves(schema: dict[str, Any], parts: dict[str, Any], depth: int = 0) -> Iterator[Any]:
    """Where numbers stand in values of a schema: paths of keys, None for an item of a list."""
    if depth > 6:
        return
    if "$ref" in schema:
        schema = parts[schema["$ref"].rpartition("/")[2]]
    for branch in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        yield from numeric_leaves(branch, parts, depth + 1)
    kind = schema.get("type")
    if kind in ("number", "integer"):
        yield ()
    items = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
    if kind == "array" and items:
        yield from ((None, *rest) for rest in numeric_leaves(items, parts, depth + 1))
    for name, child in schema.get("properties", {}).items():
        yield from ((name, *rest) for rest in numeric_leaves(child, parts, depth + 1))
    if isinstance(more := schema.get("additionalProperties"), dict):
        yield from (("key", *rest) for rest in numeric_leaves(more, parts, depth + 1))


def with_leaf(value: Any, path: tuple[str | None, ...]) -> Any:
    """A value with the mark at a path, which is made if need be."""
    if not path:
        return "@number@"
    name, *rest = path
    if name is None:
        return [with_leaf(value[0] if isinstance(value, list) and value else None, tuple(rest))]
    value = dict(value) if isinstance(value, dict) else {}
    return {**value, name: with_leaf(value.get(name), tuple(rest))}


def form(body: dict[str, Any]) -> dict[str, tuple[str | None, str]]:
    """A form with the file at its end."""
    fields = {name: (None, str(value)) for name, value in body.items() if name != "file"}
    return {**fields, "file": ("data.jsonl", "x")}


def requests_with_numbers(document: dict[str, Any]) -> Iterator[tuple[str, str, str, Any, Any]]:
    """Method, path, kind of body, body and path of the number, for every number of every route."""
    parts = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "query" and any(numeric_leaves(parameter["schema"], parts)):
                    yield method, path, "query", parameter["name"], ()
            for kind, content in operation.get("requestBody", {}).get("content", {}).items():
                for leaf in dict.fromkeys(numeric_leaves(content["schema"], parts)):
                    yield method, path, kind, content.get("example") or {}, leaf


@pytest.mark.abuse(106)
def test_no_number_is_an_error_of_the_server(
    server: Server, ada: requests.Session, project: str
) -> None:
    document = create_app(server.services).openapi()
    document = json.loads(json.dumps(document).replace(PROJECT, project))
    chief = server.as_user("chief", admin=True)
    secrets = (str(server.services.store.root), str(Path(__file__).resolve().parents[2]))
    sent, taken = 0, set()
    for method, path, kind, body, leaf in requests_with_numbers(document):
        url = server.url + re.sub(r"\{[^}]*\}", "0" * 32, path)
        for number in NUMBERS:
            if kind == "query":
                options: dict[str, Any] = {"params": {body: number.strip('"')}}
            elif kind == "application/json":
                text = json.dumps(with_leaf(body, leaf)).replace('"@number@"', number)
                options = {"data": text, "headers": {"Content-Type": kind}}
            else:
                options = {"files": form({**body, str(leaf[0]): number.strip('"')})}
            answer = chief.request(method, url, timeout=30, **options)
            sent += 1
            where = f"{method} {path} {leaf or body} = {number[:20]}: {answer.status_code}"
            assert answer.status_code < 500 or answer.status_code == 501, f"{where} {answer.text}"
            assert not any(secret in answer.text for secret in secrets), where
            if answer.status_code < 300:
                taken.add(where)
    assert sent > 300
    assert taken == set()


BAD_NAMES = ("../x", "a/b", "/etc/passwd", "..", ".", "a\\b", "a\0b", "a\nb", "\x1b[31m", "é" * 128)


def test_a_file_name_is_a_base_name(server: Server, ada: requests.Session, project: str) -> None:
    """On every route whose request has one."""
    document = create_app(server.services).openapi()
    parts, routes = document["components"]["schemas"], []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for kind, content in operation.get("requestBody", {}).get("content", {}).items():
                schema = content["schema"]
                schema = parts[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
                if "fileName" in schema.get("properties", {}):
                    routes.append((method, path, kind, content["example"]))
    assert len(routes) >= 6
    for method, path, kind, example in routes:
        for name in BAD_NAMES:
            body = {**example, "projectId": project, "fileName": name}
            if kind == "application/json":
                answer = ada.request(method, server.url + path, json=body, timeout=30)
            else:
                answer = ada.request(method, server.url + path, files=form(body), timeout=30)
            assert answer.status_code == 422, (method, path, name, answer.text)
            assert "fileName" in answer.text, (method, path, name, answer.text)
