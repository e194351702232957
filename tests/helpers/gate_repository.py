"""A repository with a locked suite, and results on it: what ``ztom gate`` is run in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import yaml
from gate_helpers import make_run

from ztom.evaluation.runs.files import write_run
from ztom.evaluation.runs.results import ItemResult
from ztom.evaluation.suites.lock import lock_suite
from ztom.evaluation.suites.read import load_suite

N = 60


def make_locked(
    root: Path, name: str = "stays", *, targets: Sequence[str] = (), **settings
) -> Path:
    """A frozen suite of one question an item, locked; returns its folder."""
    folder = root / "suites" / name
    folder.mkdir(parents=True)
    usual = {
        "name": name,
        "version": "1.0.0",
        "layer": "frozen",
        "metric": "exact_match",
        "owner": "tests",
        "margin": 0.1,
        "decode": {"max_new_tokens": 6},
    }
    (folder / "suite.yaml").write_text(yaml.safe_dump(usual | settings))
    items = [
        {"id": f"i{n:02}", "input": f"Question {n}?", "target": target}
        for n, target in enumerate(targets or [f"answer {n}" for n in range(N)])
    ]
    (folder / "items.jsonl").write_text("".join(f"{json.dumps(item)}\n" for item in items))
    lock_suite(folder)
    return folder


def make_results(root: Path, who: str, values: Sequence[float | None]) -> Path:
    """Results on every suite of the repository; returns their folder."""
    for folder in sorted((root / "suites").iterdir()):
        run = make_run(load_suite(folder), values, who)
        answered = tuple(_answered(who, item) for item in run.items)
        write_run(run.model_copy(update={"items": answered}), root / who)
    return root / who


def _answered(who: str, item: ItemResult) -> ItemResult:
    return item.model_copy(update={"answers": (f"{who} on {item.id}",)})
