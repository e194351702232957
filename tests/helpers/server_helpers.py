"""A server for tests: over a real socket, with its work done in this process.

The runner stands in for Ray alone: it calls the same functions, and its searches are whatever the
test says. `Stage` stands in for Ray Serve: applications of variants that say what the test wants.
Tests with the real ones are in ``tests/integration``.
"""

from __future__ import annotations

import asyncio
import functools
import io
import json
import socket
import tarfile
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import requests
import uvicorn
from argon2 import PasswordHasher
from fastapi import FastAPI

from cluster.jobs import JobState
from serve_apps.control_plane.config import ServerConfig
from serve_apps.control_plane.engine_keeper import EngineKeeper, KeeperLimits
from serve_apps.control_plane.flow import Paced
from serve_apps.control_plane.questions import EngineSpec
from serve_apps.control_plane.runner import SearchJob
from serve_apps.control_plane.services import Services
from serve_apps.controller.apps import AppState, AppStatus
from serve_apps.endpoints.specs import AppSpec
from serve_apps.gateway.backends import Late, Overloaded, Unavailable
from serve_apps.server.app import create_app
from serve_apps.server.controller import controlling
from serve_apps.variants.args import VariantArgs
from serve_apps.variants.calls import (
    Answer,
    Call,
    Opened,
    ReplicaState,
    StreamEnd,
    StreamItem,
)
from ztom.errors import EngineError
from ztom.ledger.accounts import NewUser
from ztom.ledger.ledger import Ledger
from ztom.rollout.routing import Placement, variant_id
from ztom.variants.manifest import read_manifest

PASSWORD = "correct horse battery"
#: Seconds that the stage says an answer took of its engine.
ENGINE_S = 0.25


class InProcessEngine:
    """Holds an engine in this process."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self.killed = False
        self.engine: Any = None

    async def start(self) -> None:
        self.engine = await asyncio.to_thread(self.spec.open)

    async def ask(self, question: Any) -> Any:
        return await asyncio.to_thread(question.answer, self.engine)

    def kill(self) -> None:
        self.killed = True


@dataclass
class InProcessRunner:
    """Calls work in a thread; keeps what was submitted, and the engines that it started."""

    engines: list[InProcessEngine] = field(default_factory=list)
    rooms: int = 0
    places: int = 1
    submitted: list[SearchJob] = field(default_factory=list)
    states: dict[str, JobState] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)
    on_submit: Callable[[SearchJob], None] = lambda job: None

    async def call(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        return await asyncio.to_thread(function, *args, **options)

    def launch(self, spec: EngineSpec) -> InProcessEngine:
        self.engines.append(InProcessEngine(spec))
        return self.engines[-1]

    @functools.cached_property
    def keeper(self) -> EngineKeeper:
        return EngineKeeper(self.launch, KeeperLimits())

    async def ask(self, spec: EngineSpec, question: Any) -> Any:
        return await self.keeper.ask(spec, question)

    def make_room(self) -> None:
        self.rooms += 1

    def search_places(self, engine: object) -> int:
        return self.places

    def submit(self, job: SearchJob) -> None:
        self.submitted.append(job)
        self.states.setdefault(job.id, JobState.RUNNING)
        self.on_submit(job)

    def state(self, job_id: str) -> tuple[JobState, str]:
        return self.states.get(job_id, JobState.UNKNOWN), "the last it said"

    def stop(self, job_id: str) -> None:
        self.stopped.append(job_id)


@dataclass
class Actor:
    """How a variant behaves on the stage."""

    says: str = "I am {name}."
    delay_s: float = 0.0
    fails: int = 0
    status: int = 200
    overloaded: bool = False
    hangs: bool = False
    breaks_off: bool = False
    calls: list[Call] = field(default_factory=list)


class Stage:
    """Variants without engines: `Backends` and `Apps` in one.

    Attributes:
        actors: By digest; made with the defaults for a variant that is called first.
        broken: Names of applications that do not start, and why.
        looks: How often the controller has looked, once a round.
    """

    def __init__(self) -> None:
        self.actors: dict[str, Actor] = {}
        self.apps: dict[str, AppSpec] = {}
        self.broken: dict[str, str] = {}
        self.began = time.monotonic()
        self.places = 1000
        self.looks = 0
        self.current: dict[str, str] = {}
        self.log: list[str] = []

    def actor(self, digest: str) -> Actor:
        return self.actors.setdefault(digest, Actor())

    # what the gateway calls

    async def ask(self, placement: Placement, call: Call) -> Answer:
        actor = await self._enter(placement, call)
        if self.is_another(placement, call):
            body = b'{"error": {"message": "no", "code": "other_version"}}'
            return Answer(503, body, "x@y", call.digest, code="other_version")
        if actor.status != 200:
            body = json.dumps({"error": {"message": "no", "type": "x", "code": None}}).encode()
            return Answer(actor.status, body, "x@y", call.digest)
        if call.kind == "embedding":
            return _embedded(placement, call)
        text = actor.says.format(name=placement.name)
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "finish_reason": "stop"}
        choice |= {"message": message} if call.kind == "chat" else {"text": text}
        tokens = len(text.split())
        document = {
            "id": ("chatcmpl-" if call.kind == "chat" else "cmpl-") + call.request_id,
            "object": "chat.completion" if call.kind == "chat" else "text_completion",
            "created": 1,
            "model": variant_id(placement.name, call.digest),
            "choices": [choice],
            "usage": {"prompt_tokens": 3, "completion_tokens": tokens, "total_tokens": tokens + 3},
        }
        return Answer(
            200,
            json.dumps(document).encode(),
            variant_id(placement.name, call.digest),
            call.digest,
            3,
            tokens,
            empty=not text,
            engine_s=ENGINE_S,
        )

    async def stream(self, placement: Placement, call: Call) -> AsyncGenerator[StreamItem, None]:
        actor = await self._enter(placement, call)
        if actor.status != 200 or self.is_another(placement, call):
            yield await self.ask(placement, call)
            return
        name = variant_id(placement.name, call.digest)
        yield Opened(name, call.digest)
        words = actor.says.format(name=placement.name).split()
        for number, word in enumerate(words):
            if actor.breaks_off and number:
                raise Unavailable
            delta = {"content": word + " "}
            choice = {"index": 0, "finish_reason": None}
            choice |= {"delta": delta} if call.kind == "chat" else {"text": word + " "}
            chunk = {
                "id": ("chatcmpl-" if call.kind == "chat" else "cmpl-") + call.request_id,
                "object": "chat.completion.chunk",
                "created": 1,
                "model": name,
                "choices": [choice],
            }
            yield f"data: {json.dumps(chunk)}\n\n"
        yield "data: [DONE]\n\n"
        yield StreamEnd(3, len(words), empty=False, engine_s=ENGINE_S)

    def is_another(self, placement: Placement, call: Call) -> bool:
        there = self.current.get(placement.app, call.digest)
        return call.exact and there != call.digest

    async def _enter(self, placement: Placement, call: Call) -> Actor:
        if placement.app not in self.apps:
            raise Unavailable
        actor = self.actor(call.digest)
        actor.calls.append(call)
        if actor.overloaded:
            raise Overloaded
        if actor.hangs:
            await asyncio.sleep(placement.timeout_s)
            raise Late
        await asyncio.sleep(actor.delay_s)
        if actor.fails > 0:
            actor.fails -= 1
            raise Unavailable
        return actor

    # what the controller calls

    def status(self) -> dict[str, AppStatus]:
        self.looks += 1
        return {
            name: AppStatus(AppState.FAILED, self.broken[name])
            if name in self.broken
            else AppStatus(AppState.RUNNING, replicas=1)
            if place < self.places
            else AppStatus(AppState.STARTING, missing="no place for it yet")
            for place, name in enumerate(self.apps)
        }

    def start(self, spec: AppSpec) -> None:
        self.log.append(f"start {spec.name}")
        self.apps[spec.name] = spec
        if isinstance(spec.args, VariantArgs):
            self.current[spec.name] = read_manifest(spec.args.variant).digest

    def delete(self, name: str) -> None:
        self.log.append(f"delete {name}")
        self.apps.pop(name, None)

    def prove(
        self, spec: AppSpec, digest: str, folder: str, name: str, *, exact: bool = True
    ) -> None:
        actor = self.actor(digest)
        if actor.hangs or actor.fails:
            raise EngineError(f"{spec.name} does not answer")
        self.log.append(f"prove {digest[:4]}")

    def load(self, spec: AppSpec, digest: str, folder: str, name: str) -> None:
        self.log.append(f"load {digest[:4]}")

    def forget(self, app: str, deployment: str = "", digest: str = "") -> None:
        """The gateway's of an application that is gone; the controller's of an adapter."""
        self.log.append(f"forget {digest[:4] or app}")

    def swap(self, app: str, deployment: str, folder: str, name: str, wait_s: float) -> None:
        digest = read_manifest(Path(folder)).digest
        if self.actor(digest).fails:
            raise EngineError("the blend failed")
        self.log.append(f"swap {digest[:4]}")
        self.current[app] = digest

    def replicas(self, app: str, deployment: str) -> list[ReplicaState]:
        if app not in self.apps:
            return []
        up_s = time.monotonic() - self.began
        there = (self.current.get(app, ""),)
        return [ReplicaState(1, there, 0, 0, 0, 0, 2**20, app, load_s=7.0, up_s=up_s)]


def _embedded(placement: Placement, call: Call) -> Answer:
    """Two numbers for the first input."""
    name = variant_id(placement.name, call.digest)
    item = {"object": "embedding", "index": 0, "embedding": [0.6, -0.8]}
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    document = {"object": "list", "model": name, "data": [item], "usage": usage}
    return Answer(200, json.dumps(document).encode(), name, call.digest, 3)


@dataclass
class Server:
    """A running server.

    Attributes:
        url: Its base address.
        services: What it works with.
        runner: Stands in for Ray.
        stage: Stands in for Ray Serve.
    """

    url: str
    services: Services
    runner: InProcessRunner
    stage: Stage

    def token(self, name: str) -> str:
        answer = requests.post(
            f"{self.url}/api/auth/login", json={"username": name, "password": PASSWORD}, timeout=30
        )
        assert answer.status_code == 200, answer.text
        return answer.text

    def as_user(self, name: str, *, admin: bool = False, deployer: bool = True) -> requests.Session:
        """A session of the user, who is made if need be."""
        accounts = self.services.ledger.accounts
        if accounts.for_login(name) is None:
            address = f"{name}@example.org"
            new = NewUser(name, address, HASH, is_admin=admin, may_deploy=deployer and not admin)
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

    def scored(self, session: requests.Session, project: str, *, within_s: float = 120) -> Any:
        """The project once all of its files were looked at."""
        deadline = time.monotonic() + within_s
        while True:
            document = session.get(f"{self.url}/project/{project}", timeout=30).json()
            if all(file["status"] != "PENDING" for file in document["fileList"]):
                return document
            assert time.monotonic() < deadline, document
            time.sleep(0.05)


# Of the same kind as the server's, and cheap: most tests log in.
HASH = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
#: Seconds between two looks, where a server in production would take its time.
LOOKS = {
    "serve_apps.gateway.table.POLL_S": 0.05,
    "serve_apps.server.background.QUIET_S": 0.1,
    "serve_apps.gateway.observe._EVERY_S": 0.2,
    "serve_apps.gateway.observe.TRAFFIC_EVERY_S": 0.2,
    "serve_apps.server.controller._METRICS_EVERY_S": 0.2,
    "ztom.ledger.usage_book.EVERY_S": 0.1,
}


@functools.cache
def _new_ledger() -> bytes:
    """What a new ledger's file holds; the migrations run once for all servers of a process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "ledger.db")
        Ledger.open(path).close()
        return path.read_bytes()


@contextmanager
def serving(config: ServerConfig, runner: InProcessRunner | None = None) -> Iterator[Server]:
    """A server on a free port, with the same guard where bytes come in as in Serve."""
    runner, stage = runner or InProcessRunner(), Stage()
    if config.ledger is None and not config.data.exists():
        config.data.mkdir(mode=0o700)
        Path(config.ledger_address).write_bytes(_new_ledger())
    services = Services.open(config, runner, stage)
    app = create_app(services, besides=lambda: controlling(services, stage, every_s=0.05))
    with ExitStack() as stack:
        for name, seconds in LOOKS.items():
            stack.enter_context(patch(name, seconds))
        yield from _running(app, services, runner, stage)


def _running(
    app: FastAPI, services: Services, runner: InProcessRunner, stage: Stage
) -> Iterator[Server]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        settings = uvicorn.Config(
            Paced(app), log_level="error", lifespan="on", ws="none", proxy_headers=False
        )
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield Server(f"http://127.0.0.1:{listener.getsockname()[1]}", services, runner, stage)
        finally:
            server.should_exit = True
            thread.join(30)


def tar_of(folder: Path, *, compressed: bool = False) -> bytes:
    """A checkpoint's folder as users send it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz" if compressed else "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, arcname=path.name)
    return out.getvalue()
