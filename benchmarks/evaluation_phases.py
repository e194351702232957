"""Seconds of one evaluation by phase, for a chain of 77 M parameters on the vLLM engine.

    python benchmarks/evaluation_phases.py [--stimuli 32] [--tokens 32]

The weights are random, so the answers mean nothing; the time does.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from models import make_llama_chain

from ztom.blending.chain import load_chain
from ztom.engines.build import build_engine
from ztom.engines.config import EngineConfig
from ztom.engines.protocol import GenerationConfig
from ztom.engines.respond import respond
from ztom.scoring.build import build_error
from ztom.settings import Settings
from ztom.stimuli.records import Stimulus


def main() -> None:
    """Print medians over a few evaluations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stimuli", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--evaluations", type=int, default=5)
    options = parser.parse_args()
    words = "a few words to have a tokenizer for a benchmark"
    stimuli = [Stimulus(str(i), f"{words} {i}", words, str(i)) for i in range(options.stimuli)]
    error = build_error(["cross_entropy", "rouge_l"])
    generation = GenerationConfig(max_new_tokens=options.tokens)
    with tempfile.TemporaryDirectory() as folder:
        file = make_llama_chain(
            Path(folder), hidden=768, layers=7, vocabulary=14_000, members=5, dtype=torch.float32
        )
        chain = load_chain(file, settings=Settings())
        started = time.perf_counter()
        engine = build_engine(EngineConfig(dtype="float32"), chain)
        start_s = time.perf_counter() - started
        phases: dict[str, list[float]] = {"blend": [], "generate": [], "score": []}
        for number in range(options.evaluations):
            stats = engine.blend([0.01 * (number + 1)] * chain.transitions)
            began = time.perf_counter()
            outputs = respond(engine, stimuli, needs=error.needs, generation=generation)
            answered = time.perf_counter()
            error.score(stimuli, outputs).aggregate()
            phases["blend"].append(stats.seconds)
            phases["generate"].append(answered - began)
            phases["score"].append(time.perf_counter() - answered)
        engine.close()
    parameters = stats.bytes_written // 4
    print(
        f"{parameters / 1e6:.0f} M parameters, {chain.transitions} transitions, "
        f"{options.stimuli} stimuli, {options.tokens} new tokens: start {start_s:.1f} s; "
        + ", ".join(f"{name} {statistics.median(s):.2f} s" for name, s in phases.items())
        + f"; {(stats.bytes_read + stats.bytes_written) / 2**20:.0f} MiB moved by a blend"
    )


if __name__ == "__main__":
    main()
