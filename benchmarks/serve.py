"""The gateway against vLLM's own OpenAI server: CPU a request, requests/s, tokens/s, first token.

    python benchmarks/serve.py [--requests 64] [--turns 4] [--clients 8 32] [--tokens 32] [--whole]
    python benchmarks/serve.py --hidden 64 --layers 2 --clients 8   # what is around it
    python benchmarks/serve.py --engine      # also the engine alone, and its start

Both sides get the same completions at temperature 0 over HTTP on the loopback interface, after a
warm-up, from the same number of concurrent clients, and take turns, so that a noisy machine is as
noisy for both. Ours is HAProxy, the gateway (key, routing, quota, metrics), Serve's handle, the
replica; vLLM's is ``vllm.entrypoints.openai.api_server`` with the arguments that a replica gives to
its engine. The load's own work runs on the same cores on both sides. The model is a random Llama of
77 M parameters unless its size is given.

CPU milliseconds a request are what the processes of a side have taken while it answered, whatever
else ran on the machine; ``idle`` is what ours take while nobody asks, in milliseconds a second, and
is also said without: the slower the requests come, the more of it falls on each.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from processes import ENGINE, GATEWAY, REPLICA, ROLES, cpu_seconds
from running import blend, deploy, make_chain, server
from serve_sides import Ask, Side, engine_here, over_http, vllm_server

from serve_apps.variants.args import VariantArgs
from serve_apps.variants.identity import identify
from ztom.client import Client

_FIRST_TOKEN = "first token at"
_IDLE_S = 10.0


@dataclass(frozen=True)
class Load:
    """How much is asked for."""

    requests: int
    clients: int
    tokens: int
    stream: bool = True

    def body(self, model: str, number: int) -> dict[str, Any]:
        """One request; the number keeps prompts apart, so that no cache answers."""
        return {
            "model": model,
            "prompt": f"{number}: how does one open a file and read its lines, one by one?",
            "max_tokens": self.tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": self.stream,
        }


@dataclass
class Figures:
    """What came out, of all turns; times in seconds."""

    seconds: float = 0.0
    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    cpu: Counter[str] = field(default_factory=Counter)

    @property
    def requests_per_s(self) -> float:
        """Of all turns."""
        return len(self.whole) / self.seconds

    @property
    def first_ms(self) -> float:
        """The median until the first token, or until the answer where it comes whole."""
        return 1000 * statistics.median(self.first)

    def cpu_ms(self, role: str) -> float:
        """CPU milliseconds a request of the processes with a role."""
        return 1000 * self.cpu[role] / len(self.whole)

    def add(self, seconds: float, times: Sequence[tuple[float, float]], cpu: Counter[str]) -> None:
        """Another turn."""
        self.seconds += seconds
        self.first += [first for first, _ in times]
        self.whole += [whole for _, whole in times]
        self.cpu += cpu

    def row(self, name: str, tokens: int) -> str:
        """One line of the table."""
        cpu = "".join(f"{self.cpu_ms(role):>11.1f}" for role in ROLES)
        return (
            f"{name:<22}{self.requests_per_s:>11.2f}{tokens * self.requests_per_s:>10.0f}"
            f"{self.first_ms:>10.0f}{cpu}"
        )


async def measure(sides: Sequence[Side], load: Load, turns: int) -> list[Figures]:
    """Run the load on each side in turn, after a warm-up of two requests a client."""
    figures = [Figures() for _ in sides]
    for side in sides:
        await _run(side.ask, side.model, load, range(2 * load.clients))
    for turn in range(turns):
        begin = 2 * load.clients + turn * load.requests
        numbers = range(begin, begin + load.requests)
        pairs = list(zip(sides, figures, strict=True))
        for side, into in pairs if turn % 2 == 0 else reversed(pairs):
            cpu, began = side.cpu(), time.perf_counter()
            times = await _run(side.ask, side.model, load, numbers)
            into.add(time.perf_counter() - began, times, side.cpu() - cpu)
    return figures


async def _run(ask: Ask, model: str, load: Load, numbers: range) -> list[tuple[float, float]]:
    waiting = iter(numbers)
    times: list[tuple[float, float]] = []

    async def client() -> None:
        for number in waiting:
            begin = time.perf_counter()
            first = None
            async for piece in ask(load.body(model, number)):
                if first is None and piece.startswith((b"data: {", b"{")):
                    first = time.perf_counter() - begin
            if first is None:
                raise SystemExit("a request was not answered")
            times.append((first, time.perf_counter() - begin))

    await asyncio.gather(*(client() for _ in range(load.clients)))
    return times


async def first_token(args: VariantArgs) -> None:
    """Print when the engine in this process has answered one token."""
    async with engine_here(args) as ask:
        await _run(ask, args.variant.name, Load(requests=1, clients=1, tokens=1), range(1))
        print(_FIRST_TOKEN, time.time(), flush=True)


def own_start(args: VariantArgs) -> float:
    """Seconds from the start of a process to the first token of the engine in it."""
    command = [sys.executable, __file__, "--start", str(args.variant)]
    began = time.time()
    child = subprocess.run(
        [*command, "--threads", str(int(args.num_cpus))], stdout=subprocess.PIPE, check=True
    )
    printed = child.stdout.decode().partition(_FIRST_TOKEN)[2]
    return float(printed.split()[0]) - began


def compare(args: VariantArgs, loads: Sequence[Load], turns: int, home: Path, engine: bool) -> None:
    """Measure the sides and print a table for each load."""
    if engine:
        print(f"the engine's own start {own_start(args):.1f} s")
    most = max(load.clients for load in loads)
    roots = f'pointer_roots=["{args.variant.parent}"]'
    with (
        vllm_server(args, home) as other,
        server(home / "data", settings=[roots]) as (url, key, process),
        Client(url, key=key) as client,
    ):
        options = {"num_cpus": args.num_cpus, "max_ongoing_requests": max(16, most)}
        ready = deploy(client, "bench", args.variant, now=True, options=options)
        print(f"a new variant has its traffic in {ready:.1f} s")
        other.wait()
        before = cpu_seconds(process)
        time.sleep(_IDLE_S)
        idle = cpu_seconds(process) - before

        async def run() -> list[list[Figures]]:
            async with AsyncExitStack() as stack:
                ours = await stack.enter_async_context(over_http(url, key, most))
                theirs = await stack.enter_async_context(over_http(other.url, key, most))
                name = identify(args).pinned
                sides = [
                    Side("through the gateway", "bench", ours, lambda: cpu_seconds(process)),
                    Side("vLLM's own server", name, theirs, other.cpu),
                ]
                if engine:
                    here = await stack.enter_async_context(engine_here(args))
                    sides.append(Side("engine, in the process", "bench", here, Counter))
                return [await measure(sides, load, turns) for load in loads]

        results = asyncio.run(run())
    for load, figures in zip(loads, results, strict=True):
        _print(load, turns, figures, idle)
    print("idle, CPU ms a second: ", end="")
    print(", ".join(f"{role} {1000 * idle[role] / _IDLE_S:.1f}" for role in ROLES))


def _print(load: Load, turns: int, figures: Sequence[Figures], idle: Counter[str]) -> None:
    how = "streamed" if load.stream else "whole"
    print(f"\n{turns} times {load.requests} {how} requests of {load.tokens} tokens, ", end="")
    print(f"{load.clients} clients; CPU in ms a request; first in ms (median)")
    heads = "".join(f"{role:>11}" for role in ROLES)
    print(f"{'':<22}{'requests/s':>11}{'tokens/s':>10}{'first':>10}{heads}")
    names = ("through the gateway", "vLLM's own server", "engine, in the process")
    for name, row in zip(names, figures, strict=False):
        print(row.row(name, load.tokens))
    ours, theirs = figures[0], figures[1]
    around = ours.cpu_ms(GATEWAY) + ours.cpu_ms(REPLICA)
    share = ours.seconds / _IDLE_S * (idle[GATEWAY] + idle[REPLICA]) / len(ours.whole)
    print(
        f"gateway and replica {around:.1f} ms ({around - 1000 * share:.1f} without idle) ", end=""
    )
    print(f"against {theirs.cpu_ms(GATEWAY):.1f}, ", end="")
    print(f"engine {ours.cpu_ms(ENGINE) / theirs.cpu_ms(ENGINE):.2f} times; ", end="")
    print(
        f"requests/s and tokens/s {ours.requests_per_s / theirs.requests_per_s:.2f} times; ", end=""
    )
    print(f"first token {ours.first_ms - theirs.first_ms:+.1f} ms")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=64, help="in each turn")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--clients", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--whole", action="store_true", help="also ask without streaming")
    parser.add_argument("--engine", action="store_true", help="also ask an engine in the process")
    parser.add_argument("--threads", type=int, default=1, help="of the engine, on all sides")
    parser.add_argument("--hidden", type=int, default=768, help="of the random Llama")
    parser.add_argument("--layers", type=int, default=7, help="of the random Llama")
    parser.add_argument("--start", type=Path, help="only start the engine on this variant")
    options = parser.parse_args()
    if options.start is not None:
        args = VariantArgs(variant=options.start, num_cpus=options.threads)
        asyncio.run(first_token(args))
        return
    loads = [
        Load(options.requests, clients, options.tokens, stream)
        for clients in options.clients
        for stream in ((True, False) if options.whole else (True,))
    ]
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
        compare(args, loads, options.turns, home, options.engine)


if __name__ == "__main__":
    main()
