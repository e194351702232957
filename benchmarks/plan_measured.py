"""What `ztom plan` computes for this machine's CPU, beside what an engine takes here.

    python benchmarks/plan_measured.py [--chain chain.yaml] [--stimuli 32] [--tokens 32]

Without a chain it is one of 77 M parameters with random weights; the demo's is `chain.yaml` in the
folder that ``ztom demo`` keeps. The plan is an upper bound on speed by the bandwidth of memory,
which is measured first as a copy: a measured time below the planned one is a fault of the plan.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from models import make_llama_chain

from ztom.blending.chain import Chain, load_chain
from ztom.engines.build import build_engine
from ztom.engines.config import EngineConfig
from ztom.engines.machine_plan import TrialWork, chain_size, plan_machine
from ztom.engines.machines import Machine
from ztom.engines.protocol import GenerationConfig
from ztom.io.memory import memory_limit
from ztom.settings import Settings

_COPY_BYTES = 2**29
_REPEATS = 5


def copy_bandwidth() -> float:
    """Bytes a second that a copy reads and writes, of the fastest of several."""
    source = torch.ones(_COPY_BYTES, dtype=torch.uint8)
    target = torch.zeros_like(source)
    seconds = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        target.copy_(source)
        seconds.append(time.perf_counter() - started)
    return 2 * _COPY_BYTES / min(seconds)


def measure(chain: Chain, *, stimuli: int, tokens: int) -> tuple[float, float]:
    """Median seconds of a blend, and of generating, by the default engine."""
    engine = build_engine(EngineConfig(), chain)
    prompts = [f"a few words to have a tokenizer for a benchmark {i}" for i in range(stimuli)]
    generation = GenerationConfig(max_new_tokens=tokens)
    blends, answers = [], []
    for number in range(_REPEATS):
        blends.append(engine.blend([0.01 * (number + 1)] * chain.transitions).seconds)
        began = time.perf_counter()
        engine.generate(prompts, generation)
        answers.append(time.perf_counter() - began)
    engine.close()
    return statistics.median(blends), statistics.median(answers)


def main() -> None:
    """Print planned and measured seconds, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chain", type=Path)
    parser.add_argument("--stimuli", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = options.chain or make_llama_chain(
            Path(folder), hidden=768, layers=7, vocabulary=14_000, members=5, dtype=torch.float32
        )
        chain = load_chain(file, settings=Settings())
        bandwidth = copy_bandwidth()
        machine = Machine("this machine", None, 0, memory_limit().total, bandwidth)
        work = TrialWork(options.stimuli, options.tokens)
        plan = plan_machine(chain_size(chain), machine, work)
        blend_s, answer_s = measure(chain, stimuli=options.stimuli, tokens=options.tokens)
    row = plan.best
    if row is None or row.blend_s is None or row.trial_s is None:
        raise SystemExit(f"the chain does not fit into {machine.memory / 1e9:.3g} GB")
    planned = {"blend": row.blend_s, "answer": row.trial_s - row.blend_s, "trial": row.trial_s}
    measured = {"blend": blend_s, "answer": answer_s, "trial": blend_s + answer_s}
    print(f"{bandwidth / 1e9:.1f} GB/s; checkpoints in {row.placement}, {plan.dtype}")
    for name, seconds in planned.items():
        ratio = measured[name] / seconds
        print(
            f"{name}: planned {seconds:.3g} s, measured {measured[name]:.3g} s, ratio {ratio:.2f}"
        )


if __name__ == "__main__":
    main()
