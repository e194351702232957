"""Public tasks of lm-evaluation-harness on our engines."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml
from scripted_engine import MODEL, ScriptedEngine, echo

from ztom.errors import CapabilityError, EngineError, EvaluationError
from ztom.evaluation.runs.lm_tasks import run_tasks


def write_task(folder: Path, name: str, **settings: Any) -> str:
    rows = [
        {"question": f"question {n}", "answer": f"question {n}", "choices": ["wrong", "right"]}
        for n in range(4)
    ]
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(folder / "cache")},
        "test_split": "test",
        "doc_to_text": "{{question}}",
        **settings,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(task))
    return str(path)


def generate_task(folder: Path, **generation: Any) -> str:
    metric = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
    return write_task(
        folder,
        "local_generate",
        doc_to_target="{{answer}}",
        output_type="generate_until",
        generation_kwargs={"until": ["\n"], "max_gen_toks": 7, "do_sample": False} | generation,
        metric_list=[metric],
    )


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.usefixtures("offline")
def test_tasks_of_lm_eval_run_from_local_files(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda prompt, _: prompt if "3" not in prompt else "else")
    choice = write_task(
        tmp_path,
        "local_choice",
        doc_to_target=1,
        doc_to_choice="choices",
        output_type="multiple_choice",
        metric_list=[{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    )
    run = run_tasks(engine, [generate_task(tmp_path), choice], MODEL, batch_size=3)
    generated, chosen = run.tasks
    assert generated.name == "local_generate"
    assert generated.metrics["exact_match,none"] == 0.75
    assert chosen.metrics["acc,none"] == 1.0
    assert (generated.n, chosen.n) == (4, 4)
    config = engine.asked[0][1]
    assert (config.max_new_tokens, config.stop, config.temperature) == (7, ("\n",), 0.0)
    assert [len(prompts) for prompts, _ in engine.asked] == [3, 1]


@pytest.mark.usefixtures("offline")
def test_what_engines_cannot_do_is_refused_by_name(tmp_path: Path) -> None:
    engine = ScriptedEngine(echo)
    rolling = write_task(
        tmp_path,
        "rolling",
        doc_to_target="{{answer}}",
        output_type="loglikelihood_rolling",
        metric_list=[{"metric": "word_perplexity"}],
    )
    with pytest.raises(CapabilityError, match="perplexity of whole documents"):
        run_tasks(engine, [rolling], MODEL)
    with pytest.raises(CapabilityError, match="num_beams"):
        run_tasks(engine, [generate_task(tmp_path, num_beams=4)], MODEL)


@pytest.mark.usefixtures("offline")
def test_greedy_matches_are_found_by_generating(tmp_path: Path) -> None:
    task = write_task(
        tmp_path,
        "last_word",
        doc_to_target="{{choices[0]}}",
        output_type="loglikelihood",
        metric_list=[{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    )
    wrong = run_tasks(ScriptedEngine(lambda *_: "else"), [task], MODEL)
    right = run_tasks(ScriptedEngine(lambda *_: " wrong"), [task], MODEL)
    assert wrong.tasks[0].metrics["acc,none"] == 0.0
    assert right.tasks[0].metrics["acc,none"] == 1.0


def test_a_failing_engine_ends_the_tasks(tmp_path: Path) -> None:
    def broken(*_: object) -> NoReturn:
        raise EngineError("gone")

    with pytest.raises(EngineError, match="gone"):
        run_tasks(ScriptedEngine(broken), [generate_task(tmp_path)], MODEL)


@pytest.mark.parametrize("text", ["- a list", "task: x\noutput_type: nonsense", "{"])
def test_a_task_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(text)
    with pytest.raises(EvaluationError):
        run_tasks(ScriptedEngine(echo), [str(path)], MODEL)
    with pytest.raises(EvaluationError):
        run_tasks(ScriptedEngine(echo), [str(tmp_path / "absent.yaml")], MODEL)


def test_lm_eval_is_not_imported_before_something_is_asked() -> None:
    code = (
        "import sys; import ztom.cli.main, ztom.evaluation.runs.harness\n"
        "import ztom.evaluation.runs.lm_tasks\n"
        "assert not {'lm_eval', 'datasets', 'torch'} & set(sys.modules), 'slow start'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
