"""Strangers who hold connections open, and what others notice of it.

    python benchmarks/attacks.py [--strangers 320] [--clients 64] [--blocks 5] [--seconds 8]

``ztom up`` with HAProxy in front. Clients with an account each ask for a project list and for the
models, in turn; in every other block strangers hold as many connections as they can, each with a
body of which a byte comes each second: to the login, to the registration, to routes that take an
account, and there with a token that is none. Printed are, for each pair of blocks, the medians of
the clients' seconds, attacked and quiet, and their ratio; the median of the ratios; and how many
requests of the clients were not answered with 200. Expected are no lost request, and a ratio below
1.25.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from running import server

from ztom.ledger import Ledger
from ztom.ledger.accounts import NewUser, Scope

PATHS = ("/project", "/v1/models")


@contextlib.contextmanager
def attack(url: str, count: int) -> Iterator[None]:
    """Strangers in a process of their own."""
    address = urlsplit(url)
    program = str(Path(__file__).with_name("strangers.py"))
    command = [sys.executable, "-I", "-S", program, str(address.hostname), str(address.port)]
    process = subprocess.Popen([*command, str(count)])
    try:
        time.sleep(5)  # until all of them are there
        yield
    finally:
        process.terminate()
        process.wait()


async def block(
    url: str, keys: Sequence[str], *, seconds: float, pause_s: float
) -> tuple[float, Counter[str]]:
    """Median seconds of a request, and what came of each, of clients that pause between two."""
    end = time.monotonic() + seconds
    took: list[float] = []
    outcomes: Counter[str] = Counter()

    async def client(number: int, session: aiohttp.ClientSession) -> None:
        headers = {"authorization": f"Bearer {keys[number]}"}
        await asyncio.sleep(pause_s * number / len(keys))
        turn = number
        while time.monotonic() < end:
            turn += 1
            began = time.perf_counter()
            try:
                async with session.get(url + PATHS[turn % 2], headers=headers) as reply:
                    await reply.read()
                    outcomes[str(reply.status)] += 1
            except (aiohttp.ClientError, TimeoutError) as error:
                outcomes[type(error).__name__] += 1
            took.append(time.perf_counter() - began)
            await asyncio.sleep(pause_s)

    timeout = aiohttp.ClientTimeout(total=20)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        await asyncio.gather(*(client(number, session) for number in range(len(keys))))
    return statistics.median(took), outcomes


def make_keys(ledger: Path, count: int) -> list[str]:
    """Accounts with an API key each."""
    keys = []
    with Ledger.open(str(ledger)) as opened:
        for number in range(count):
            name = f"client-{number}"
            new = NewUser(name, f"{name}@example.org", "no password")
            user = opened.accounts.create(new, actor="local:benchmark")
            _, key = opened.accounts.create_key(
                user.id, name=name, scopes=tuple(Scope), project_id=None, actor="local:benchmark"
            )
            keys.append(key)
    return keys


def measure(home: Path, options: argparse.Namespace) -> None:
    """Start the server, attack it, print."""
    with server(home / "data") as (url, _, _):
        keys = make_keys(home / "data" / "ledger.db", options.clients)
        asyncio.run(block(url, keys, seconds=options.seconds, pause_s=options.pause))
        ratios, lost = [], 0
        for _ in range(options.blocks):
            with attack(url, options.strangers):
                attacked, under_attack = asyncio.run(
                    block(url, keys, seconds=options.seconds, pause_s=options.pause)
                )
            time.sleep(2)
            quiet, outcomes = asyncio.run(
                block(url, keys, seconds=options.seconds, pause_s=options.pause)
            )
            ratios.append(attacked / quiet)
            lost += under_attack.total() - under_attack["200"]
            print(
                f"median {attacked * 1000:.1f} ms attacked {dict(under_attack)}, "
                f"{quiet * 1000:.1f} ms quiet {dict(outcomes)}, ratio {ratios[-1]:.2f}",
                flush=True,
            )
    print(
        f"{options.strangers} strangers, {options.clients} clients: median ratio "
        f"{statistics.median(ratios):.2f}, {lost} requests lost under attack"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strangers", type=int, default=320)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8, help="length of a block")
    parser.add_argument("--pause", type=float, default=1, help="seconds between two of a client")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), options)


if __name__ == "__main__":
    main()
