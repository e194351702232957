"""Peak memory of writing a blend of a model of 1 GB or more, against what it may take.

    python benchmarks/write_memory.py [--shard-mib 128]

It may take three output shards and three times the largest tensor, whatever the size of the model.
Measured is the rise of the peak resident memory of a fresh process over what it has after importing
and opening the chain.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

WRITE = """
import json, resource, sys, threading, time
from pathlib import Path
from ztom.blending.chain import load_chain
from ztom.blending.plan import plan_blend
from ztom.settings import Settings
from ztom.variants.write import WriteOptions, stage_variant

chain = load_chain(Path(sys.argv[1]), settings=Settings())
chain.digest
plan = plan_blend(chain, [0.1] * chain.transitions)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.perf_counter()
options = WriteOptions(max_shard_bytes=int(sys.argv[3]))
with stage_variant(chain, [0.1, -0.1], Path(sys.argv[2]), options=options) as staged:
    staged.publish()
print(json.dumps({
    "seconds": time.perf_counter() - started,
    "rise": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024,
    "model": plan.nbytes,
    "largest": max(tensor.nbytes for tensor in plan.tensors),
}))
"""


def main() -> None:
    """Print the figures, in MiB."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shard-mib", type=int, default=128)
    options = parser.parse_args()
    shard = options.shard_mib * 2**20
    with tempfile.TemporaryDirectory() as folder:
        make = (
            "import torch; from pathlib import Path; from models import make_llama_chain;"
            f"make_llama_chain(Path({folder!r}), hidden=1024, layers=16, vocabulary=16000,"
            "members=3, dtype=torch.float32)"
        )
        subprocess.run([sys.executable, "-c", make], check=True, cwd=Path(__file__).parent)
        arguments = [f"{folder}/chain.yaml", f"{folder}/variant", str(shard)]
        done = subprocess.run(
            [sys.executable, "-c", WRITE, *arguments], check=True, capture_output=True, text=True
        )
    found = json.loads(done.stdout)
    allowed = 3 * shard + 3 * found["largest"]
    mib = {key: found[key] / 2**20 for key in ("rise", "model", "largest")}
    print(
        f"model {mib['model']:.0f} MiB, largest tensor {mib['largest']:.0f} MiB, shards of "
        f"{options.shard_mib} MiB: peak rises by {mib['rise']:.0f} MiB of "
        f"{allowed / 2**20:.0f} MiB allowed, written in {found['seconds']:.1f} s"
    )


if __name__ == "__main__":
    main()
