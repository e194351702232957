"""Minutes at twice what a server can do: what it answers, and whether its memory grows.

    pip install locust
    python benchmarks/overload.py [--minutes 10] [--locust PATH]

A tiny Llama behind the gateway, its queue short. First its capacity is measured, by clients that
wait for their answers; then `locust` sends twice as many requests a second, whatever is answered.
Expected are 200 and 429, nothing else, and memory that stays where it is after the first minute.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import aiohttp
import psutil
from running import blend, deploy, make_chain, server

from ztom.client import Client

OPTIONS = {
    "kv_cache_gib": 0.1,
    "num_cpus": 1,
    "max_ongoing_requests": 16,
    "max_queued_requests": 16,
    "target_ongoing_requests": 8,
}
MIB = 2**20


async def capacity(url: str, key: str, *, clients: int, seconds: float) -> float:
    """Requests a second of clients that wait for their answers."""
    body = {"model": "bench", "prompt": "a few words", "max_tokens": 16}
    headers = {"authorization": f"Bearer {key}"}
    done = 0
    end = time.monotonic() + seconds

    async def ask(session: aiohttp.ClientSession) -> None:
        nonlocal done
        while time.monotonic() < end:
            async with session.post("/v1/completions", json=body) as reply:
                reply.raise_for_status()
                await reply.read()
                done += 1

    async with aiohttp.ClientSession(url, headers=headers) as session:
        await asyncio.gather(*(ask(session) for _ in range(clients)))
    return done / seconds


def held(process: int) -> float:
    """MiB of every process of a server that it shares with nobody."""
    total = 0
    for each in [psutil.Process(process), *psutil.Process(process).children(recursive=True)]:
        try:
            memory = each.memory_info()
        except psutil.Error:
            continue
        total += memory.rss - memory.shared
    return total / MIB


def run_locust(program: str, url: str, key: str, *, users: int, minutes: float, home: Path) -> Path:
    """Start the load and wait for its end; the file with its counts."""
    command = [program, "--headless", "--only-summary", "--host", url, "--csv", str(home / "load")]
    command += ["--users", str(users), "--spawn-rate", str(users)]
    command += ["--run-time", f"{minutes * 60:.0f}s", "--exit-code-on-error", "0"]
    command += ["--locustfile", str(Path(__file__).with_name("locustfile.py"))]
    environment = {**os.environ, "ZTOM_API_KEY": key, "ZTOM_MODEL": "bench"}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return home / "load_stats.csv"


def overload(home: Path, *, minutes: float, program: str) -> None:
    """Measure and print."""
    chain = make_chain(home / "variants" / "chain", hidden=128, layers=4, vocabulary=4_000)
    folder = blend(chain, (0.1, 0.1), home / "variants" / "bench")
    roots = f'pointer_roots=["{folder.parent}"]'
    with server(home / "data", settings=[roots]) as (url, key, process):
        with Client(url, key=key) as client:
            deploy(client, "bench", folder, now=True, options=OPTIONS)
        asyncio.run(capacity(url, key, clients=16, seconds=10))
        rate = asyncio.run(capacity(url, key, clients=16, seconds=20))
        users = max(1, round(2 * rate))
        print(f"capacity {rate:.0f} requests/s; {users} are sent for {minutes:g} min", flush=True)
        loads = [run_locust(program, url, key, users=users, minutes=1, home=home)]
        before = held(process)
        loads.append(
            run_locust(program, url, key, users=users, minutes=max(0.1, minutes - 1), home=home)
        )
        after = held(process)
    print(f"memory after the first minute {before:.0f} MiB, at the end {after:.0f} MiB")
    with loads[-1].open() as file:
        for row in csv.DictReader(file):
            if row["Name"] != "Aggregated":
                kind = "429" if row["Name"] == "429" else "200"
                print(
                    f"{kind}: {row['Request Count']} answers, {row['Failure Count']} failures, "
                    f"median {row['Median Response Time']} ms, 95 % below {row['95%']} ms"
                )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--locust", default=shutil.which("locust"), help="the program")
    options = parser.parse_args()
    if options.locust is None:
        parser.error("there is no locust: pip install locust, or give --locust")
    with tempfile.TemporaryDirectory() as name:
        overload(Path(name), minutes=options.minutes, program=options.locust)


if __name__ == "__main__":
    main()
