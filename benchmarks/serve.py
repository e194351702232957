"""Requests per second and time to first token: the gateway against the same engine directly.

    python benchmarks/serve.py [--requests 160] [--clients 32] [--tokens 32] [--threads 1]

Both sides get the same streamed completions at temperature 0, after a warm-up, from the same number
of concurrent clients. Directly, a client is a coroutine beside the engine's own async interface and
OpenAI layer. Through the gateway it is an HTTP connection on the loopback interface: HAProxy, the
gateway (key, routing, quota, metrics), Serve's handle, the replica. The load's own work runs on the
same cores on both sides. The model is a random Llama of 77 M parameters unless its size is given.

First of all it is measured how long the engine takes on its own, in a fresh process, until it has
answered one token; a new variant has to have its traffic not much later than that.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import torch
from running import blend, deploy, make_chain, server

from serve_apps.variants.args import VariantArgs
from serve_apps.variants.environment import prepare_environment
from serve_apps.variants.identity import identify
from serve_apps.variants.wire import Reply
from ztom.client import Client

Ask = Callable[[dict[str, Any]], AsyncIterator[str]]


@dataclass(frozen=True)
class Load:
    """How much is asked for."""

    requests: int
    clients: int
    tokens: int

    def body(self, model: str, number: int) -> dict[str, Any]:
        """One request; the number keeps prompts apart, so that no cache answers."""
        return {
            "model": model,
            "prompt": f"{number}: how does one open a file and read its lines, one by one?",
            "max_tokens": self.tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
        }


@dataclass(frozen=True)
class Figures:
    """What came out."""

    requests_per_s: float
    first_token_ms: float
    whole_ms: float

    def row(self, name: str) -> str:
        """One line of the table."""
        return (
            f"{name:<20}{self.requests_per_s:>12.2f}{self.first_token_ms:>18.1f}"
            f"{self.whole_ms:>16.1f}"
        )


async def measure(ask: Ask, model: str, load: Load) -> Figures:
    """Run the load after a warm-up of one request per client."""
    await _run(ask, model, load, range(load.clients))
    first_ms: list[float] = []
    whole_ms: list[float] = []
    begin = time.perf_counter()
    numbers = range(load.clients, load.clients + load.requests)
    for first, whole in await _run(ask, model, load, numbers):
        first_ms.append(1000 * first)
        whole_ms.append(1000 * whole)
    rate = load.requests / (time.perf_counter() - begin)
    return Figures(rate, statistics.median(first_ms), statistics.median(whole_ms))


async def _run(ask: Ask, model: str, load: Load, numbers: range) -> list[tuple[float, float]]:
    waiting = iter(numbers)
    times: list[tuple[float, float]] = []

    async def client() -> None:
        for number in waiting:
            begin = time.perf_counter()
            first = None
            async for event in ask(load.body(model, number)):
                if first is None and event.startswith("data: {"):
                    first = time.perf_counter() - begin
            if first is None:
                raise SystemExit("a request was not answered")
            times.append((first, time.perf_counter() - begin))

    await asyncio.gather(*(client() for _ in range(load.clients)))
    return times


@asynccontextmanager
async def engine_here(args: VariantArgs) -> AsyncIterator[Ask]:
    """The engine in this process."""
    prepare_environment(args, on_gpu=torch.cuda.is_available())
    from serve_apps.variants.engine import VariantEngine

    identity = identify(args)
    engine = VariantEngine.start(args, identity, on_gpu=torch.cuda.is_available())

    async def ask(body: dict[str, Any]) -> AsyncIterator[str]:
        answer = await engine.answer("completion", body)
        if isinstance(answer, Reply):
            raise SystemExit(f"refused: {answer.body}")
        async with aclosing(answer):
            async for event in answer:
                yield event

    try:
        yield ask
    finally:
        engine.stop()


async def directly(args: VariantArgs, load: Load) -> Figures:
    """Measure the engine in this process."""
    async with engine_here(args) as ask:
        return await measure(ask, args.variant.name, load)


async def first_token(args: VariantArgs) -> None:
    """Print when the engine in this process has answered one token."""
    async with engine_here(args) as ask:
        await _run(ask, args.variant.name, Load(requests=1, clients=1, tokens=1), range(1))
        print(time.time(), flush=True)


async def over_http(url: str, key: str, model: str, load: Load) -> Figures:
    """The gateway."""
    headers = {"authorization": f"Bearer {key}"}
    connector = aiohttp.TCPConnector(limit=load.clients)
    async with aiohttp.ClientSession(url, connector=connector, headers=headers) as session:

        async def ask(body: dict[str, Any]) -> AsyncIterator[str]:
            async with session.post("/v1/completions", json=body) as reply:
                reply.raise_for_status()
                async for line in reply.content:
                    yield line.decode()

        return await measure(ask, model, load)


def own_start(args: VariantArgs) -> float:
    """Seconds from the start of a process to the first token of the engine in it."""
    command = [sys.executable, __file__, "--start", str(args.variant)]
    began = time.time()
    child = subprocess.run(
        [*command, "--threads", str(int(args.num_cpus))], stdout=subprocess.PIPE, check=True
    )
    return float(child.stdout.split()[-1]) - began


def compare(args: VariantArgs, load: Load, home: Path) -> None:
    """Measure both and print the table."""
    alone = own_start(args)
    direct = asyncio.run(directly(args, load))
    gc.collect()  # the engine's remains go while what they need is still there
    roots = f'pointer_roots=["{args.variant.parent}"]'
    with server(home / "data", settings=[roots]) as (url, key, _), Client(url, key=key) as client:
        options = {"num_cpus": args.num_cpus, "max_ongoing_requests": max(16, load.clients)}
        ready = deploy(client, "bench", args.variant, now=True, options=options)
        through = asyncio.run(over_http(url, key, "bench", load))
    print(f"the engine's own start {alone:.1f} s, a new variant has its traffic in {ready:.1f} s")
    print(f"{load.requests} requests of {load.tokens} tokens from {load.clients} clients")
    print(f"{'':<20}{'requests/s':>12}{'first token, ms':>18}{'whole, ms':>16}   (medians)")
    print(direct.row("engine, directly"))
    print(through.row("through the gateway"))
    ratio = through.requests_per_s / direct.requests_per_s
    delay = through.first_token_ms - direct.first_token_ms
    print(f"ratio of requests/s {ratio:.2f}, first token {delay:+.1f} ms")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=160)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1, help="of the engine, on both sides")
    parser.add_argument("--hidden", type=int, default=768, help="of the random Llama")
    parser.add_argument("--layers", type=int, default=7, help="of the random Llama")
    parser.add_argument("--start", type=Path, help="only start the engine on this variant")
    options = parser.parse_args()
    if options.start is not None:
        args = VariantArgs(variant=options.start, num_cpus=options.threads)
        asyncio.run(first_token(args))
        return
    load = Load(options.requests, options.clients, options.tokens)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        chain = make_chain(
            home / "variants" / "chain",
            hidden=options.hidden,
            layers=options.layers,
            vocabulary=14_000,
        )
        variant = blend(chain, (0.1, 0.1), home / "variants" / "bench")
        args = VariantArgs(variant=variant, num_cpus=options.threads)
        compare(args, load, home)


if __name__ == "__main__":
    main()
