"""CPU seconds of `sentence_similarity` in a search: to load it, and to score a trial.

    python benchmarks/scoring_seconds.py CHAIN [--base TREE] [--trials 8]

CHAIN is the folder of a chain with ``search.jsonl`` and ``holdout.jsonl``, as `ztom demo` makes it.
The answers of a trial are 64 texts of the holdout, of which a third are those of every trial, as in
a search. One thread, so that CPU seconds mean the same on a machine that others use.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    """Measure each tree in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chain", type=Path)
    parser.add_argument("--base", type=Path, help="root of another checkout to compare with")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.chain, options.trials)))
        return
    trees = {"after": Path(__file__).parents[1]}
    if options.base is not None:
        trees = {"before": options.base, **trees}
    found = {}
    for name, tree in trees.items():
        command = [sys.executable, "-W", "ignore", __file__, str(options.chain.absolute())]
        command += ["--child", "--trials", str(options.trials)]
        variables = {**os.environ, "PYTHONPATH": str(tree.absolute()), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, env=variables, cwd=tree, stdout=subprocess.PIPE, text=True, check=True
        )
        found[name] = json.loads(done.stdout.splitlines()[-1])
    for what in ("imported and loaded", "first trial", "a later trial"):
        values = [figures[what] for figures in found.values()]
        ratio = f"{values[0] / values[1]:8.2f} x" if len(values) == 2 else ""
        print(f"{what:22}" + "".join(f"{value:9.3f} s" for value in values) + ratio)
    if len(found) == 2:
        pairs = zip(*(figures["errors"] for figures in found.values()), strict=True)
        print(f"largest difference of an error: {max(abs(a - b) for a, b in pairs):.2g}")


def measure(chain: Path, trials: int) -> dict[str, object]:
    """CPU seconds, in this process."""
    began = time.process_time()
    import tune_search.trial  # noqa: F401 - what a process that scores has imported
    from ztom.scoring.build import build_error
    from ztom.stimuli.files import read_stimuli
    from ztom.stimuli.records import Output

    error = build_error("sentence_similarity")
    if hasattr(error, "warm_up"):
        error.warm_up()
    else:
        error._loaded()
    seconds = [time.process_time() - began]
    stimuli = read_stimuli(chain / "search.jsonl")
    texts = [stimulus.expected for stimulus in read_stimuli(chain / "holdout.jsonl")]
    repeated, errors = len(stimuli) // 3, []
    fresh = len(stimuli) - repeated
    for trial in range(trials):
        start = repeated + trial * fresh
        answers = (texts * (1 + (start + fresh) // len(texts)))[start : start + fresh]
        outputs = [Output(text=text) for text in (*texts[:repeated], *answers)]
        began = time.process_time()
        errors.append(float(error.score(stimuli, outputs).aggregate()[0]))
        seconds.append(time.process_time() - began)
    return {
        "imported and loaded": seconds[0],
        "first trial": seconds[1],
        "a later trial": statistics.median(seconds[2:]),
        "errors": errors,
    }


if __name__ == "__main__":
    main()
