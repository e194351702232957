"""The load of `chaos`: requests to a model, writes, releases and searches, all the time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import aiohttp
import httpx

from ztom.client import Client
from ztom.errors import ZtomError

PLAN = {
    "steps": [{"shadow": 100}, {"canary": 50}, {"canary": 100}],
    "min_requests": 20,
    "min_seconds": 0,
    "max_seconds": 600,
    "checks": {"error_rate": 0.5, "empty": 0.5, "latency": None, "disagreement": None},
}
SMALL = {"kv_cache_gib": 0.05, "max_model_len": 256, "num_cpus": 0.3, "health_period_s": 2}
_TOO_LONG_S = 900.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was made, in monotonic seconds, and what became of it.

    Attributes:
        outcome: ``answered``, ``later`` (a 503 that says when to try again), ``no door`` (nobody
            listens), ``broken off`` (a stream that ends with an error which says so), ``truncated``
            (a 200 that is not whole and does not say so) or what else happened.
    """

    began: float
    ended: float
    outcome: str


class Requests:
    """Clients that ask a model all the time, half of them streaming."""

    def __init__(self, url: str, key: str, clients: int) -> None:
        self.made: list[Request] = []
        self._url, self._key, self._clients = url, key, clients
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, when what is in work is answered."""
        self._stop.set()
        self._thread.join(300)

    async def _run(self) -> None:
        headers = {"authorization": f"Bearer {self._key}"}
        timeout = aiohttp.ClientTimeout(total=240)
        async with aiohttp.ClientSession(self._url, headers=headers, timeout=timeout) as session:
            await asyncio.gather(*(self._client(session, i) for i in range(self._clients)))

    async def _client(self, session: aiohttp.ClientSession, number: int) -> None:
        for turn in itertools.count():
            if self._stop.is_set():
                return
            stream = (turn + number) % 2 == 0
            body = {"model": "chaos", "prompt": f"{number} {turn}", "max_tokens": 6}
            began = time.monotonic()
            try:
                async with session.post(
                    "/v1/completions", json={**body, "stream": stream}
                ) as reply:
                    outcome = _outcome(
                        reply.status, reply.headers, await reply.text(), stream=stream
                    )
            except aiohttp.ClientConnectorError:
                outcome = "no door"
            except (aiohttp.ClientError, TimeoutError) as error:
                outcome = type(error).__name__
            self.made.append(Request(began, time.monotonic(), outcome))
            await asyncio.sleep(0.02 if outcome == "answered" else 0.25)


def _outcome(status: int, headers: Mapping[str, str], text: str, *, stream: bool) -> str:
    if status == 503 and "retry-after" in headers:
        return "later"
    if status != 200:
        return f"status {status}"
    if stream:
        if '"error"' in text and "[DONE]" in text:
            return "broken off"
        whole = "[DONE]" in text
    else:
        with contextlib.suppress(ValueError):
            return "answered" if json.loads(text).get("choices") else "truncated"
        whole = False
    return "answered" if whole else "truncated"


class Worker(ABC):
    """Something that is done again and again in a thread, whatever the server says."""

    def __init__(self, url: str, key: str, pause_s: float) -> None:
        self.counts: Counter[str] = Counter()
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._client = Client(url, key=key)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, when what is in work has ended."""
        self._stop.set()
        self._thread.join(_TOO_LONG_S)

    def _run(self) -> None:
        while not self._stop.wait(self._pause_s):
            try:
                self.once()
            except (ZtomError, httpx.HTTPError) as error:
                self.counts[f"refused ({type(error).__name__})"] += 1

    @abstractmethod
    def once(self) -> None:
        """Do it."""


def patiently(call: Callable[[], T], until: Callable[[T], bool]) -> T | None:
    """Ask until the answer fits, through whatever outage; None where it took too long."""
    deadline = time.monotonic() + _TOO_LONG_S
    while time.monotonic() < deadline:
        with contextlib.suppress(ZtomError, httpx.HTTPError):
            answer = call()
            if until(answer):
                return answer
        time.sleep(0.5)
    return None


class Rows(Worker):
    """Projects that are created; those whose creation was answered have to be there at the end."""

    def __init__(self, url: str, key: str) -> None:
        super().__init__(url, key, 0.5)
        self.acknowledged: set[str] = set()

    def once(self) -> None:
        """Create one."""
        self.acknowledged.add(self._client.create_project(f"row {secrets.token_hex(8)}").id)

    def lost(self) -> int:
        """How many of them are not there."""
        return sum(not self._is_there(project) for project in self.acknowledged)

    def _is_there(self, project: str) -> bool:
        try:
            return self._client.project(project).id == project
        except ZtomError:
            return False


class Releases(Worker):
    """Candidates that are as good as what is served, one after the other: all are to be promoted.

    Args:
        folders: Folders of two variants.
    """

    def __init__(self, url: str, key: str, folders: list[Path]) -> None:
        super().__init__(url, key, 1.0)
        self._folders = itertools.cycle(folders)

    def once(self) -> None:
        """Release the next one."""
        folder, endpoints = next(self._folders), self._client.endpoints
        before = {release.id for release in endpoints.releases("chaos")}
        endpoints.deploy(
            "chaos", path=folder, name=folder.name, insist=True, options=SMALL, plan=PLAN
        )
        new = patiently(
            lambda: [r for r in endpoints.releases("chaos") if r.id not in before], bool
        )
        if not new:
            self.counts["never began"] += 1
            return
        ended = patiently(
            lambda: endpoints.release(new[0].id), lambda r: r.status not in ("running", "held")
        )
        self.counts[ended.status if ended else "never ended"] += 1


class Searches(Worker):
    """Searches over HTTP, one after the other: all are to end with their budget.

    Args:
        chain: Folders of the checkpoints.
        stimuli: File of the stimuli, with what is expected.
        engine: Name of the engine, ``vllm`` or ``torch``.
    """

    def __init__(self, url: str, key: str, chain: list[Path], stimuli: Path, engine: str) -> None:
        super().__init__(url, key, 2.0)
        self._project = self._client.create_project("searches").id
        for folder in chain:
            self._client.add_checkpoint(self._project, folder)
        self._stimuli = self._client.add_data(self._project, stimuli)
        self._engine = {"name": engine, "kv_cache_gib": 0.05, "max_model_len": 256}

    def once(self) -> None:
        """Search once."""
        request = self._client.start_search(
            self._project,
            stimuli=self._stimuli,
            limit=1.0,
            error="cross_entropy",
            maxEvaluations=20,
            insist=True,
            engine=self._engine,
        )
        ended = patiently(
            lambda: self._client.search_status(request),
            lambda search: search.status not in ("queued", "running"),
        )
        self.counts[ended.status if ended else "never ended"] += 1
        if ended is not None and ended.status != "finished":
            print(f"a search ended as {ended.status}: {ended.reason}", flush=True)
