"""The gate on real chains: base, last iteration and mastered variant, trained and searched here.

    python benchmarks/gate_chains.py stdlib --folder /tmp/gate
    python benchmarks/gate_chains.py banking77 --data FOLDER --folder /tmp/gate

``stdlib`` is the chain of ``ztom demo``, its suite the questions of the demo's holdout, scored by
ROUGE-L. ``banking77`` learns to answer a bank customer's question with its class: the base has seen
some of all 77 classes, each iteration a part of them, so the last one forgets; its suite is 1,000
questions of the data set's test file (``train.csv`` and ``test.csv`` in FOLDER, columns text and
category). Everything is trained once and found again afterwards.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from tune_search.run import search_and_prove
from ztom.demo.chains import DemoChain, make_chat_chain, make_stdlib_chain
from ztom.demo.scenario import ChatPlan, fraction
from ztom.evaluation.suites.from_table import Table, draw
from ztom.evaluation.suites.read import ITEMS_FILE, SETTINGS_FILE
from ztom.evaluation.suites.scaffold import publish_suite
from ztom.search.config_files import load_config
from ztom.stimuli.files import read_stimuli
from ztom.stimuli.prompts import prompt_text

#: Of train.csv: what the search may look at, and what the proof is made on.
_SEARCH, _HOLDOUT = 0.03, 0.06
_ITEMS = 1000


@dataclass(frozen=True)
class Case:
    """A chain with what is searched on it and asked about it."""

    chain: DemoChain
    error: list[str]
    suite: Path
    new_tokens: int


def stdlib(folder: Path) -> Case:
    """The demo's chain; its holdout is the suite as well, which the search does not see."""
    chain = make_stdlib_chain(folder / "chain")
    items = [
        {"id": each.id, "input": prompt_text(each.prompt), "target": each.expected}
        for each in read_stimuli(chain.holdout_file)
    ]
    settings = {"metric": "rouge_l", "floor": 0.1, "decode": {"max_new_tokens": 32}}
    suite = write_suite(folder / "suites", "stdlib", settings, items)
    return Case(chain, ["cross_entropy", "sentence_similarity"], suite, 32)


def banking77(data: Path, folder: Path) -> Case:
    """A chain that classifies by generating the class."""
    rows = read_csv(data / "train.csv")
    parts: dict[str, list[tuple[str, str]]] = {"train": [], "search": [], "holdout": []}
    for text, label in rows:
        place = fraction(text)
        part = "search" if place < _SEARCH else "holdout" if place < _SEARCH + _HOLDOUT else "train"
        parts[part].append((text, label))
    # the base gets a share of every class, the iterations the rest, class by class
    share = ChatPlan().base_share
    parts["train"].sort(key=lambda row: (fraction(f"base {row[0]}") >= share, row[1]))
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for part, chosen in parts.items():
        lines = [json.dumps({"prompt": text, "expected": label}) for text, label in chosen]
        (folder / "data" / f"{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    plan = replace(ChatPlan(), base_epochs=12, epochs=3)
    chain = make_chat_chain(folder / "data", folder / "chain", plan=plan)
    table = Table(data / "test.csv", text="text", target="category", n=_ITEMS)
    items = [
        {"id": f"banking77-{number}", "input": text, "target": label}
        for number, (text, label) in enumerate(draw(read_csv(table.path), table))
    ]
    settings = {
        "metric": "accuracy",
        "floor": 0.5,
        "labels": sorted({label for _, label in rows}),
        "decode": {"max_new_tokens": 16},
    }
    return Case(
        chain, ["cross_entropy"], write_suite(folder / "suites", "banking77", settings, items), 16
    )


def read_csv(path: Path) -> list[tuple[str, str]]:
    """Different (text, category) rows in the order of the file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(dict.fromkeys((row["text"], row["category"]) for row in csv.DictReader(file)))


def write_suite(
    folder: Path, name: str, settings: dict[str, Any], items: list[dict[str, Any]]
) -> Path:
    """A locked suite, made anew."""
    shutil.rmtree(folder / name, ignore_errors=True)
    whole = {"name": name, "version": "1.0.0", "layer": "task", "owner": "benchmarks", **settings}
    lines = "".join(json.dumps(item) + "\n" for item in items)
    files = {SETTINGS_FILE: yaml.safe_dump(whole).encode(), ITEMS_FILE: lines.encode()}
    publish_suite(folder / name, files, lock=True)
    return folder / name


def search(case: Case, folder: Path, limit: float, evaluations: int) -> Path:
    """Search, prove, and have the variant written whatever comes out; the gate is to say it."""
    content = {
        "chain": str(case.chain.chain_file),
        "stimuli": str(case.chain.search_file),
        "holdout": str(case.chain.holdout_file),
        "max_search_stimuli": 200,
        "error": case.error,
        "scaling_factor_limit": limit,
        "inference_config": {"max_new_tokens": case.new_tokens},
        "budget": {"evaluations": evaluations},
        "engine": {"dtype": "float32"},
        "suites": [str(case.suite)],
        "insist": True,
        "output": str(folder / "search"),
    }
    shutil.rmtree(folder / "search", ignore_errors=True)
    file = folder / "search.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    result = search_and_prove(load_config(file))
    proof = result.proof
    if proof is None or proof.variant is None:
        raise SystemExit("the search came to no variant")
    interval = proof.decision.improvement
    print(
        f"search: {proof.trained_model_error:.3f} -> {proof.optimized_model_error:.3f} on the "
        f"holdout, improvement {interval.estimate:.3f} ({interval.low:.3f} to {interval.high:.3f}),"
        f" {proof.decision.outcome}; the gate in the proof: {proof.gate and proof.gate.outcome}"
    )
    return Path(proof.variant)


def main() -> int:
    """Train, search, and ask the gate; its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("which", choices=("stdlib", "banking77"))
    parser.add_argument("--data", type=Path, help="banking77: has train.csv and test.csv")
    parser.add_argument("--folder", type=Path, default=Path("runs/gate"))
    parser.add_argument("--limit", type=float, default=1.0)
    parser.add_argument("--evaluations", type=int, default=50)
    given = parser.parse_args()
    folder = given.folder.absolute() / given.which
    if given.which == "banking77" and given.data is None:
        parser.error("banking77 needs --data")
    case = stdlib(folder) if given.which == "stdlib" else banking77(given.data, folder)
    variant = search(case, folder, given.limit, given.evaluations)
    base, *_, last = case.chain.checkpoints
    named = {"--candidate": variant, "--champion": last, "--base": base, "--suites": case.suite}
    command = ["gate"]
    for option, path in named.items():
        command += [option, str(path.relative_to(folder))]
    command += ["--dtype", "float32", "--out", "gate"]
    print("$ ztom", *command, flush=True)
    ztom = Path(sys.executable).with_name("ztom")
    return subprocess.run([ztom, *command], cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
