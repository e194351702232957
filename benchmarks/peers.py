"""One evaluation beside that of peers, in one run: same chain, same prompts, same factors.

    python benchmarks/peers.py [--sizes small,large] [--evaluations 5] [--peers ours,torch,...]

An evaluation blends, generates 32 tokens for each prompt, scores the expected answers, and compares
the texts by MiniLM where the workload says so. The peers take turns, so that what else the machine
does hits all of them; each is a process of its own, in an environment of its own, that loads once
and stays. All must get the same error to four digits, or the benchmark fails.

peers: ours (the engine in process, vLLM), plain torch in place (one batch), mergekit to disk +
transformers, mergekit to disk + vLLM, mergekit's in-memory plan + transformers, and the original's
way (in place, a prompt at a time).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from peer_chains import Workload, large, small
from peer_environments import python_of

WORKERS = Path(__file__).resolve().parent / "peer_workers"
#: Phases in the order of an evaluation; ours asks for text and probabilities together.
PHASES = ("blend", "load", "generate", "likelihood", "answer", "score")


@dataclass(frozen=True, slots=True)
class Peer:
    """A way of evaluating a blend.

    Attributes:
        title: How the table calls it.
        environment: Key of `peer_environments.ENVIRONMENTS`; None is this one.
        script: Script of `peer_workers` and its arguments.
        second: Script that goes on from the folder that the first one has written; its environment.
        every: It takes part in every so many rounds (what is slow takes part in fewer).
    """

    title: str
    environment: str | None
    script: tuple[str, ...]
    second: tuple[str, str] | None = None
    every: int = 1


PEERS = {
    "ours": Peer("ours, engine in process", None, ("ours.py",)),
    "torch": Peer("plain torch in place, one batch", "torch", ("torch_loop.py", "1024")),
    "disk": Peer("mergekit to disk + transformers", "mergekit", ("mergekit_loop.py", "disk")),
    "memory": Peer("mergekit in memory + transformers", "mergekit", ("mergekit_loop.py", "memory")),
    "vllm": Peer(
        "mergekit to disk + vLLM",
        "mergekit",
        ("mergekit_loop.py", "merge"),
        ("vllm", "vllm_loop.py"),
        2,
    ),
    "original": Peer(
        "the original's way, a prompt at a time", "torch", ("torch_loop.py", "1"), every=2
    ),
}


class Process:
    """A peer's process; one line goes in, one comes out.

    Args:
        python: Interpreter of its environment.
        script: Script of `peer_workers` and its arguments; the task is put before them.
        task: File of the task.
    """

    def __init__(self, python: str, script: Sequence[str], task: Path) -> None:
        began = time.perf_counter()
        command = [python, str(WORKERS / script[0]), str(task), *script[1:]]
        environment = {**os.environ, "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
        if python == sys.executable:
            del environment["OMP_NUM_THREADS"]  # ours has its defaults
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log(task, script),
            text=True,
            bufsize=1,
            env=environment,
        )
        self._script = script
        self._read()
        self.start_s = time.perf_counter() - began

    def ask(self, **line: object) -> dict[str, Any]:
        """Evaluate; ends the benchmark where the peer has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        return self._read()

    def close(self) -> None:
        """End of the input, and of the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            log = self._log_file.read_text(encoding="utf-8", errors="replace")
            raise SystemExit(f"{' '.join(self._script)} has ended:\n{log[-3000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _log(self, task: Path, script: Sequence[str]) -> Any:
        self._log_file = task.with_name("-".join(script) + ".log")
        return self._log_file.open("w", encoding="utf-8")


class Contestant:
    """A peer at work on a task: one process, or two that follow each other.

    Args:
        peer: The peer.
        task: File of the task.
        cache: Folder of the environments.
        given: Interpreters of environments that are there already, by key.
    """

    def __init__(
        self, peer: Peer, task: Path, cache: Path, given: Mapping[str, Path] | None = None
    ) -> None:
        python = sys.executable
        if peer.environment is not None:
            python = str(python_of(peer.environment, cache, given))
        self._first = Process(python, peer.script, task)
        self._second: Process | None = None
        if peer.second is not None:
            environment, script = peer.second
            second = str(python_of(environment, cache, given))
            self._second = Process(second, (script,), task)
        self.start_s = self._first.start_s + (self._second.start_s if self._second else 0.0)

    def evaluate(self, factors: Sequence[float]) -> dict[str, Any]:
        """Phases, CPU seconds, errors and texts of one evaluation."""
        answer = self._first.ask(factors=list(factors))
        if self._second is None:
            return answer
        rest = self._second.ask(folder=answer["folder"])
        rest["phases"] = answer["phases"] | rest["phases"]
        rest["cpu_s"] += answer["cpu_s"]
        return rest

    def close(self) -> None:
        """End its processes."""
        for process in (self._first, self._second):
            if process is not None:
                process.close()


@dataclass
class Row:
    """What was measured of a peer.

    Attributes:
        start_s: Seconds until it could evaluate.
        phases: Seconds by phase, one number an evaluation.
        totals: Seconds of all phases, one number an evaluation.
        cpu: CPU seconds, one number an evaluation.
    """

    start_s: float
    phases: dict[str, list[float]] = field(default_factory=dict)
    totals: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, answer: dict[str, Any]) -> None:
        """Note one evaluation."""
        for name, seconds in answer["phases"].items():
            self.phases.setdefault(name, []).append(seconds)
        self.totals.append(sum(answer["phases"].values()))
        self.cpu.append(answer["cpu_s"])

    def summary(self) -> dict[str, Any]:
        """Medians."""
        return {
            "start_s": round(self.start_s, 2),
            "evaluations": len(self.totals),
            "seconds": round(statistics.median(self.totals), 4),
            "fastest_s": round(min(self.totals), 4),
            "cpu_s": round(statistics.median(self.cpu), 4),
            "phases": {
                name: round(statistics.median(self.phases[name]), 4)
                for name in PHASES
                if name in self.phases
            },
        }


def compare(
    workload: Workload,
    names: Sequence[str],
    *,
    evaluations: int,
    cache: Path,
    scratch: Path,
    given: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """Let the peers take turns; returns a document with a row each.

    Args:
        workload: Chain and prompts.
        names: Keys of `PEERS`.
        evaluations: Rounds that are measured, after one that is not.
        cache: Folder of the environments.
        scratch: Folder for logs and merged models.
        given: Interpreters of environments that are there already, by key.
    """
    task = workload.write_task(scratch / "task.json", scratch)
    contestants = {name: Contestant(PEERS[name], task, cache, given) for name in names}
    rows = {name: Row(contestant.start_s) for name, contestant in contestants.items()}
    print(f"started: {', '.join(contestants)}", file=sys.stderr)
    random = np.random.default_rng(0)
    worst, equal_texts = 0.0, 1.0
    for number in range(evaluations + 1):
        steps = len(workload.checkpoints) - 1
        factors = (random.uniform(-1.0, 0.2, steps) * workload.spread).tolist()
        first: dict[str, Any] | None = None
        for name, contestant in contestants.items():
            if number % PEERS[name].every:
                continue
            answer = contestant.evaluate(factors)
            total = sum(answer["phases"].values())
            print(f"{number} {name}: {total:.2f} s, {_error(answer):.6f}", file=sys.stderr)
            if number:
                rows[name].add(answer)
            first = first or answer
            worst = max(worst, abs(_error(answer) - _error(first)) / abs(_error(first)))
            pairs = zip(answer["texts"], first["texts"], strict=True)
            equal_texts = min(equal_texts, float(np.mean([a == b for a, b in pairs])))
    for contestant in contestants.values():
        contestant.close()
    return {
        "workload": workload.name,
        "peers": {name: row.summary() for name, row in rows.items()},
        "largest_relative_difference_of_errors": worst,
        "least_share_of_equal_texts": equal_texts,
    }


def _error(answer: dict[str, Any]) -> float:
    return float(answer["cross_entropy"]) + float(answer["similarity"] or 0.0)


def print_table(document: dict[str, Any]) -> None:
    """The comparison as a table of Markdown."""
    rows = document["peers"]
    base = next(iter(rows.values()))["seconds"]
    print(f"\n| {document['workload']} | seconds | ratio | CPU s | start s | phases |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, row in rows.items():
        phases = ", ".join(f"{phase} {seconds:.3f}" for phase, seconds in row["phases"].items())
        print(
            f"| {PEERS[name].title} | {row['seconds']:.3f} | {row['seconds'] / base:.2f} | "
            f"{row['cpu_s']:.2f} | {row['start_s']:.1f} | {phases} |"
        )
    print(
        f"errors differ by {document['largest_relative_difference_of_errors']:.1e} at most, "
        f"{document['least_share_of_equal_texts']:.0%} of the texts at least are equal"
    )


def main() -> int:
    """Print the tables, write the JSON; the exit status says whether errors agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="small,large")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--evaluations", type=int, default=6)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "ztom-peers")
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="an interpreter that has the packages already, e.g. vllm=.venv/bin/python",
    )
    parser.add_argument("--out", type=Path, help="write what was measured here, as JSON")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    given = {name: Path(path) for name, _, path in (p.partition("=") for p in options.python)}
    documents = []
    for size in options.sizes.split(","):
        workload = {"small": small, "large": large}[size](options.cache)
        with tempfile.TemporaryDirectory(prefix="peers-", dir=options.cache) as scratch:
            document = compare(
                workload,
                options.peers.split(","),
                evaluations=options.evaluations,
                cache=options.cache,
                scratch=Path(scratch),
                given=given,
            )
        print_table(document)
        documents.append(document)
    if options.out is not None:
        options.out.write_text(json.dumps(documents, indent=2) + "\n", encoding="utf-8")
    worst = max(d["largest_relative_difference_of_errors"] for d in documents)
    return int(worst > 1e-4)


if __name__ == "__main__":
    sys.exit(main())
