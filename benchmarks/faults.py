"""What happens to requests when variants are rolled, swapped and killed under traffic.

    python benchmarks/faults.py [--requests 1000] [--clients 8] [--only killed]

A server, three blends of a tiny Llama, and clients that ask all the time, half of them streaming.
During each event, and after it, at least so many requests are answered; what is lost is counted by
kind. "Visible" is when the last request was sent that the old variant still answered, counted from
when the change was asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil
from running import blend, deploy, make_chain, server

from ztom.client import Client

OUTAGE_LIMIT_S = 120.0
#: Of the engines: small, so that three of them fit on a small machine.
OPTIONS = {"kv_cache_gib": 0.05, "num_cpus": 0.5, "health_period_s": 2}


@dataclass
class Traffic:
    """Clients that ask all the time."""

    url: str
    key: str
    clients: int
    answers: list[tuple[float, float, str]] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ask while in the context."""
        headers = {"authorization": f"Bearer {self.key}"}
        timeout = aiohttp.ClientTimeout(total=180)
        async with aiohttp.ClientSession(self.url, headers=headers, timeout=timeout) as session:
            tasks = [asyncio.create_task(self._client(session, i)) for i in range(self.clients)]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def more(self, count: int) -> None:
        """Wait until so many more were answered or lost."""
        goal = len(self.answers) + self.lost.total() + count
        while len(self.answers) + self.lost.total() < goal:
            await asyncio.sleep(0.05)

    async def _client(self, session: aiohttp.ClientSession, number: int) -> None:
        turn = 0
        while True:
            turn += 1
            stream = turn % 2 == 0
            body = {
                "model": "bench",
                "prompt": f"{number} {turn}",
                "max_tokens": 8,
                "stream": stream,
                "user": f"{number}-{turn}",
            }
            began = time.monotonic()
            kind = "streams" if stream else "whole answers"
            try:
                async with session.post("/v1/completions", json=body) as reply:
                    text = await reply.text()
                    if reply.status != 200:
                        self.lost[f"{kind}: status {reply.status}"] += 1
                    elif stream and ("[DONE]" not in text or '"error"' in text):
                        self.lost[f"{kind}: broken off"] += 1
                    else:
                        variant = reply.headers["x-ztom-variant"].partition("@")[0]
                        self.answers.append((began, time.monotonic(), variant))
            except (aiohttp.ClientError, TimeoutError) as error:
                self.lost[f"{kind}: {type(error).__name__}"] += 1
                await asyncio.sleep(0.25)


class Bench:
    """The server under test, and what is done to it."""

    def __init__(self, client: Client, process: int, folders: dict[str, Path]) -> None:
        self.client = client
        self.folders = folders
        self._process = psutil.Process(process)

    def deploy(self, name: str, **wishes: object) -> float:
        """Deploy one of the variants; the seconds until it has its traffic."""
        options = {**OPTIONS, **wishes.pop("options", {})}  # type: ignore[dict-item]
        return deploy(self.client, "bench", self.folders[name], options=options, **wishes)

    def kill(self, name: str) -> None:
        """Kill a process by the start of its name."""
        self._find(name).kill()

    def stop(self, name: str) -> None:
        """Have a process and its children stand still, alive."""
        found = self._find(name)
        for each in [*found.children(recursive=True), found]:
            each.suspend()

    def _find(self, name: str) -> psutil.Process:
        for each in self._process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if name in " ".join(each.cmdline()):
                    return each
        raise SystemExit(f"there is no {name}")


async def during(
    traffic: Traffic,
    what: str,
    event: Callable[[], object],
    *,
    requests: int,
    gone: str = "",
    outage: bool = False,
) -> None:
    """Do something under traffic, and say what it cost.

    Args:
        traffic: Of the clients.
        what: For the table.
        event: What is done.
        requests: Answered during it and after, at least.
        gone: The variant that is not to answer any more.
        outage: Whether ``took`` is until a request was answered that was sent after it.
    """
    answered, lost = len(traffic.answers), Counter(traffic.lost)
    await traffic.more(requests // 10)
    told = time.monotonic()
    await asyncio.to_thread(event)
    took = time.monotonic() - told
    done = len(traffic.answers) - answered
    if outage:
        begin = time.monotonic()
        while not any(began > told for began, _, _ in traffic.answers[-traffic.clients :]):
            if time.monotonic() - begin > OUTAGE_LIMIT_S:
                raise SystemExit(f"{what}: no answer for {OUTAGE_LIMIT_S:g} s")
            await asyncio.sleep(0.02)
        took = time.monotonic() - told
    await traffic.more(max(requests - done, requests // 2))
    seen = traffic.answers[answered:]
    gaps = sorted(end - begin for begin, end, _ in seen)
    missing = traffic.lost - lost
    line = f"{what:<30}{len(seen):>9}{missing.total():>6}{gaps[len(gaps) // 2] * 1e3:>10.0f}"
    line += f"{gaps[-1] * 1e3:>11.0f}{took:>9.2f}"
    late = [begin - told for begin, _, variant in seen if variant == gone]
    if gone:
        line += f"{max([0.0, *late]):>10.2f}"
    print(line, *(f"  {count} {kind}" for kind, count in missing.items()), flush=True)


async def run(bench: Bench, traffic: Traffic, requests: int, only: str) -> None:
    """Every event whose name holds ``only``, one after the other."""
    endpoints = bench.client.endpoints
    print(
        f"{'':<30}{'answered':>9}{'lost':>6}{'p50, ms':>10}{'longest':>11}{'took, s':>9}"
        f"{'visible':>10}"
    )

    async def step(
        what: str, event: Callable[[], object], *, gone: str = "", outage: bool = False
    ) -> None:
        if only in what:
            await during(traffic, what, event, requests=requests, gone=gone, outage=outage)

    def shares() -> None:
        for percent in (5, 25, 50, 100):
            endpoints.traffic("bench", canary=percent)
            time.sleep(1)

    async with traffic.running():
        await step("nothing", lambda: None)
        await step("new variant as a canary", lambda: bench.deploy("b", canary=1))
        await step("canary steps 5 to 100 %", shares)
        await step("promotion", lambda: endpoints.promote("bench"), gone="a")
        await step("rollback", lambda: endpoints.rollback("bench"), gone="b")
        await step("live swap", lambda: bench.deploy("c", live=True))
        await step("rollback of the live swap", lambda: endpoints.rollback("bench"), gone="c")
        await step("controller killed", lambda: bench.kill("ray::ServeReplica:ztom:controller"))
        other = {"live_swap": True, "max_queued_requests": 255}
        await step("rolling update (options)", lambda: bench.deploy("a", now=True, options=other))
        two = {**other, "min_replicas": 2, "max_replicas": 2}
        await step("two replicas", lambda: bench.deploy("a", now=True, options=two))
        await step("one of two replicas killed", lambda: bench.kill("ray::ServeReplica:variant-a"))
        await step("shadow: none", lambda: None)
        # not replaced while it is stuck: an engine that starts takes the cores of all others
        patient = {"health_period_s": 600}
        await step("shadow: deployed", lambda: bench.deploy("b", shadow=100, options=patient))
        shadow = "ray::ServeReplica:variant-b"
        await step("shadow: alive and stuck", lambda: bench.stop(shadow))
        await step("shadow: taken away", lambda: endpoints.rollback("bench"))
        await step("shadow: none again", lambda: None)
        gateway = "ray::ServeReplica:ztom:control-plane"
        await step("gateway killed", lambda: bench.kill(gateway), outage=True)
        await step("HAProxy killed", lambda: bench.kill("haproxy -"), outage=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1000, help="per event, at least")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--gateways", type=int, default=1, help="replicas of the gateway")
    parser.add_argument("--only", default="", help="events whose names hold this")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        chain = make_chain(home / "variants" / "chain", hidden=64, layers=2, vocabulary=2_000)
        factors = {"a": (0.5, -0.5), "b": (-0.5, 0.5), "c": (0.2, 0.2)}
        folders = {k: blend(chain, f, home / "variants" / k) for k, f in factors.items()}
        roots = f'pointer_roots=["{home / "variants"}"]'
        gateways = f"http_replicas={options.gateways}"
        with (
            server(home / "data", settings=[roots, gateways]) as (url, key, process),
            Client(url, key=key) as client,
        ):
            bench = Bench(client, process, folders)
            began = bench.deploy("a", options={"live_swap": True})
            print(f"first variant ready in {began:.1f} s")
            traffic = Traffic(url, key, options.clients)
            asyncio.run(run(bench, traffic, options.requests, options.only))


if __name__ == "__main__":
    main()
