"""Let the gate decide whether a blend ships in place of the last iteration.

    python examples/gate.py

The suite is made here; ``ztom suite new`` makes one to begin with, ``ztom suite from-csv`` one of a
table.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

import ztom
from ztom.demo.toy import make_toy_chain
from ztom.evaluation.suites.lock import lock_suite

ENGINE = {"name": "torch", "max_num_seqs": 32}  # vllm is the default, and batches better


def make_suite(folder: Path, stimuli: Path) -> Path:
    """A suite of the toy's questions: may the answers' overlap with the targets get worse?"""
    folder.mkdir(parents=True)
    settings = {
        "name": "toy-questions",
        "version": "1.0.0",
        "layer": "task",
        "metric": "rouge_l",
        "margin": 0.05,  # so much worse would still ship
        "owner": "examples",
        "decode": {"max_new_tokens": 12},
    }
    (folder / "suite.yaml").write_text(yaml.safe_dump(settings))
    rows = [json.loads(line) for line in stimuli.read_text().splitlines()]
    items = [
        {"id": f"q{number:03}", "input": row["prompt"], "target": row["expected"]}
        for number, row in enumerate(rows)
    ]
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    lock_suite(folder)
    return folder


def main(folder: Path) -> None:
    """Judge a blend without most of the last step against the last iteration."""
    toy = make_toy_chain(folder / "toy")
    suite = make_suite(folder / "suite", toy.holdout_file)
    variant = ztom.blend(ztom.load_chain(toy.chain_file), [0.0, -1.0], folder / "variant")

    candidate = ztom.evaluate(variant, suite, engine=ENGINE, use_cache=False)
    champion = ztom.evaluate(toy.checkpoints[-1], suite, engine=ENGINE, use_cache=False)
    verdict = ztom.decide(candidate, champion, suite)

    # Nothing but a pass is a pass: `ztom gate` ends with 0 for it, with 1 or 2 for the others.
    print(f"{verdict.outcome}, exit status {verdict.exit_code}")
    for reason in verdict.reasons:
        print(f"- {reason}")


if __name__ == "__main__":
    with TemporaryDirectory() as name:
        main(Path(name))
