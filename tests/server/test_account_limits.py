"""What one account may hold: streams, waiting calls, searches, disk, engines. Case 94."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import requests
from server_helpers import Server, serving, tar_of
from toys import make_plain_chain
from variant_folders import chief_of, deploy, variant, variants_config

from cluster.jobs import JobState
from serve_apps.control_plane.config import ServerConfig
from serve_apps.control_plane.places import ServerSide
from ztom.client import Client
from ztom.errors import ServerError
from ztom.ledger.deployments import NewDeployment
from ztom.ledger.engine_quota import engines_of
from ztom.ledger.requests import NewRequest, RequestKind
from ztom.rollout.options import DeployOptions

ROOM = 100_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    config = ServerConfig(
        data=tmp_path_factory.mktemp("limits"),
        poll_s=0.05,
        streams_per_caller=2,
        waits_per_caller=1,
        searches_per_caller=2,
        bytes_per_caller=ROOM,
        deployments_per_caller=1,
    )
    with serving(config) as server:
        yield server


def user_of(server: Server, session: requests.Session) -> str:
    return str(session.get(f"{server.url}/api/auth/user", timeout=30).json()["id"])


def running_search(server: Server, session: requests.Session, project: str) -> str:
    new = NewRequest(RequestKind.SEARCH, user_of(server, session), project)
    request = server.services.ledger.requests.create(new)
    server.runner.states[f"j-{request.id}"] = JobState.RUNNING
    server.services.ledger.requests.start(request.id, job=f"j-{request.id}")
    return request.id


def until(condition: Callable[[], Any], within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.abuse(94)
def test_event_streams_of_one_account(server: Server) -> None:
    ada, grace = server.as_user("ada"), server.as_user("grace")
    events = {
        who: f"{server.url}/v1/searches/{running_search(server, who, server.project(who))}/events"
        for who in (ada, grace)
    }
    with ExitStack() as stack:
        for _ in range(2):
            opened = stack.enter_context(ada.get(events[ada], stream=True, timeout=30))
            assert opened.status_code == 200
        third = ada.get(events[ada], timeout=30)
        assert third.status_code == 429
        assert third.json()["detail"].startswith("2 of 2 event streams that your account has")
        assert int(third.headers["Retry-After"]) > 0
        # others have theirs, and everything else goes on
        with grace.get(events[grace], stream=True, timeout=30) as theirs:
            assert theirs.status_code == 200
        assert ada.get(f"{server.url}/project", timeout=30).status_code == 200
        held = {limit["name"]: limit for limit in ada.get(f"{server.url}/v1/limits").json()}
        assert held["event streams"] == {"name": "event streams", "used": 2.0, "limit": 2.0}

    def is_free() -> bool:
        with ada.get(events[ada], stream=True, timeout=30) as stream:
            return bool(stream.status_code == 200)

    until(is_free)


def searchable(server: Server, session: requests.Session, folder: Path) -> dict[str, Any]:
    """The body of a search of a new project of the session's."""
    project = server.project(session)
    for path in make_plain_chain(folder, members=2):
        answer = server.upload(session, project, tar_of(path))
        assert answer.status_code == 201, answer.text
    lines = b"".join(b'{"prompt": "p%d", "expected": "b"}\n' % n for n in range(16))
    data = session.post(
        f"{server.url}/v1/data",
        data={"projectId": project},
        files={"file": ("s.jsonl", lines)},
        timeout=30,
    )
    assert data.status_code == 201, data.text
    reference = data.json()["reference"]
    return {"projectId": project, "scalingFactorLimit": 0.1, "stimulusPaths": [reference]}


@pytest.mark.abuse(94)
def test_searches_of_one_account(server: Server, tmp_path: Path) -> None:
    mary, ruth = server.as_user("mary"), server.as_user("ruth")
    body = searchable(server, mary, tmp_path)
    url = f"{server.url}/v1/searches"
    ids = []
    for _ in range(2):
        answer = mary.post(url, json=body, timeout=60)
        assert answer.status_code == 202, answer.text
        ids.append(answer.json()["requestId"])
    third = mary.post(url, json=body, timeout=60)
    assert third.status_code == 429
    assert third.json()["detail"] == (
        "the account has all searches that it may have queued and running: got 2 of 2. Wait until "
        "one has ended, or cancel one (searches_per_caller is the operator's setting)."
    )
    assert third.headers["Retry-After"] == "30"
    theirs = ruth.post(url, json=searchable(server, ruth, tmp_path / "ruth"), timeout=60)
    assert theirs.status_code == 202
    assert mary.post(f"{url}/{ids[0]}/cancel", timeout=30).status_code == 200
    assert mary.post(url, json=body, timeout=60).status_code == 202
    assert mary.post(f"{url}/{ids[0]}/resume", timeout=30).status_code == 429


@pytest.mark.abuse(94)
def test_waiting_calls_of_one_account(server: Server, tmp_path: Path) -> None:
    lise = server.as_user("lise")
    body = searchable(server, lise, tmp_path)
    url = f"{server.url}/dynamic_analysis/zto/batch"
    statuses: list[int] = []

    def wait() -> None:
        statuses.append(lise.post(url, json=body, timeout=60).status_code)

    first = Thread(target=wait)
    first.start()
    user, places = user_of(server, lise), server.services.places
    until(lambda: places.held(ServerSide.WAITS, user) == 1)
    second = server.as_user("lise").post(url, json=body, timeout=60)
    assert second.status_code == 429
    assert second.json()["detail"].startswith("1 of 1 waiting calls that your account has at once")
    until(lambda: server.services.ledger.requests.open_searches(user) == 1)
    (search,) = lise.get(f"{server.url}/v1/searches", timeout=30).json()
    lise.post(f"{server.url}/v1/searches/{search['requestId']}/cancel", timeout=30)
    first.join(30)
    assert statuses == [409]
    until(lambda: places.held(ServerSide.WAITS, user) == 0)


def test_bytes_of_one_account(server: Server, tmp_path: Path) -> None:
    emmy = server.as_user("emmy")
    (path,) = make_plain_chain(tmp_path, members=1)
    archive = tar_of(path)
    project = server.project(emmy)
    assert server.upload(emmy, project, archive).status_code == 201
    limits = server.services.account_limits
    held = limits.nbytes(user_of(server, emmy))
    assert held == len(archive)
    too_long = b"x" * (ROOM - held)
    answer = server.upload(emmy, project, too_long)
    assert answer.status_code == 429
    assert f"at most {ROOM}" in answer.json()["detail"]
    assert "hardDelete" in answer.json()["detail"]
    assert "Retry-After" not in answer.headers
    assert list(server.services.store.staging.iterdir()) == []

    def chunked() -> Iterator[bytes]:
        head = f'--edge\r\nContent-Disposition: form-data; name="projectId"\r\n\r\n{project}\r\n'
        head += '--edge\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        yield head.encode()
        yield from (b"x" * 10_000 for _ in range(ROOM // 10_000))
        yield b"\r\n--edge--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=edge"}
    url = f"{server.url}/v1/data"
    assert emmy.post(url, data=chunked(), headers=headers, timeout=30).status_code == 429
    # what was refused is not held, and what is deleted for good is not held any more
    until(lambda: limits._reserved.total() == 0)
    file = emmy.get(f"{server.url}/project/{project}", timeout=30).json()["fileList"][0]["id"]
    emmy.delete(
        f"{server.url}/project/file",
        json={"projectId": project, "fileId": file, "hardDelete": True},
        timeout=30,
    )
    assert limits.nbytes(user_of(server, emmy)) == 0


def test_uploads_at_once_do_not_add_up_to_more_than_there_is_room_for(server: Server) -> None:
    limits, user = server.services.account_limits, user_of(server, server.as_user("olga"))
    release = limits.reserve([user], ROOM - 10)
    with pytest.raises(Exception, match="more bytes on disk"):
        limits.reserve([user], 11)
    limits.reserve([user], 10)()
    release()
    limits.reserve([user], ROOM)()


def test_an_administrator_has_limits_too(server: Server) -> None:
    chief = server.as_user("chief", admin=True)
    limits = chief.get(f"{server.url}/v1/limits", timeout=30).json()
    assert {limit["name"]: limit["limit"] for limit in limits} == {
        "requests": 64,
        "requests to models": 256,
        "event streams": 2,
        "waiting calls": 1,
        "searches": 2,
        "bytes on disk": ROOM,
        "deployments": 1,
        "replicas": 64,
        "devices": 64,
        "GiB of key-value cache": 1024,
    }
    token = chief.headers["Authorization"].removeprefix("Bearer ")
    with Client(server.url, key=token) as client:
        assert [limit.name for limit in client.limits()] == [limit["name"] for limit in limits]


@pytest.mark.abuse(94, 99)
def test_engines_of_one_account(tmp_path: Path) -> None:
    config = variants_config(tmp_path, gate_required=False, replicas_per_caller=4)
    with serving(config) as server, chief_of(server) as chief:
        deploy(server, chief, "one", options={"max_replicas": 3})
        folder, _ = variant(server, "two")
        with pytest.raises(ServerError, match="more replicas than it may: got 5") as refusal:
            chief.endpoints.deploy("other", path=folder, options={"max_replicas": 2})
        assert refusal.value.status == 429
        deploy(server, chief, "three", alias="other", options={"max_replicas": 1})


def new(number: int, *, base: str | None = None, **options: Any) -> NewDeployment:
    reference = None if base is None else {"reference": "/base", "digest": base}
    digest = f"{number:064x}"
    return NewDeployment(digest, "v", "/v", options=DeployOptions(**options), base=reference)


def test_what_deployments_may_take_together() -> None:
    engines = engines_of(
        [
            new(1, max_replicas=4, tensor_parallel_size=2, kv_cache_gib=8),
            new(2, gpu_fraction=0.5),
            # two adapters in the engine of one base
            new(3, base="b" * 64, max_replicas=2),
            new(4, base="b" * 64),
            # one that is swapped into another's engine
            new(5, swap_into="1" * 64),
        ]
    )
    assert engines == {
        "deployments": 5,
        "replicas": 7,
        "devices": 4 * 2 + 0.5 + 2,
        "GiB of key-value cache": 32 + 0.5 + 2 * 0.5,
    }
