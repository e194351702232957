"""Requests per second and time to first token: through Ray Serve against the same engine directly.

    python benchmarks/serve.py [--variant FOLDER] [--requests 96] [--clients 8] [--tokens 32]

Both sides get the same streamed completions at temperature 0, after a warm-up, from the same number
of concurrent clients. Directly, a client is a coroutine beside the engine's own async interface and
OpenAI layer; through Serve it is an HTTP connection on the loopback interface, and the client's own
work runs on the same cores. Without a variant, a random Llama is made for the occasion.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import torch
from models import make_llama_chain

from serve_apps.variants.args import VariantArgs
from serve_apps.variants.environment import prepare_environment
from serve_apps.variants.identity import identify
from serve_apps.variants.launch import serve_variant
from serve_apps.variants.wire import Reply
from ztom.variants.manifest import MANIFEST, build_manifest

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
            f"{name:<18}{self.requests_per_s:>12.2f}{self.first_token_ms:>18.1f}"
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


async def directly(args: VariantArgs, load: Load) -> Figures:
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
        return await measure(ask, identity.name, load)
    finally:
        engine.stop()


async def over_http(api_base: str, model: str, load: Load) -> Figures:
    """The served variant."""
    limits = httpx.Limits(max_connections=load.clients)
    async with httpx.AsyncClient(timeout=300, limits=limits) as client:

        async def ask(body: dict[str, Any]) -> AsyncIterator[str]:
            async with client.stream("POST", f"{api_base}/completions", json=body) as reply:
                reply.raise_for_status()
                async for line in reply.aiter_lines():
                    yield line

        return await measure(ask, model, load)


def random_variant(folder: Path, *, hidden: int, layers: int) -> Path:
    """A Llama of the given size with random weights, as a variant."""
    make_llama_chain(
        folder, hidden=hidden, layers=layers, vocabulary=8_000, members=1, dtype=torch.float32
    )
    variant = folder / "00"
    (variant / MANIFEST).write_bytes(build_manifest(variant).to_bytes())
    return variant


def compare(args: VariantArgs, load: Load) -> None:
    """Measure both and print the table."""
    direct = asyncio.run(directly(args, load))
    gc.collect()  # the engine's remains go while what they need is still there
    with serve_variant(args, port=0, blocking=False) as served:
        through = asyncio.run(over_http(served.api_base, served.models[0], load))
    print(f"{load.requests} requests of {load.tokens} tokens from {load.clients} clients")
    print(f"{'':<18}{'requests/s':>12}{'first token, ms':>18}{'whole, ms':>16}   (medians)")
    print(direct.row("engine, directly"))
    print(through.row("through Serve"))
    ratio = through.requests_per_s / direct.requests_per_s
    delay = through.first_token_ms - direct.first_token_ms
    print(f"Serve keeps {ratio:.0%} of the requests/s and adds {delay:.1f} ms to the first token")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", type=Path, help="a written variant; else a random Llama")
    parser.add_argument("--requests", type=int, default=96)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1, help="of the engine, on both sides")
    parser.add_argument("--hidden", type=int, default=256, help="of the random Llama")
    parser.add_argument("--layers", type=int, default=4, help="of the random Llama")
    options = parser.parse_args()
    load = Load(options.requests, options.clients, options.tokens)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.variant or random_variant(
            Path(scratch) / "random", hidden=options.hidden, layers=options.layers
        )
        compare(VariantArgs(variant=folder, num_cpus=options.threads), load)


if __name__ == "__main__":
    main()
