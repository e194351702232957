"""Where the seconds of a search go: the demo's chain, on the default engine, by phases.

    python benchmarks/search_seconds.py CHAIN [--base TREE] [--set KEY=VALUE ...] [--rounds 1]

CHAIN is the folder of a chain with ``search.jsonl`` and ``holdout.jsonl`` beside ``chain.yaml``, as
`ztom demo` makes it. With ``--base``, the root of another checkout (``git worktree add``), both
trees search in turn, on the same machine, and the ratios are printed as well. Seconds of a machine
that others use too vary by half; CPU seconds (of the process and all its children) do so less.

The search alone is measured, without its proof: start (process, libraries, Ray, engine), the first
trial, the others, and what is left.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

#: What one run prints, in this order.
FIELDS = (
    ("libraries", "process start and imports"),
    ("ray", "chain and data read, Ray started"),
    ("engine", "the engine's start"),
    ("first", "the first trial, from the engine on"),
    ("start_to_first", "start to the end of the first trial"),
    ("others", "the other trials"),
    ("each", "of these, one trial"),
    ("blend", "blend, all trials"),
    ("generate", "generate and likelihood, all trials"),
    ("score", "score, all trials"),
    ("sampler", "sampler"),
    ("overhead", "overhead: none of the above"),
    ("total", "total, the processes' start included"),
    ("cpu", "CPU seconds"),
)


def main() -> None:
    """Run the search in each tree and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chain", type=Path, help="folder of the chain and its stimuli")
    parser.add_argument("--base", type=Path, help="root of another checkout to compare with")
    parser.add_argument("--evaluations", type=int, default=50)
    parser.add_argument("--limit", type=float, default=1.0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file that the figures are written to")
    parser.add_argument("--child", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        print(json.dumps(_search(options.chain, options.set, began=options.child)))
        return
    trees = {"after": Path(__file__).parents[1]}
    if options.base is not None:
        trees = {"before": options.base, **trees}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in trees}
    with tempfile.TemporaryDirectory(prefix="zs") as folder:
        for number in range(options.rounds):
            for name, tree in trees.items():
                file = _configuration(options, Path(folder) / f"{name}-{number}")
                # what the other tree does not know is not set there
                sets = options.set if name == "after" else []
                runs[name].append(_run(tree, file, sets))
    _report(runs)
    if options.json is not None:
        options.json.write_text(json.dumps(runs, indent=2) + "\n", encoding="utf-8")


def _configuration(options: argparse.Namespace, folder: Path) -> Path:
    """The demo's search, as a file."""
    folder.mkdir()
    chain = options.chain.absolute()
    content = {
        "name": "seconds",
        "chain": str(chain / "chain.yaml"),
        "stimuli": str(chain / "search.jsonl"),
        "holdout": str(chain / "holdout.jsonl"),
        "error": [
            {"function": "cross_entropy", "weight": 1.0},
            {"function": "sentence_similarity", "weight": 1.0},
        ],
        "scaling_factor_limit": options.limit,
        "inference_config": {"max_new_tokens": 32},
        "budget": {"evaluations": options.evaluations},
        "engine": {"dtype": "float32"},
        "output": str(folder / "out"),
    }
    file = folder / "search.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def _run(tree: Path, file: Path, sets: Sequence[str]) -> dict[str, Any]:
    """One search in a process of its own."""
    command = [sys.executable, __file__, str(file), "--child", str(time.monotonic())]
    for value in sets:
        command += ["--set", value]
    variables = {**os.environ, "PYTHONPATH": str(tree.absolute()), "RAY_USAGE_STATS_ENABLED": "0"}
    load = os.getloadavg()[0]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=tree, env=variables
    ) as process:
        meter = _CpuMeter(process.pid)
        output, _ = process.communicate()
        cpu = meter.stop()
    if process.returncode:
        raise SystemExit(f"the search in {tree} failed")
    return {**json.loads(output.splitlines()[-1]), "cpu": cpu, "load": load}


class _CpuMeter:
    """CPU seconds of a process and everything that it starts, looked at now and then.

    Args:
        pid: Id of the process.
    """

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._seconds: dict[tuple[int, float], float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.25):
            try:
                processes = [self._root, *self._root.children(recursive=True)]
            except psutil.Error:
                return
            for process in processes:
                try:
                    times = process.cpu_times()
                    key = (process.pid, process.create_time())
                except psutil.Error:
                    continue
                self._seconds[key] = times.user + times.system

    def stop(self) -> float:
        """The seconds up to now."""
        self._over.set()
        self._thread.join()
        return sum(self._seconds.values())


def _search(file: Path, sets: Sequence[str], *, began: float) -> dict[str, Any]:
    """In the process of the search: run it, note when what happened."""
    from ztom.search.config_files import load_config

    config = load_config(file, list(sets))
    from tune_search.preparation import prepare
    from tune_search.session import ray_for_search
    from tune_search.study import run_search

    marks = {"libraries": time.monotonic()}
    ends: list[float] = []

    def take(event: object) -> None:
        kind = type(event).__name__
        if kind == "TrialEnded":
            ends.append(time.monotonic())
        else:
            marks.setdefault(kind, time.monotonic())

    inputs = prepare(config)
    with ray_for_search(config.engine.replicas):
        outcome = run_search(config, inputs=inputs.study, on_event=take)
        ended = time.monotonic()
    shutil.rmtree(config.output, ignore_errors=True)
    seconds = outcome.seconds
    ready = marks["EnginesReady"]
    return {
        "libraries": marks["libraries"] - began,
        "ray": marks["StudyStarted"] - marks["libraries"],
        "engine": ready - marks["StudyStarted"],
        "first": ends[0] - ready,
        "start_to_first": ends[0] - began,
        "others": ends[-1] - ends[0],
        "each": (ends[-1] - ends[0]) / (len(ends) - 1),
        **{phase: seconds[phase] for phase in ("blend", "generate", "score", "sampler")},
        "overhead": seconds["overhead"],
        "total": ended - began,
        "trials": len(ends),
        "errors": [trial.outcome.error for trial in outcome.trials],
        "trained": outcome.trained_model_error,
        "optimized": outcome.optimized_model_error,
        "noise": outcome.noise_floor,
        "factors": list(outcome.optimized_scaling_factors),
        "stop": outcome.stop_reason,
    }


def _report(runs: dict[str, list[dict[str, Any]]]) -> None:
    names = list(runs)
    print(f"{'median of ' + str(len(runs[names[0]])):44}" + "".join(f"{n:>10}" for n in names))
    for field, what in FIELDS:
        values = [statistics.median(run[field] for run in runs[name]) for name in names]
        ratio = f"{values[0] / values[1]:9.2f} x" if len(values) == 2 and values[1] else ""
        print(f"{what:44}" + "".join(f"{value:10.3f}" for value in values) + ratio)
    for name in names:
        last = runs[name][-1]
        print(
            f"{name}: {last['trials']} trials, ended by {last['stop']}; error {last['trained']:.6f}"
            f" -> {last['optimized']:.6f}, noise floor {last['noise']:.2g}; factors "
            + " ".join(f"{factor:+.3f}" for factor in last["factors"])
            + f"; load before {last['load']:.1f}"
        )
    if len(names) == 2:
        before, after = (runs[name][-1]["errors"] for name in names)
        pairs = list(zip(before, after, strict=False))
        same = sum(a == b for a, b in pairs)
        worst = max(abs(a - b) for a, b in pairs if a is not None and b is not None)
        print(
            f"errors: {same} of {len(pairs)} the same bit for bit, largest difference {worst:.3g}"
        )


if __name__ == "__main__":
    main()
