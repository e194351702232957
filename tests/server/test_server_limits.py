"""A server that is full, that is locked out of its ledger, or is pointed at its own files."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import sqlite3
import time
from pathlib import Path

import pytest
import requests
from server_helpers import serving, tar_of
from starlette.types import Message, Receive, Scope, Send
from toys import make_plain_chain

from serve_apps.control_plane.config import ServerConfig
from serve_apps.control_plane.flow import BodyGuard, BodyLimits, Paced


def test_the_window_bounds_what_is_held() -> None:
    """An application that is slow to read holds the client back, in whatever loop it runs."""
    held: list[int] = []

    async def main() -> None:
        chunks = [b"x" * 1000] * 50
        received = 0

        async def receive() -> Message:
            nonlocal received
            received += 1
            body = chunks[received - 1] if received <= len(chunks) else b""
            return {"type": "http.request", "body": body, "more_body": received < len(chunks)}

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            queue: asyncio.Queue[Message] = asyncio.Queue()

            async def eager() -> None:  # as Serve does it
                while (message := await receive())["more_body"]:
                    queue.put_nowait(message)
                queue.put_nowait(message)

            reading = asyncio.create_task(eager())

            async def slow(scope: Scope, receive: Receive, send: Send) -> None:
                more = True
                while more:
                    await asyncio.sleep(0.001)
                    held.append(queue.qsize())
                    more = (await receive())["more_body"]

            limits = BodyLimits(10**6, 10**6, 5)
            guard = BodyGuard(slow, known=limits, unknown=limits)
            await guard(scope, queue.get, send)
            await reading

        async def send(message: Message) -> None:
            pass

        scope: Scope = {"type": "http", "headers": [(b"content-length", b"50000")]}
        await Paced(application, 5000)(scope, receive, send)

    asyncio.run(main())
    assert max(held) <= 6
    assert len(held) == 50


@pytest.mark.abuse(83)
def test_more_than_the_server_takes(tmp_path: Path) -> None:
    with serving(ServerConfig(data=tmp_path, max_requests=3, body_timeout_s=20)) as server:
        host, port = server.url.removeprefix("http://").split(":")
        session = server.as_user("ada")
        head = (
            f"POST /project HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100\r\n"
            f"Authorization: {session.headers['Authorization']}\r\n"
            "Content-Type: application/json\r\n\r\n"
        )
        slow = [socket.create_connection((host, int(port))) for _ in range(3)]
        for connection in slow:
            connection.sendall(head.encode())
        time.sleep(0.5)
        busy = session.get(f"{server.url}/project", timeout=10)
        assert (busy.status_code, busy.headers["Retry-After"]) == (503, "2")
        assert requests.get(f"{server.url}/health", timeout=10).status_code == 200
        for connection in slow:
            connection.close()
        deadline = time.monotonic() + 60
        while session.get(f"{server.url}/project", timeout=10).status_code == 503:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.abuse(67)
def test_a_ledger_that_is_locked_is_503(tmp_path: Path) -> None:
    with serving(ServerConfig(data=tmp_path)) as server:
        session = server.as_user("ada")
        server.services.ledger._database._busy_timeout_s = 0.1
        holder = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None, timeout=0.1)
        holder.execute("BEGIN IMMEDIATE")
        with (tmp_path / "ledger.db.writing").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            answer = session.post(f"{server.url}/project", json={"name": "p"}, timeout=30)
        holder.close()
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
        assert session.get(f"{server.url}/project", timeout=30).json() == []


def test_the_servers_own_files_are_no_pointers(tmp_path: Path) -> None:
    """Not even where the operator allowed the folder that they are in."""
    config = ServerConfig(data=tmp_path / "data", pointer_roots=(str(tmp_path),))
    with serving(config) as server:
        ada, eve = server.as_user("ada"), server.as_user("eve")
        mine, hers = server.project(ada), server.project(eve)
        path = make_plain_chain(tmp_path / "chain", members=1)[0]
        assert server.upload(ada, mine, tar_of(path)).status_code == 201
        stored = next(server.services.store.checkpoints.iterdir())
        url = f"{server.url}/project/file/external"
        for target, expected in ((path, 201), (stored, 422), (tmp_path / "data", 422)):
            body = {"projectId": hers, "filePath": str(target)}
            assert eve.post(url, json=body, timeout=30).status_code == expected
        answer = eve.post(
            f"{server.url}/dynamic_analysis/inference/batch",
            json={"modelPath": str(stored), "stimulusPaths": [str(tmp_path / "data/ledger.db")]},
            timeout=30,
        )
        assert answer.status_code == 422


def test_a_pointer_that_became_a_link_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "roots").mkdir()
    config = ServerConfig(
        data=tmp_path / "data", pointer_roots=(str(tmp_path / "roots"),), poll_s=0.05
    )
    with serving(config) as server:
        ada, eve = server.as_user("ada"), server.as_user("eve")
        mine, hers = server.project(ada), server.project(eve)
        one, two = make_plain_chain(tmp_path / "chain", members=2)
        server.upload(ada, mine, tar_of(one))
        stored = next(server.services.store.checkpoints.iterdir())
        pointer = tmp_path / "roots" / "c.tar"
        pointer.write_bytes(tar_of(two))
        made = eve.post(
            f"{server.url}/project/file/external",
            json={"projectId": hers, "filePath": str(pointer)},
            timeout=30,
        )
        file = made.json()["fileList"][0]["id"]
        pointer.unlink()
        pointer.symlink_to(stored)
        answer = eve.get(
            f"{server.url}/project/file/{file}", params={"projectId": hers}, timeout=30
        )
        assert answer.status_code == 422
