"""A server for a benchmark, in processes of its own, and variants for it to serve."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from models import make_llama_chain

from ztom.blending.chain import Chain, load_chain
from ztom.blending.chain_file import ChainConfig
from ztom.client import Client
from ztom.ledger import Ledger
from ztom.ledger.accounts import NewUser, Scope
from ztom.ledger.passwords import hash_password
from ztom.settings import Settings
from ztom.variants.write import stage_variant

USER, PASSWORD = "bench", "only for the benchmark"


def create_account(ledger: str) -> str:
    """An administrator on a ledger; returns an API key of theirs, good for everything."""
    with Ledger.open(ledger) as opened:
        new = NewUser(USER, "bench@example.org", hash_password(PASSWORD), is_admin=True)
        user = opened.accounts.create(new, actor="local:benchmark")
        _, key = opened.accounts.create_key(
            user.id, name="bench", scopes=tuple(Scope), project_id=None, actor="local:benchmark"
        )
    return key


@contextlib.contextmanager
def server(
    data: Path, *, ledger: str | None = None, settings: Sequence[str] = ()
) -> Iterator[tuple[str, str, int]]:
    """``ztom up``; its address, an API key of an administrator, and its process."""
    data.mkdir(parents=True, exist_ok=True)
    address = ledger or str(data / "ledger.db")
    key = create_account(address)
    command = [str(Path(sys.executable).with_name("ztom")), "up", "--data", str(data)]
    command += ["--port", "0", "--ledger", address]
    for setting in settings:
        command += ["--set", setting]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = next(line.split()[-1] for line in process.stdout if "serves at" in line)
            yield url, key, process.pid
        finally:
            process.terminate()
            process.wait(60)


def make_chain(folder: Path, *, hidden: int, layers: int, vocabulary: int | None = 8_000) -> Chain:
    """Three Llamas with random weights."""
    make_llama_chain(
        folder,
        hidden=hidden,
        layers=layers,
        vocabulary=vocabulary,
        members=3,
        dtype=torch.float32,
    )
    members = [str(path) for path in sorted(folder.glob("0*"))]
    config = ChainConfig.model_validate({"checkpoints": members})
    return load_chain(config, settings=Settings())


def blend(chain: Chain, factors: Sequence[float], folder: Path) -> Path:
    """A variant of the chain."""
    with stage_variant(chain, factors, folder) as staged:
        staged.publish()
    return folder


def deploy(client: Client, alias: str, folder: Path, **wishes: object) -> float:
    """Deploy a variant, wait until it has its traffic; the seconds that it took."""
    began = time.perf_counter()
    record = client.endpoints.deploy(alias, path=folder, name=folder.name, insist=True, **wishes)
    while True:
        found = client.endpoints.deployment(record.digest)
        if found.state == "failed":
            raise SystemExit(f"{folder} does not run: {found.reason}")
        if found.state == "ready" and found.intent is None:
            return time.perf_counter() - began
        time.sleep(0.1)
