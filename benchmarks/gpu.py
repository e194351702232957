"""What a GPU does: the blend, held chains, batches, and a whole search's evaluations. Unattended.

    python benchmarks/gpu.py --out gpu.json              # 10 minutes at most; needs a CUDA device
    python benchmarks/gpu.py --dry-run                   # the same steps in small, on a CPU

It needs torch and transformers, not vLLM: everything runs on the torch engine. What is measured:

kernel       GB/s of a blend of five checkpoints, step by step, in the fused kernel, and of a copy
held         seconds of a blend of the whole model, checkpoints on the device, in pinned host memory
             and in files
batches      tokens a second of generation by the number of prompts in a batch
protocol     five checkpoints of a Llama of 1.2 B parameters with random weights, 4 factors, 55
             evaluations of 10 prompts with 100 new tokens each: the setting in which the original
             product took 90 s on a card that its description does not name

Weights are random, so answers mean nothing; the time does. A step that would begin after the limit
is left out and named.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import transformers
import yaml

from ztom.blending.apply import blend_tensor, fused_kernel
from ztom.blending.chain import Chain, load_chain
from ztom.blending.plan import DenseTerm, TensorPlan
from ztom.checkpoints.tensors import TensorSpec
from ztom.demo.model import ModelSize, train_tokenizer
from ztom.engines.config import EngineConfig
from ztom.engines.pristine import HeldChain
from ztom.engines.protocol import GenerationConfig
from ztom.engines.torch_engine import TorchEngine
from ztom.settings import Settings

#: Seconds of the original product's search, by its own description.
ORIGINAL_S = 90.0
MEMBERS = 5
WORDS = "a few words to have a tokenizer for a benchmark"


@dataclass(frozen=True, slots=True)
class Size:
    """How large everything is.

    Attributes:
        elements: Elements of the tensor that the kernel blends.
        hidden: Hidden size of the model.
        layers: Its layers.
        vocabulary: Its tokens.
        prompts: Prompts of an evaluation.
        new_tokens: Tokens of an answer.
        evaluations: Evaluations of the protocol.
        batches: Prompts in a batch, for the tokens a second.
        repeats: Times that what is short is measured.
    """

    elements: int = 2**28
    hidden: int = 2048
    layers: int = 16
    vocabulary: int = 128_256
    prompts: int = 10
    new_tokens: int = 100
    evaluations: int = 55
    batches: tuple[int, ...] = (1, 10, 64, 256)
    repeats: int = 9


SMALL = Size(2**16, 64, 2, 600, 3, 5, 4, (1, 4), 2)


def synchronised(device: torch.device, call: Callable[[], object], repeats: int) -> float:
    """Seconds of a call, the median of several, after one that is not counted."""
    seconds = []
    for number in range(repeats + 1):
        _wait(device)
        began = time.perf_counter()
        call()
        _wait(device)
        if number:
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_kernel(device: torch.device, size: Size) -> dict[str, Any]:
    """GB/s of a blend, by dtype: steps, fused kernel, and a copy of as many bytes."""
    rows = {}
    for dtype in (torch.bfloat16, torch.float32):
        sources = [torch.randn(size.elements, device=device).to(dtype) for _ in range(MEMBERS)]
        specs = [
            TensorSpec(str(i), dtype, (size.elements,), "", 0, s.nbytes)
            for i, s in enumerate(sources)
        ]
        terms = tuple(DenseTerm(i, spec, 0.3 + 0.1 * i) for i, spec in enumerate(specs))
        plan = TensorPlan("tensor", (size.elements,), dtype, terms)

        def read(
            member: int,
            _: TensorSpec,
            start: int,
            end: int,
            sources: list[torch.Tensor] = sources,
        ) -> torch.Tensor:
            return sources[member][start:end]

        out = torch.empty(size.elements, dtype=dtype, device=device)

        def blend(
            plan: TensorPlan = plan, out: torch.Tensor = out, read: Any = read
        ) -> torch.Tensor:
            return blend_tensor(plan, read, device=device, out=out)

        moved = (MEMBERS + 1) * out.nbytes
        block = torch.empty(moved // 2, dtype=torch.uint8, device=device)
        target = torch.empty_like(block)
        copy_s = synchronised(device, lambda t=target, b=block: t.copy_(b), size.repeats)
        del block, target
        with mock.patch("ztom.blending.apply.fused_kernel", return_value=None):
            steps_s = synchronised(device, blend, size.repeats)
            steps = blend().clone()
        row = {"copy_gb_s": moved / copy_s / 1e9, "steps_gb_s": moved / steps_s / 1e9}
        if fused_kernel(device) is not None:
            row["fused_gb_s"] = moved / synchronised(device, blend, size.repeats) / 1e9
            row["fused_gives_the_same_bits"] = torch.equal(blend(), steps)
        rows[str(dtype).removeprefix("torch.")] = row
        del sources, out, steps
    return rows


def make_chain(folder: Path, size: Size, dtype: torch.dtype) -> Chain:
    """Five Llamas in the shape of a 1 B model, random, each a step from the one before it."""
    tokenizer = train_tokenizer([WORDS] * 4, ModelSize())
    heads = max(1, size.hidden // 64)
    config = transformers.LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=4 * size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 4),
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=None,  # every answer has all its tokens
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with device:
        model = transformers.LlamaForCausalLM(config).to(dtype)
    names = [f"{position:02d}" for position in range(MEMBERS)]
    for name in names:
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 1e-3)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    del model
    (folder / "chain.yaml").write_text(yaml.safe_dump({"checkpoints": names}))
    return load_chain(folder / "chain.yaml", settings=Settings())


def measure_held(chain: Chain, device: torch.device, dtype: torch.dtype, size: Size) -> Any:
    """Seconds to hold the chain, and of one blend of the whole model, by placement."""
    rows = {}
    places = ("device", "host", "file") if device.type == "cuda" else ("host", "file")
    for place in places:
        began = time.perf_counter()
        held = HeldChain(chain, device=device, dtype=dtype, placement=place)
        held_s = time.perf_counter() - began
        plan = held.plan([0.05] * chain.transitions)

        def blend(held: HeldChain = held, plan: Any = plan) -> None:
            for _ in held.blend(plan):
                pass

        repeats = 1 if place == "file" else min(3, size.repeats)
        rows[place] = {
            "hold_s": held_s,
            "blend_s": synchronised(device, blend, repeats),
            "gib_read": held.bytes_read / 2**30,
        }
        del held, blend
        _collect()
    return rows


def measure_batches(engine: TorchEngine, size: Size) -> dict[str, float]:
    """Tokens a second by the number of prompts in a batch."""
    rows = {}
    for count in size.batches:
        prompts = [f"{WORDS} {i}" for i in range(count)]
        generation = GenerationConfig(max_new_tokens=size.new_tokens)
        engine.generate(prompts[:1], GenerationConfig(max_new_tokens=2))
        began = time.perf_counter()
        done = engine.generate(prompts, generation)
        seconds = time.perf_counter() - began
        rows[str(count)] = sum(completion.tokens for completion in done) / seconds
    return rows


def run_protocol(engine: TorchEngine, chain: Chain, size: Size, start_s: float) -> dict[str, Any]:
    """The evaluations of a whole search: blend, generate, likelihood of the expected answers."""
    prompts = [f"{WORDS} {i}" for i in range(size.prompts)]
    generation = GenerationConfig(max_new_tokens=size.new_tokens)
    factors = torch.rand(
        (size.evaluations, chain.transitions), generator=torch.Generator().manual_seed(0)
    )
    phases = {"blend": 0.0, "generate": 0.0, "likelihood": 0.0}
    began = time.perf_counter()
    for row in (0.2 * factors - 0.1).tolist():
        marks = [time.perf_counter()]
        engine.blend(row)
        marks.append(time.perf_counter())
        engine.generate(prompts, generation)
        marks.append(time.perf_counter())
        engine.log_probs(prompts, [WORDS] * len(prompts))
        marks.append(time.perf_counter())
        for name, first, last in zip(phases, marks[:-1], marks[1:], strict=True):
            phases[name] += last - first
    seconds = time.perf_counter() - began
    row = {
        "evaluations": size.evaluations,
        "start_s": start_s,
        "evaluations_s": seconds,
        "seconds": start_s + seconds,
        "phases_s": phases,
    }
    if size == Size():  # in small it says nothing
        row |= {"original_s": ORIGINAL_S, "times_faster": ORIGINAL_S / (start_s + seconds)}
    return row


def describe(device: torch.device) -> dict[str, Any]:
    """The card and the versions."""
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else platform.processor() or "CPU",
        "memory_gib": torch.cuda.get_device_properties(device).total_memory / 2**30
        if cuda
        else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "transformers": transformers.__version__,
    }


def _collect() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def measure(size: Size, device: torch.device, *, limit_s: float, folder: Path) -> dict[str, Any]:
    """Everything, as long as there is time."""
    began = time.perf_counter()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    document: dict[str, Any] = {**describe(device), "left_out": []}
    state: dict[str, Any] = {}

    def step(name: str, call: Callable[[], Any]) -> None:
        if time.perf_counter() - began > limit_s:
            document["left_out"].append(name)
            return
        print(f"{name} ...", flush=True)
        started = time.perf_counter()
        document[name] = call()
        print(f"  {time.perf_counter() - started:.1f} s", flush=True)
        _collect()

    def chain() -> dict[str, float]:
        state["chain"] = make_chain(folder, size, dtype)
        tensors = state["chain"].reference.tensors.values()
        return {"parameters": float(sum(spec.count for spec in tensors))}

    def engine() -> dict[str, float]:
        started = time.perf_counter()
        state["engine"] = TorchEngine(
            EngineConfig(name="torch", max_num_seqs=max(size.batches)),
            folder / "04",
            state["chain"],
        )
        state["start_s"] = time.perf_counter() - started
        return {"start_s": state["start_s"]}

    step("kernel", lambda: measure_kernel(device, size))
    step("chain", chain)
    if "chain" in state:
        step("engine", engine)
    if "engine" in state:
        step(
            "protocol",
            lambda: run_protocol(state["engine"], state["chain"], size, state["start_s"]),
        )
        step("batches", lambda: measure_batches(state["engine"], size))
        state.pop("engine").close()
        _collect()
    if "chain" in state:
        step("held", lambda: measure_held(state["chain"], device, dtype, size))
    return document


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="small sizes, on the CPU")
    parser.add_argument("--limit-s", type=float, default=480.0, help="begin nothing after this")
    parser.add_argument("--out", type=Path, help="write what was measured here, as JSON")
    options = parser.parse_args()
    if not options.dry_run and not torch.cuda.is_available():
        print("there is no CUDA device: --dry-run runs the same steps in small", file=sys.stderr)
        return 1
    transformers.utils.logging.disable_progress_bar()
    device = torch.device("cpu" if options.dry_run else "cuda")
    with tempfile.TemporaryDirectory() as folder:
        document = measure(
            SMALL if options.dry_run else Size(),
            device,
            limit_s=options.limit_s,
            folder=Path(folder),
        )
    document["dry_run"] = options.dry_run
    text = json.dumps(document, indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")
    rows = document.get("kernel", {}).values()
    same = [row.get("fused_gives_the_same_bits", True) for row in rows]
    return int(not all(same))


if __name__ == "__main__":
    sys.exit(main())
