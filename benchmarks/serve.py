"""Requests per second and time to first token: the gateway against the same engine directly.

    python benchmarks/serve.py [--requests 64] [--turns 4] [--clients 32] [--tokens 32]

Both sides get the same streamed completions at temperature 0, after a warm-up, from the same number
of concurrent clients, and take turns, so that a noisy machine is as noisy for both. Directly, a
client is a coroutine beside the engine's own async interface and OpenAI layer. Through the gateway
it is an HTTP connection on the loopback interface: HAProxy, the gateway (key, routing, quota,
metrics), Serve's handle, the replica. The load's own work runs on the same cores on both sides. The
model is a random Llama of 77 M parameters unless its size is given.

First of all it is measured how long the engine takes on its own, in a fresh process, until it has
answered one token; a new variant has to have its traffic not much later than that.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
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

_FIRST_TOKEN = "first token at"
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


@dataclass
class Figures:
    """What came out, of all turns; times in seconds."""

    seconds: float = 0.0
    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)

    @property
    def requests_per_s(self) -> float:
        """Of all turns."""
        return len(self.whole) / self.seconds

    @property
    def first_token_ms(self) -> float:
        """The median."""
        return 1000 * statistics.median(self.first)

    @property
    def whole_ms(self) -> float:
        """The median."""
        return 1000 * statistics.median(self.whole)

    def add(self, seconds: float, times: Sequence[tuple[float, float]]) -> None:
        """Another turn."""
        self.seconds += seconds
        self.first += [first for first, _ in times]
        self.whole += [whole for _, whole in times]

    def row(self, name: str) -> str:
        """One line of the table."""
        return (
            f"{name:<20}{self.requests_per_s:>12.2f}{self.first_token_ms:>18.1f}"
            f"{self.whole_ms:>16.1f}"
        )


async def measure(asks: Sequence[Ask], model: str, load: Load, turns: int) -> list[Figures]:
    """Run the load on each side in turn, after a warm-up of one request per client."""
    figures = [Figures() for _ in asks]
    for ask in asks:
        await _run(ask, model, load, range(load.clients))
    for turn in range(turns):
        begin = load.clients + turn * load.requests
        numbers = range(begin, begin + load.requests)
        for ask, into in zip(asks, figures, strict=True):
            began = time.perf_counter()
            times = await _run(ask, model, load, numbers)
            into.add(time.perf_counter() - began, times)
    return figures


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


async def first_token(args: VariantArgs) -> None:
    """Print when the engine in this process has answered one token."""
    async with engine_here(args) as ask:
        await _run(ask, args.variant.name, Load(requests=1, clients=1, tokens=1), range(1))
        print(_FIRST_TOKEN, time.time(), flush=True)


@asynccontextmanager
async def over_http(url: str, key: str, clients: int) -> AsyncIterator[Ask]:
    """The gateway."""
    headers = {"authorization": f"Bearer {key}"}
    connector = aiohttp.TCPConnector(limit=clients)
    async with aiohttp.ClientSession(url, connector=connector, headers=headers) as session:

        async def ask(body: dict[str, Any]) -> AsyncIterator[str]:
            async with session.post("/v1/completions", json=body) as reply:
                reply.raise_for_status()
                async for line in reply.content:
                    yield line.decode()

        yield ask


def own_start(args: VariantArgs) -> float:
    """Seconds from the start of a process to the first token of the engine in it."""
    command = [sys.executable, __file__, "--start", str(args.variant)]
    began = time.time()
    child = subprocess.run(
        [*command, "--threads", str(int(args.num_cpus))], stdout=subprocess.PIPE, check=True
    )
    told = child.stdout.decode().partition(_FIRST_TOKEN)[2]
    return float(told.split()[0]) - began


def compare(args: VariantArgs, load: Load, turns: int, home: Path) -> None:
    """Measure both and print the table."""
    alone = own_start(args)
    roots = f'pointer_roots=["{args.variant.parent}"]'
    with server(home / "data", settings=[roots]) as (url, key, _), Client(url, key=key) as client:
        options = {"num_cpus": args.num_cpus, "max_ongoing_requests": max(16, load.clients)}
        ready = deploy(client, "bench", args.variant, now=True, options=options)

        async def both() -> list[Figures]:
            async with (
                engine_here(args) as directly,
                over_http(url, key, load.clients) as through,
            ):
                return await measure((directly, through), "bench", load, turns)

        direct, through = asyncio.run(both())
    print(f"the engine's own start {alone:.1f} s, a new variant has its traffic in {ready:.1f} s")
    asked = f"{turns} times {load.requests} requests of {load.tokens} tokens"
    print(f"{asked} from {load.clients} clients")
    print(f"{'':<20}{'requests/s':>12}{'first token, ms':>18}{'whole, ms':>16}   (medians)")
    print(direct.row("engine, directly"))
    print(through.row("through the gateway"))
    ratio = through.requests_per_s / direct.requests_per_s
    delay = through.first_token_ms - direct.first_token_ms
    print(f"ratio of requests/s {ratio:.2f}, first token {delay:+.1f} ms")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=64, help="in each turn")
    parser.add_argument("--turns", type=int, default=4)
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
        compare(args, load, options.turns, home)


if __name__ == "__main__":
    main()
