"""What running a suite costs beyond the model: CPU time per item.

    python benchmarks/eval_overhead.py [--items 1000] [--metrics exact_match,checks,...]

The engine answers at once, so everything measured is ours: prompts, keys, the cache, scoring and
results. CPU time counts this process and the children in which a user's metric and the checks run.
The aim is 5 CPU ms an item or less.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ztom.evaluation.runs.cache import AnswerCache
from ztom.evaluation.runs.harness import RunOptions, run_suite
from ztom.evaluation.runs.results import ModelRef
from ztom.evaluation.suites.suite import Item, Suite, SuiteConfig
from ztom.testing.fake_engine import FakeEngine

AIM_MS = 5.0
METRICS = ("exact_match", "macro_f1", "rouge_l", "span_f1", "checks", "user")
WORDS = "the quick brown fox jumps over the lazy dog while the band plays on "


def one(prompts: Sequence[str], answers: Sequence[str], targets: Sequence[str]) -> list[float]:
    """The user's metric of this benchmark."""
    return [1.0] * len(answers)


def make_suite(metric: str, count: int) -> Suite:
    """A suite of one metric; prompts and answers of about 100 words."""
    settings: dict[str, object] = {"name": metric, "version": "1.0.0", "owner": "benchmark"}
    settings |= {"metric": metric, "layer": "task", "decode": {"max_new_tokens": 200}}
    if metric == "checks":
        forbidden = {"kind": "forbidden", "strings": ["secret"], "personal_data": ["email", "iban"]}
        settings |= {"layer": "behavioural", "checks": [forbidden]}
    if metric == "user":
        settings["function"] = "eval_overhead:one"
    targets = {"span_f1": ["dog"], "checks": None, "macro_f1": "dog"}
    items = [
        Item(id=f"i{n}", input=f"{n} {WORDS * 7}", target=targets.get(metric, f"{n} {WORDS * 7}"))
        for n in range(count)
    ]
    if metric == "macro_f1":
        settings["labels"] = ["dog", "cat"]
    return Suite(config=SuiteConfig.model_validate(settings), items=tuple(items), digest="0" * 64)


def cpu_s() -> float:
    """CPU seconds of this process and of children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def measure(suite: Suite, folder: Path) -> tuple[float, float, float]:
    """CPU ms an item of a run, of a run whose answers are known, and of the engine alone."""
    engine = FakeEngine(1, optimum=(0.0,))
    began = cpu_s()
    engine.generate([str(item.input) for item in suite.items], suite.config.decode)
    model = cpu_s() - began
    spent = []
    paths = [str(Path(__file__).parent)]
    with AnswerCache(folder / f"{suite.config.name}.db") as cache:
        for _ in range(2):
            began = cpu_s()
            reference = ModelRef(name="benchmark", digest="0" * 64)
            options = RunOptions(import_paths=paths)
            run = run_suite(engine, suite, reference, cache=cache, options=options)
            if any(item.value is None for item in run.items):
                raise SystemExit(f"not scored: {run.items[0].problem}")
            spent.append(cpu_s() - began)
    per_item = 1000.0 / len(suite.items)
    return (spent[0] - model) * per_item, spent[1] * per_item, model * per_item


def main() -> int:
    """Print a line per metric; the exit status is 1 where the aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--metrics", default=",".join(METRICS))
    options = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for metric in options.metrics.split(","):
            fresh, known, model = measure(make_suite(metric, options.items), Path(folder))
            worst = max(worst, fresh)
            print(
                f"{metric:12} {options.items} items: {fresh:.2f} CPU ms an item beyond the model "
                f"({model:.2f}), {known:.2f} where every answer is known",
                flush=True,
            )
    return int(worst > AIM_MS)


if __name__ == "__main__":
    sys.exit(main())
