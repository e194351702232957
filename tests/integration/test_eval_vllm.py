"""Suites on real engines, through the library and through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from ztom.cli.main import app
from ztom.engines.protocol import Engine, GenerationConfig
from ztom.errors import NothingThereError
from ztom.evaluation.metrics.build import build_metric
from ztom.evaluation.metrics.protocol import Case
from ztom.evaluation.runs.cache import AnswerCache
from ztom.evaluation.runs.files import read_runs
from ztom.evaluation.runs.harness import run_suite
from ztom.evaluation.runs.lm_tasks import run_tasks
from ztom.evaluation.runs.models import open_model
from ztom.evaluation.suites.read import load_suite
from ztom.evaluation.suites.suite import Item, Suite, SuiteConfig
from ztom.settings import Settings

QUESTIONS = [f"What does function {n} return?" for n in range(8)]


@pytest.fixture
def llama(llama_chain: list[Path]) -> Path:
    return llama_chain[-1]


@pytest.fixture
def suites(tmp_path: Path) -> Path:
    """A suite that asks once, and a probe that asks five times."""
    root = tmp_path / "suites"
    common = {"version": "1.0.0", "owner": "me", "decode": {"max_new_tokens": 12}}
    task = {"name": "answers", "layer": "task", "metric": "rouge_l"}
    probe = {
        "name": "manners",
        "layer": "behavioural",
        "metric": "checks",
        "repeats": 5,
        "decode": {"max_new_tokens": 12, "temperature": 1.0, "seed": 7},
        "checks": [{"kind": "forbidden", "strings": ["secret"], "personal_data": ["email"]}],
    }
    for settings in (task, probe):
        folder = root / str(settings["name"])
        folder.mkdir(parents=True)
        (folder / "suite.yaml").write_text(yaml.safe_dump(common | settings))
        target = {"target": "It returns the sum."} if settings is task else {}
        lines = [
            json.dumps({"id": f"q{n}", "input": question} | target) + "\n"
            for n, question in enumerate(QUESTIONS)
        ]
        (folder / "items.jsonl").write_text("".join(lines))
    return root


def local_task(folder: Path) -> str:
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps({"q": question}) + "\n" for question in QUESTIONS))
    task = {
        "task": "local_choice",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(folder / "cache")},
        "test_split": "test",
        "doc_to_text": "{{q}}",
        "doc_to_target": 0,
        "doc_to_choice": ["It returns a number.", "zzz"],
        "output_type": "multiple_choice",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (folder / "task.yaml").write_text(yaml.safe_dump(task))
    return str(folder / "task.yaml")


def test_vllm_answers_a_suite_as_it_answers_otherwise(
    llama: Path, vllm_llama: Engine, suites: Path, tmp_path: Path
) -> None:
    """All factors are zero: what answers is the chain's latest checkpoint."""
    model, engine = open_model(str(llama), settings=Settings()).ref, vllm_llama
    with AnswerCache(tmp_path / "answers.db") as cache:
        task = run_suite(engine, load_suite(suites / "answers"), model, cache=cache)
        probe = run_suite(engine, load_suite(suites / "manners"), model, cache=cache)
        again = run_suite(engine, load_suite(suites / "manners"), model, cache=cache)
    fresh = run_suite(engine, load_suite(suites / "manners"), model)
    direct = engine.generate(QUESTIONS, GenerationConfig(max_new_tokens=12))
    tasks = run_tasks(engine, [local_task(tmp_path)], model)
    assert [item.answers[0] for item in task.items] == [each.text for each in direct]
    assert all(item.value is not None for item in task.items)
    assert again.seconds == 0.0
    assert again.items == probe.items == fresh.items
    assert all(item.value == 1.0 for item in probe.items)
    assert any(len(set(item.answers)) > 1 for item in probe.items)
    assert 0.0 <= tasks.tasks[0].metrics["acc,none"] <= 1.0
    assert tasks.tasks[0].n == len(QUESTIONS)


@pytest.mark.parametrize("engine", ["vllm", "torch"])
def test_ztom_eval(llama: Path, suites: Path, tmp_path: Path, engine: str) -> None:
    out = tmp_path / "out"
    options = ["eval", str(llama), "--suite", str(suites), "--out", str(out), "--engine", engine]
    options += ["--dtype", "float32", "--tasks", local_task(tmp_path)]
    if engine == "vllm":  # in a process of its own, which prepares itself
        command = [sys.executable, "-c", "from ztom.cli import main; main()", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        status = done.returncode
    else:
        done = CliRunner().invoke(app, options)
        status = done.exit_code
    assert status == 0, done.stderr
    runs = read_runs(out)
    assert [run.suite.name for run in runs] == ["answers", "manners"]
    assert all(item.value is not None for run in runs for item in run.items)
    assert {run.model.digest for run in runs} == {
        open_model(str(llama), settings=Settings()).ref.digest
    }
    assert json.loads((out / "tasks.json").read_text())["tasks"][0]["name"] == "local_choice"
    assert "manners" in done.stdout
    assert "acc,none" in done.stdout


def test_ztom_eval_says_with_its_status_what_could_not_be_scored(
    llama: Path, suites: Path, tmp_path: Path
) -> None:
    long = {"id": "long", "input": "word " * 1000, "target": "x"}
    with (suites / "answers" / "items.jsonl").open("a") as file:
        file.write(json.dumps(long) + "\n")
    suite = ["--suite", str(suites / "answers"), "--engine", "torch", "--out", str(tmp_path / "o")]
    assert CliRunner().invoke(app, ["eval", str(llama), *suite]).exit_code == 3
    (run,) = read_runs(tmp_path / "o")
    assert [item.value is None for item in run.items] == [False] * len(QUESTIONS) + [True]
    assert "does not fit" in str(run.items[-1].problem)
    done = CliRunner().invoke(app, ["eval", str(tmp_path / "nowhere"), *suite])
    assert isinstance(done.exception, NothingThereError)  # which `ztom` ends with 3 for
    assert "nowhere" in str(done.exception)


def test_similarity_is_a_cosine_never_below_zero() -> None:
    config = SuiteConfig(name="s", version="1.0.0", layer="task", metric="similarity", owner="me")
    answers = ["a small dog", "a little puppy", "", "the national budget of 1997 " * 40_000]
    items = tuple(Item(id=f"{n}", input="q", target="a small dog") for n in range(len(answers)))
    metric = build_metric(Suite(config=config, items=items, digest="0" * 64))
    scored = metric.score([Case(i, "q", (a,)) for i, a in zip(items, answers, strict=True)])
    same, near, *others = (each.value for each in scored)
    assert same == pytest.approx(1.0, abs=1e-6)
    assert near is not None
    assert all(other is not None and 0.0 <= other < near < 1.0 for other in others)
