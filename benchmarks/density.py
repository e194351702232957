"""Many variants of one base on one engine against one variant alone; and the time of a live swap.

    python benchmarks/density.py [--variants 20] [--requests 80] [--clients 8] [--tokens 32]

A random Llama and two LoRA adapters make a chain, and each variant is another blend of it. Three
replicas run one after the other, each in a process of its own, without Ray: one with a single
variant as full weights; one with all of them as adapters on a shared base, the requests going round
among them; and one that holds the chain and swaps its weights between two blends. Memory is what is
resident in the processes of a replica, so most of it on a small model is libraries, once.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from models import make_llama_chain
from safetensors.torch import load_file, save_file

from serve_apps.variants.args import BaseArgs, VariantArgs
from serve_apps.variants.calls import Call
from serve_apps.variants.replica import Replica, SharedReplica, VariantReplica
from ztom.blending.chain import Chain, load_chain
from ztom.blending.chain_file import ChainConfig
from ztom.settings import Settings
from ztom.variants import verify_manifest
from ztom.variants.write import WriteOptions, stage_variant

_RANK = 8
_SWAPS = 10


@dataclass(frozen=True)
class Load:
    """How much is asked for."""

    requests: int
    clients: int
    tokens: int


@dataclass(frozen=True)
class Variant:
    """A written variant, and its digest."""

    folder: str
    digest: str

    def call(self, number: int, load: Load) -> Call:
        """One request; the number keeps prompts apart, so that no cache answers."""
        body = {
            "prompt": f"{number}: how does one open a file and read its lines, one by one?",
            "max_tokens": load.tokens,
            "temperature": 0,
            "ignore_eos": True,
        }
        return Call("completion", body, self.digest, str(number), folder=self.folder)


@dataclass(frozen=True)
class Figures:
    """What came out of one replica."""

    variants: int
    memory_bytes: int
    p50_ms: float
    p95_ms: float
    tokens_per_s: float
    loaded_ms: float = 0.0

    def row(self, name: str) -> str:
        """One line of the table."""
        gib = self.memory_bytes / 2**30
        return (
            f"{name:<26}{self.variants:>9}{gib:>10.2f}{self.variants / gib:>17.2f}"
            f"{self.p50_ms:>10.0f}{self.p95_ms:>10.0f}{self.tokens_per_s:>12.0f}"
        )


async def measure(replica: Replica, variants: Sequence[Variant], load: Load) -> Figures:
    """Run the load, its requests going round among the variants."""
    numbers = iter(range(load.requests))
    latencies: list[float] = []

    async def client() -> None:
        for number in numbers:
            variant = variants[number % len(variants)]
            latencies.append(await _ask(replica, variant.call(number, load)))

    begin = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(load.clients)))
    seconds = time.perf_counter() - begin
    cuts = statistics.quantiles(latencies, n=20)
    return Figures(
        variants=len(variants),
        memory_bytes=(await replica.state()).memory_bytes,
        p50_ms=1000 * cuts[9],
        p95_ms=1000 * cuts[18],
        tokens_per_s=load.requests * load.tokens / seconds,
    )


async def _ask(replica: Replica, call: Call) -> float:
    begin = time.perf_counter()
    answer = await replica.ask(call)
    if answer.status != 200 or answer.digest != call.digest:
        raise SystemExit(f"a request was not answered: {answer}")
    return time.perf_counter() - begin


async def alone(args: VariantArgs, variant: Variant, load: Load) -> Figures:
    """One variant as full weights."""
    replica = await VariantReplica.start(args, on_gpu=torch.cuda.is_available())
    try:
        return await measure(replica, [variant], load)
    finally:
        replica.stop()


async def shared(args: BaseArgs, variants: Sequence[Variant], load: Load) -> Figures:
    """All of them as adapters."""
    replica = await SharedReplica.start(args, on_gpu=torch.cuda.is_available())
    try:
        begin = time.perf_counter()
        for variant in variants:
            await replica.load(variant.digest, Path(variant.folder), None)
        loaded_ms = 1000 * (time.perf_counter() - begin) / len(variants)
        return replace(await measure(replica, variants, load), loaded_ms=loaded_ms)
    finally:
        replica.stop()


async def swapping(args: VariantArgs, folders: Sequence[str]) -> dict[str, float]:
    """Seconds of each of several swaps to and fro, and the memory with the chain held."""
    replica = await VariantReplica.start(args, on_gpu=torch.cuda.is_available())
    seconds = []
    try:
        for folder in itertools.islice(itertools.cycle(folders), _SWAPS):
            seconds.append((await replica.swap(Path(folder), None, 10)).seconds)
        memory = (await replica.state()).memory_bytes
    finally:
        replica.stop()
    return {"median_s": statistics.median(seconds), "worst_s": max(seconds), "memory": memory}


def in_own_process(job: Callable[..., Any], *arguments: Any) -> Any:
    """Run a coroutine function in a fresh process, whose memory is then its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_run, job, arguments).result()


def _run(job: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    result = asyncio.run(job(*arguments))
    gc.collect()  # the engine's remains go while what they need is still there
    return result


def make_chain(folder: Path, *, hidden: int, layers: int) -> Chain:
    """A random Llama and two adapters on all its linear layers."""
    make_llama_chain(
        folder, hidden=hidden, layers=layers, vocabulary=8_000, members=1, dtype=torch.float32
    )
    base = folder / "00"
    members = [base, *(_adapter(base, folder / f"adapter-{number}", number) for number in (0, 1))]
    config = ChainConfig.model_validate({"checkpoints": [str(member) for member in members]})
    return load_chain(config, settings=Settings())


def _adapter(base: Path, folder: Path, seed: int) -> Path:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, weight in load_file(base / "model.safetensors").items():
        if name.endswith("_proj.weight"):
            prefix = f"base_model.model.{name.removesuffix('.weight')}"
            for side, shape in (("A", (_RANK, weight.shape[1])), ("B", (weight.shape[0], _RANK))):
                values = torch.randn(shape, generator=generator) * 0.02
                tensors[f"{prefix}.lora_{side}.weight"] = values
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "r": _RANK,
        "lora_alpha": _RANK,
        "bias": "none",
        "target_modules": sorted({name.split(".")[-3] for name in tensors}),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def write(chain: Chain, folder: Path, number: int, *, adapter: bool) -> Variant:
    """One more blend of the chain."""
    factors = (0.1 + 0.02 * number, -0.3 + 0.03 * number)
    options = WriteOptions(form="adapter" if adapter else "dense")
    destination = folder / f"{options.form}-{number:02d}"
    with stage_variant(chain, factors, destination, options=options) as staged:
        staged.publish()
    return Variant(str(destination), verify_manifest(destination).digest)


def compare(folder: Path, options: argparse.Namespace) -> None:
    """Measure all three and print the table."""
    load = Load(options.requests, options.clients, options.tokens)
    chain = make_chain(folder, hidden=options.hidden, layers=options.layers)
    adapters = [write(chain, folder, n, adapter=True) for n in range(options.variants)]
    dense = [write(chain, folder, n, adapter=False) for n in range(2)]
    how = {"num_cpus": options.threads, "kv_cache_gib": 0.125}
    one = VariantArgs(variant=Path(dense[0].folder), **how)
    base = BaseArgs(
        base=chain.base.reference,
        digest=chain.base.digest,
        max_loras=options.on_device,
        max_cpu_loras=max(options.variants, options.on_device),
        max_lora_rank=2 * _RANK,
        **how,
    )
    single = in_own_process(alone, one, dense[0], load)
    many = in_own_process(shared, base, adapters, load)
    fewer = in_own_process(shared, base, adapters[:1], load)
    swaps = in_own_process(
        swapping, one.model_copy(update={"live_swap": True}), [v.folder for v in dense[::-1]]
    )
    print(f"{load.requests} requests of {load.tokens} tokens from {load.clients} clients")
    print(
        f"{'':<26}{'variants':>9}{'GiB':>10}{'variants a GiB':>17}"
        f"{'p50, ms':>10}{'p95, ms':>10}{'tokens/s':>12}"
    )
    print(single.row("full weights, alone"))
    print(fewer.row("one adapter, on its base"))
    print(many.row("adapters, on one base"))
    each = (many.memory_bytes - fewer.memory_bytes) / max(1, options.variants - 1)
    print(f"each further adapter takes {each / 2**20:.1f} MiB and {many.loaded_ms:.0f} ms to load")
    print(
        f"live swap: {1000 * swaps['median_s']:.0f} ms at the median of {_SWAPS}, "
        f"{1000 * swaps['worst_s']:.0f} ms at worst; the chain held takes "
        f"{(swaps['memory'] - single.memory_bytes) / 2**20:.0f} MiB"
    )
    if options.json:
        print(json.dumps({"alone": asdict(single), "shared": asdict(many), "swap": swaps}))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variants", type=int, default=20)
    parser.add_argument("--requests", type=int, default=80)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1, help="of the engine")
    parser.add_argument("--on-device", type=int, default=8, help="adapters that a batch can mix")
    parser.add_argument("--hidden", type=int, default=256, help="of the random Llama")
    parser.add_argument("--layers", type=int, default=4, help="of the random Llama")
    parser.add_argument("--json", action="store_true", help="the figures once more, as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        compare(Path(scratch), options)


if __name__ == "__main__":
    main()
