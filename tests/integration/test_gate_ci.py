"""The workflow that ``ztom gate --ci`` writes, run step by step in an example repository.

Actions (`uses:`) and the installation are left out: the package under test is installed already.
That the lines of the installation install it is what ``.ci/check-install.py`` runs, in minutes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from gate_helpers import right
from gate_repository import N, make_locked, make_results
from toys import make_chain

from ztom.engines.build import build_single
from ztom.engines.config import EngineConfig
from ztom.engines.protocol import GenerationConfig
from ztom.evaluation.gate.verdict import Verdict

BIN = Path(sys.executable).parent


def bash(command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A step as GitHub runs it."""
    usual = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-e", "-c", command],
        cwd=folder,
        env=usual | {"PATH": path} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def steps_of(repository: Path, system: str) -> list[str]:
    """The commands of the job, in order, without the installation."""
    if system == "github":
        workflow: Any = yaml.safe_load((repository / ".github/workflows/ztom-gate.yml").read_text())
        assert "pull_request" in workflow[True]  # YAML 1.1 reads `on` as true
        steps = [step["run"] for step in workflow["jobs"]["gate"]["steps"] if "run" in step]
    else:
        job = yaml.safe_load((repository / ".gitlab-ci.yml").read_text())["ztom-gate"]
        steps = [*job["before_script"], *job["script"]]
    first = steps.index("ztom suite check suites\n")
    lines = [line for step in steps[:first] for line in step.splitlines()]
    place = ".github" if system == "github" else ".gitlab"
    assert lines == [
        f'python -m pip install --constraint {place}/ztom-constraints.txt "$ZTOM"',
        "ztom doctor --fix",
    ]
    assert (repository / place / "ztom-constraints.txt").is_file()
    return steps[first:]


def run_job(repository: Path, system: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The job: the first step that fails ends it."""
    for step in steps_of(repository, system):
        done = bash(step, repository, **variables)
        if done.returncode != 0:
            break
    return done


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    make_locked(tmp_path)
    make_results(tmp_path, "champion", right(N))
    make_results(tmp_path, "candidate", right(N))
    return tmp_path


@pytest.mark.parametrize("system", ["github", "gitlab"])
def test_the_job_fails_unless_the_gate_passes(repository: Path, system: str) -> None:
    results = "--candidate-run candidate --champion-run champion"
    made = bash(f"ztom gate --ci {system} {results}", repository)
    assert made.returncode == 0, made.stderr
    report = repository / "gate-report"
    summary = repository / "summary.md"
    variables = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    passed = run_job(repository, system, **(variables if system == "github" else {}))
    assert passed.returncode == 0, passed.stdout + passed.stderr
    assert (report / "junit.xml").exists()
    assert summary.exists() == (system == "github")
    shutil.rmtree(repository / "candidate")
    make_results(repository, "candidate", right(N, wrong=range(30)))
    failed = run_job(repository, system)
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert (report / "verdict.html").exists()
    shutil.rmtree(repository / "candidate")
    make_results(repository, "candidate", [None, *right(N - 1)])
    assert run_job(repository, system).returncode == 2
    with (repository / "suites/stays/items.jsonl").open("a") as file:
        file.write('{"id": "new", "input": "x", "target": "y"}\n')
    changed = run_job(repository, system)
    assert changed.returncode == 1
    assert "added: new" in changed.stdout
    shutil.rmtree(repository / "suites")
    assert run_job(repository, system).returncode == 3


def test_models_are_evaluated_by_the_job(tmp_path: Path) -> None:
    """What the champion answers has to stay, and another model breaks it."""
    champion, other = make_chain(tmp_path / "models", members=2, step=2.0)
    engine = build_single(EngineConfig(name="torch"), champion)
    prompts = [f"Question {n}?" for n in range(N)]
    answers = engine.generate(prompts, GenerationConfig(max_new_tokens=6))
    engine.close()
    make_locked(tmp_path, targets=[answer.text for answer in answers])
    options = f"--candidate models/{other.name} --champion models/{champion.name} --engine torch"
    made = bash(f"ztom gate --ci github {options}", tmp_path)
    assert made.returncode == 0, made.stderr
    failed = run_job(tmp_path, "github")
    assert failed.returncode == 1, failed.stdout + failed.stderr
    verdict = Verdict.from_bytes((tmp_path / "gate-report/verdict.json").read_bytes())
    (judged,) = verdict.suites
    assert judged.champion is not None
    assert judged.champion.value == 1.0
    assert judged.candidate is not None
    assert judged.candidate.value < 0.5
    assert "Question 7?" in (tmp_path / "gate-report/verdict.html").read_text()
