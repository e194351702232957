"""What is sent to hurt: forms, archives, pointers, slow and long bodies. Rows 1 to 9, 32 to 39."""

from __future__ import annotations

import gzip
import io
import json
import socket
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from server_helpers import Server, serving, tar_of
from toys import make_plain_chain

from serve_apps.control_plane.config import ServerConfig
from ztom.errors import EngineError

LIMIT = 300_000


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("abuse")


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    (home / "roots").mkdir()
    config = ServerConfig(
        data=home / "data",
        pointer_roots=(str(home / "roots"), "memory://models"),
        poll_s=0.05,
        max_upload_bytes=LIMIT,
        max_body_bytes=20_000,
        body_timeout_s=1.0,
    )
    with serving(config) as server:
        yield server


@pytest.fixture(scope="module")
def ada(server: Server) -> requests.Session:
    return server.as_user("ada")


@pytest.fixture(scope="module")
def project(server: Server, ada: requests.Session) -> str:
    return server.project(ada)


@pytest.fixture(scope="module")
def checkpoint(home: Path) -> Path:
    return make_plain_chain(home / "roots" / "chain", members=1)[0]


def nothing_was_kept(server: Server, project: str) -> bool:
    store = server.services.store
    kept = [*store.staging.iterdir(), *store.checkpoints.iterdir()]
    return kept == [] and server.services.ledger.projects.get(project).files == ()


def archive(*entries: tarfile.TarInfo | tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                tar.addfile(info, io.BytesIO(entry[1]))
    return out.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.abuse(1, 2, 3, 6, 24, 25, 26)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no tar",
        b"\x1f\x8bno gzip",
        archive(),
        archive(("../up.safetensors", b"x")),
        archive(("/absolute/config.json", b"{}")),
        archive(special("model.safetensors", tarfile.SYMTYPE, "/etc/passwd")),
        archive(special("model.safetensors", tarfile.LNKTYPE, "config.json")),
        archive(special("model.safetensors", tarfile.FIFOTYPE)),
        archive(("config.json", b"{}"), ("config.json", b"{}")),
        archive(("config.json", b"{}"), ("pytorch_model.bin", b"x")),
        archive(("config.json", b"{}"), ("model.safetensors", b"\x80\x04N.")),
        archive(("config.json", b'{"auto_map": {"AutoModel": "x.Y"}}'), ("m.py", b"import os")),
    ],
)
def test_archives_that_are_no_checkpoints(server, ada, project, content: bytes) -> None:
    answer = server.upload(ada, project, content)
    assert answer.status_code == 422, answer.text
    assert nothing_was_kept(server, project)


def form(*parts: tuple[str, bytes], boundary: bytes = b"edge", end: bool = True) -> bytes:
    body = b"".join(
        b"--%s\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n"
        % (boundary, head.encode(), content)
        for head, content in parts
    )
    return body + (b"--%s--\r\n" % boundary if end else b"")


def test_forms_that_are_none(server, ada, project) -> None:
    url = f"{server.url}/project/file"
    kind = {"Content-Type": "multipart/form-data; boundary=edge"}
    named = ('name="projectId"', project.encode())
    file = ('name="file"; filename="a.tar"', b"x")
    bodies = {
        "no boundary": ({"Content-Type": "multipart/form-data"}, form(named, file)),
        "not a form": ({"Content-Type": "application/json"}, b"{}"),
        "garbage": (kind, b"garbage"),
        "cut": (kind, form(named, file, end=False)),
        "file first": (kind, form(file, named)),
        "no file": (kind, form(named)),
        "no fields": (kind, form(file)),
        "twice": (kind, form(named, named, file)),
        "nameless": (kind, form(('filename="a"', b"x"))),
        "other file": (kind, form(named, ('name="other"; filename="a"', b"x"))),
        "not text": (kind, form(('name="projectId"', b"\xff\xfe"), file)),
        "many": (kind, form(*((f'name="f{n}"', b"") for n in range(70)), file)),
        "control": (kind, form(named, ('name="tag"', b"a\x1b[31m"), file)),
        "wide header": (kind, form(('name="' + "n" * 9000 + '"', b"x"))),
    }
    for case, (headers, body) in bodies.items():
        answer = ada.post(url, data=body, headers=headers, timeout=30)
        assert answer.status_code == 422, (case, answer.status_code, answer.text)
    assert nothing_was_kept(server, project)


@pytest.mark.abuse(9)
def test_long_bodies_are_refused_while_they_come(server, ada, project) -> None:
    long = b"x" * (LIMIT + 1)
    assert server.upload(ada, project, long).status_code == 413

    def chunked() -> Iterator[bytes]:
        head = form(('name="projectId"', project.encode()), end=False)
        yield head + b'--edge\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
        for _ in range(10):
            yield b"x" * (LIMIT // 5)

    headers = {"Content-Type": "multipart/form-data; boundary=edge"}
    answer = ada.post(f"{server.url}/project/file", data=chunked(), headers=headers, timeout=30)
    assert answer.status_code == 413
    body = {"name": "p", "description": "x" * 30_000}
    assert ada.post(f"{server.url}/project", json=body, timeout=30).status_code == 413
    assert nothing_was_kept(server, project)


def test_who_may_not_upload_is_told_before_the_file_is_read(server, project) -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        head = form(('name="projectId"', project.encode()), end=False)
        yield head + b'--edge\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
        for _ in range(4):
            time.sleep(0.1)
            sent += 1
            yield b"x" * 1000

    stranger = server.as_user("stranger")
    headers = {"Content-Type": "multipart/form-data; boundary=edge"}
    answer = stranger.post(f"{server.url}/project/file", data=chunks(), headers=headers, timeout=30)
    assert answer.status_code == 404


@pytest.mark.abuse(8)
def test_a_lost_connection_leaves_nothing(server, ada, project) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    body = form(('name="projectId"', project.encode()), end=False)
    body += b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.tar"\r\n\r\n'
    head = (
        f"POST /project/file HTTP/1.1\r\nHost: {host}\r\nContent-Length: 200000\r\n"
        f"Authorization: {ada.headers['Authorization']}\r\n"
        "Content-Type: multipart/form-data; boundary=edge\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + body + b"x" * 100_000)
        time.sleep(0.3)
    deadline = time.monotonic() + 60
    while not nothing_was_kept(server, project) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert nothing_was_kept(server, project)


@pytest.mark.abuse(82)
def test_a_body_that_stands_still_is_given_up(server, ada, project) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    head = (
        f"POST /project HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100\r\n"
        f"Authorization: {ada.headers['Authorization']}\r\nContent-Type: application/json\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head.encode() + b'{"name"')
        began = time.monotonic()
        answer = connection.recv(4096)
    assert b" 408 " in answer.split(b"\r\n")[0]
    assert time.monotonic() - began < 10


@pytest.mark.abuse(32, 33, 34, 35, 36)
@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "/etc",
        "local:/etc",
        "dir::/etc",
        "filecache::http://169.254.169.254/latest",
        "http://169.254.169.254/latest",
        "https://example.org/model",
        "ftp://example.org/m",
        "github://a:b@/x",
        "gs://bucket/../x",
        "gs://bucket/%2e%2e/x",
        "gs://bucket\\x",
        "gs://bucket/x#y",
        "memory://elsewhere/x",
        "hf://acme/base",
        "hf://acme/base/../../x",
        "hf:/acme/base",
        "acme/base",
        "models:/support/1",
        "vertex://team/europe-west4/models/1@1",
        "{roots}/../data/ledger.db",
        "{roots}/chain/../../data",
        "",
        "x" * 3000,
        "a\0b",
    ],
)
def test_pointers_to_elsewhere(server, ada, project, home, address: str) -> None:
    body = {"projectId": project, "filePath": address.replace("{roots}", str(home / "roots"))}
    answer = ada.post(f"{server.url}/project/file/external", json=body, timeout=30)
    assert answer.status_code == 422, answer.text
    other = ada.post(
        f"{server.url}/dynamic_analysis/inference/batch",
        json={"modelPath": body["filePath"], "stimulusPaths": [body["filePath"]]},
        timeout=30,
    )
    assert other.status_code == 422, other.text
    assert nothing_was_kept(server, project)


@pytest.mark.abuse(37)
def test_options_of_stores_are_the_operators(server, ada, project) -> None:
    for extra in ("storageOptions", "token", "endpoint_url"):
        body = {"projectId": project, "filePath": "gs://bucket/x", extra: {"a": 1}}
        answer = ada.post(f"{server.url}/project/file/external", json=body, timeout=30)
        assert answer.status_code == 422
        assert "allowed roots" in answer.json()["detail"]


@pytest.mark.abuse(38)
def test_links_inside_of_a_root(server, ada, project, home, checkpoint) -> None:
    folder = home / "roots" / "linked"
    folder.mkdir()
    for path in checkpoint.iterdir():
        if path.name != "tokenizer.json":
            (folder / path.name).write_bytes(path.read_bytes())
    (folder / "tokenizer.json").symlink_to("/etc/passwd")
    body = {"projectId": project, "filePath": str(folder)}
    answer = ada.post(f"{server.url}/project/file/external", json=body, timeout=30)
    assert answer.status_code == 422
    assert "leads out of the folder" in answer.json()["detail"]


@pytest.mark.abuse(39)
def test_content_that_changes_is_noticed(server, ada, home) -> None:
    project = server.project(ada, "changing")
    paths = make_plain_chain(home / "roots" / "changing", members=2)
    url = f"{server.url}/project/file/external"
    for path in paths:
        answer = ada.post(url, json={"projectId": project, "filePath": str(path)}, timeout=30)
    ids = [file["id"] for file in answer.json()["fileList"]]
    server.scored(ada, project)
    config = json.loads((paths[1] / "config.json").read_text())
    (paths[1] / "config.json").write_text(json.dumps({**config, "more": 1}))
    body = {"projectId": project, "fileIds": [ids[1]], "scalingFactors": [0.5]}
    answer = ada.post(f"{server.url}/metatune", json=body, timeout=30)
    assert answer.status_code == 422
    assert "pinned" in answer.json()["detail"]


@pytest.mark.abuse(16)
def test_a_checkpoint_with_nan_is_invalid(server, ada, home) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    project = server.project(ada, "nan")
    path = make_plain_chain(home / "nan", members=2)
    state = load_file(path[1] / "model.safetensors")
    state["model.norm.weight"][0] = torch.nan
    save_file(state, path[1] / "model.safetensors", metadata={"format": "pt"})
    for each in path:
        assert server.upload(ada, project, tar_of(each)).status_code == 201
    files = server.scored(ada, project)["fileList"]
    assert [file["status"] for file in files] == ["VALID", "INVALID"]
    assert "model.norm.weight" in files[1]["message"]
    body = {"projectId": project, "fileIds": [files[1]["id"]], "scalingFactors": [0.5]}
    answer = ada.post(f"{server.url}/metatune", json=body, timeout=30)
    assert answer.status_code == 422


@pytest.mark.abuse(40)
def test_numbers_that_are_none(server, ada, project) -> None:
    headers = {"Content-Type": "application/json"}
    for number in ("NaN", "1e999", "-Infinity", '"x"', "0", "-1", "1" * 5000):
        body = (
            f'{{"projectId": "{project}", "scalingFactorLimit": {number}, "stimulusPaths": ["/x"]}}'
        )
        for path in ("/dynamic_analysis/zto/batch", "/v1/searches"):
            answer = ada.post(server.url + path, data=body, headers=headers, timeout=30)
            assert answer.status_code == 422, (number, answer.text)
    deep = "[" * 9000 + "]" * 9000
    answer = ada.post(f"{server.url}/project", data=deep, headers=headers, timeout=30)
    assert answer.status_code == 422


def test_code_of_the_callers_choice_is_refused(server, ada, home) -> None:
    project = server.project(ada, "code")
    for path in make_plain_chain(home / "code", members=2):
        server.upload(ada, project, tar_of(path))
    body = {"projectId": project, "scalingFactorLimit": 0.1, "stimulusPaths": ["/x"]}
    for extra in (
        {"error": "os:system"},
        {"engine": {"name": "torch", "module": "os:system"}},
        {"engine": {"name": "fake"}},
        {"engine": {"name": "os:system"}},
        {"sampler": "os:system"},
    ):
        answer = ada.post(f"{server.url}/v1/searches", json={**body, **extra}, timeout=30)
        assert answer.status_code == 422, answer.text


@pytest.mark.abuse(5)
def test_what_a_refused_archive_was_unpacked_to_is_removed(server, ada, project) -> None:
    content = gzip.compress(archive(("config.json", b"{}"), ("notes.txt", b"0" * 100_000)))
    assert server.upload(ada, project, content).status_code == 422
    unpacked = server.services.store.cache / "archives"
    assert not unpacked.exists() or list(unpacked.iterdir()) == []
    bomb = gzip.compress(archive(("model.safetensors", b"0" * (LIMIT * 3))))
    assert len(bomb) < LIMIT
    assert server.upload(ada, project, bomb).status_code == 422
    assert not unpacked.exists() or list(unpacked.iterdir()) == []


@pytest.mark.abuse(106)
def test_an_error_does_not_say_where_the_server_keeps_its_files(server, ada, monkeypatch) -> None:
    data = server.services.config.data

    def broken(*arguments: object) -> None:
        raise EngineError(f"{data}/cache/archives/x cannot be loaded", got=f"nothing in {data}")

    monkeypatch.setattr(server.services.ledger.projects, "visible_to", broken)
    answer = ada.get(f"{server.url}/project", timeout=30)
    detail = "cache/archives/x cannot be loaded: got nothing in the server's data"
    assert (answer.status_code, answer.json()) == (503, {"detail": detail})


def test_an_error_that_nobody_expected_shows_nothing(server, ada, monkeypatch, caplog) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("canary-in-a-message")

    monkeypatch.setattr(server.services.ledger.projects, "visible_to", broken)
    answer = ada.get(f"{server.url}/project", timeout=30)
    assert (answer.status_code, set(answer.json())) == (500, {"detail"})
    assert "canary" not in answer.text + caplog.text
    assert "RuntimeError" in caplog.text
