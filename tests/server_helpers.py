"""A control plane for tests: over a real socket, with its work done in this process.

The runner stands in for Ray alone: it calls the same functions, and its searches are whatever the
test says. Tests with the real one are in ``tests/integration``.
"""

from __future__ import annotations

import asyncio
import io
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import uvicorn

from serve_apps.control_plane.app import create_app
from serve_apps.control_plane.config import ServerConfig
from serve_apps.control_plane.flow import Paced
from serve_apps.control_plane.runner import JobState, SearchJob
from serve_apps.control_plane.services import Services
from ztom.ledger.accounts import NewUser
from ztom.passwords import hash_password

PASSWORD = "correct horse battery"


@dataclass
class InProcessRunner:
    """Calls work in a thread; keeps what was submitted."""

    submitted: list[SearchJob] = field(default_factory=list)
    states: dict[str, JobState] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)
    on_submit: Callable[[SearchJob], None] = lambda job: None

    async def call(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        return await asyncio.to_thread(function, *args, **options)

    def submit(self, job: SearchJob) -> None:
        self.submitted.append(job)
        self.states.setdefault(job.id, JobState.RUNNING)
        self.on_submit(job)

    def state(self, job_id: str) -> tuple[JobState, str]:
        return self.states.get(job_id, JobState.UNKNOWN), "the last it said"

    def stop(self, job_id: str) -> None:
        self.stopped.append(job_id)


@dataclass
class Server:
    """A running server.

    Attributes:
        url: Its base address.
        services: What it works with.
        runner: Stands in for Ray.
    """

    url: str
    services: Services
    runner: InProcessRunner

    def token(self, name: str) -> str:
        answer = requests.post(
            f"{self.url}/api/auth/login", json={"username": name, "password": PASSWORD}, timeout=30
        )
        assert answer.status_code == 200, answer.text
        return answer.text

    def as_user(self, name: str, *, admin: bool = False) -> requests.Session:
        """A session of the user, who is made if need be."""
        accounts = self.services.ledger.accounts
        if accounts.for_login(name) is None:
            new = NewUser(name, f"{name}@example.org", HASH, is_admin=admin)
            accounts.create(new, actor="local:test")
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer {self.token(name)}"
        return session

    def project(self, session: requests.Session, name: str = "p") -> str:
        answer = session.post(f"{self.url}/project", json={"name": name}, timeout=30)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def upload(
        self, session: requests.Session, project: str, content: bytes, **fields: str
    ) -> requests.Response:
        data = {"projectId": project, "format": "HF_TEXT_GENERATION", **fields}
        return session.post(
            f"{self.url}/project/file",
            data=data,
            files={"file": (fields.get("fileName", "c.tar"), content)},
            timeout=60,
        )

    def scored(self, session: requests.Session, project: str, *, within_s: float = 30) -> Any:
        """The project once all of its files were looked at."""
        deadline = time.monotonic() + within_s
        while True:
            document = session.get(f"{self.url}/project/{project}", timeout=30).json()
            if all(file["status"] != "PENDING" for file in document["fileList"]):
                return document
            assert time.monotonic() < deadline, document
            time.sleep(0.05)


HASH = hash_password(PASSWORD)


@contextmanager
def serving(config: ServerConfig, runner: InProcessRunner | None = None) -> Iterator[Server]:
    """A server on a free port, with the same guard where bytes come in as in Serve."""
    runner = runner or InProcessRunner()
    services = Services.open(config, runner)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        settings = uvicorn.Config(
            Paced(create_app(services)), log_level="error", lifespan="on", ws="none"
        )
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield Server(f"http://127.0.0.1:{listener.getsockname()[1]}", services, runner)
        finally:
            server.should_exit = True
            thread.join(30)


def tar_of(folder: Path) -> bytes:
    """A checkpoint's folder as users send it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, arcname=path.name)
    return out.getvalue()
