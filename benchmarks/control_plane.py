"""The server: requests a second, audit appends a second, uploads; on SQLite and on PostgreSQL.

``GET /project/{id}`` goes through everything that a user's call goes through: HAProxy, Ray Serve,
token, membership, ledger. An upload is compared with a plain copy of the same file, flushed to the
disk as the upload is, and the memory of every process of the server is watched while it arrives.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import postgres
from running import PASSWORD, USER, server

from ztom.ledger import AuditEvent, Ledger

MIB = 2**20


def audit_appends(address: str, *, seconds: float) -> float:
    """Rows a second of one writer."""
    event = AuditEvent(actor="a", action="variant.blend", subject="variant:x", after="d" * 64)
    with Ledger.open(address) as ledger:
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            ledger.audit.append(event)
            count += 1
        return count / (time.perf_counter() - began)


def logged_in(url: str) -> httpx.Client:
    """A client with a token."""
    client = httpx.Client(base_url=url, timeout=600)
    body = {"username": USER, "password": PASSWORD}
    client.headers["Authorization"] = f"Bearer {client.post('/api/auth/login', json=body).text}"
    return client


def requests_a_second(url: str, *, clients: int, seconds: float) -> tuple[float, list[float]]:
    """Of ``GET /project/{id}``, and the seconds of each."""
    with contextlib.closing(logged_in(url)) as first:
        project = first.post("/project", json={"name": "bench"}).json()["id"]
        headers = dict(first.headers)
    taken: list[float] = []
    end = time.perf_counter() + seconds

    def ask() -> None:
        with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
            while (began := time.perf_counter()) < end:
                assert client.get(f"/project/{project}").status_code == 200
                taken.append(time.perf_counter() - began)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(taken) / seconds, sorted(taken)


def upload(url: str, process: int, file: Path) -> tuple[float, float]:
    """MiB a second, and MiB by which the server's memory rises."""
    family = [psutil.Process(process), *psutil.Process(process).children(recursive=True)]

    def held() -> int:
        total = 0
        for each in family:
            with contextlib.suppress(psutil.Error):
                memory = each.memory_info()
                total += memory.rss - memory.shared
        return total

    base, peak, done = held(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, held())

    watcher = threading.Thread(target=watch)
    with contextlib.closing(logged_in(url)) as client, file.open("rb") as content:
        project = client.post("/project", json={"name": "upload"}).json()["id"]
        watcher.start()
        began = time.perf_counter()
        answer = client.post(
            "/project/file",
            data={"projectId": project, "format": "HF_TEXT_GENERATION"},
            files={"file": (file.name, content)},
        )
        seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    assert answer.status_code == 201, answer.text
    return file.stat().st_size / MIB / seconds, (peak - base) / MIB


def copied(file: Path, target: Path) -> float:
    """MiB a second of a plain copy that reaches the disk."""
    began = time.perf_counter()
    shutil.copyfile(file, target)
    with target.open("rb") as written:
        os.fsync(written.fileno())
    seconds = time.perf_counter() - began
    target.unlink()
    return file.stat().st_size / MIB / seconds


def make_checkpoint(folder: Path, mib: int) -> Path:
    """A tar of so many MiB."""
    import tarfile

    import torch
    from safetensors.torch import save_file
    from toys import make_plain_chain

    path = make_plain_chain(folder / "c", members=1)[0]
    layers = max(1, mib // 16)
    tensors = {f"model.layers.{i}.w.weight": torch.randn(2048, 2048) for i in range(layers)}
    tensors["model.embed_tokens.weight"] = torch.randn(16, 8)
    save_file(tensors, path / "model.safetensors")
    with tarfile.open(folder / "c.tar", "w") as archive:
        for each in sorted(path.iterdir()):
            archive.add(each, arcname=each.name)
    shutil.rmtree(folder / "c")
    return folder / "c.tar"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--mib", type=int, default=2048)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        home = Path(name)
        kinds = {"SQLite": lambda n: str(home / f"{n}.db")}
        if postgres.program("initdb"):
            base = stack.enter_context(postgres.server())
            kinds["PostgreSQL"] = lambda n: postgres.new_database(base)
        for kind, address in kinds.items():
            rate = audit_appends(address("audit"), seconds=options.seconds / 2)
            print(f"{kind:<10}  {rate:7.0f} audit appends/s, one writer", flush=True)
            with server(home / kind, ledger=address("server")) as (url, _, process):
                rate, taken = requests_a_second(
                    url, clients=options.clients, seconds=options.seconds
                )
                middle, tail = statistics.median(taken), taken[int(0.95 * len(taken))]
                print(
                    f"{kind:<10}  {rate:7.0f} GET /project/{{id}} a second, {options.clients} "
                    f"clients; median {middle * 1e3:.1f} ms, 95 % below {tail * 1e3:.1f} ms",
                    flush=True,
                )
                if kind != "SQLite":
                    continue
                file = make_checkpoint(home, options.mib)
                plain = copied(file, home / "copy")
                sent, rise = upload(url, process, file)
                print(
                    f"upload of {file.stat().st_size / MIB:.0f} MiB: {sent:.0f} MiB/s against "
                    f"{plain:.0f} MiB/s of a copy, ratio {sent / plain:.2f}; memory of the server "
                    f"rises by {rise:.0f} MiB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
