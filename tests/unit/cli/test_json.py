"""``--json``: one document on standard output and nothing else, of every command that has it."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_line import ztom
from gate_helpers import right
from gate_repository import N, make_locked, make_results
from pydantic import BaseModel
from scripted_model import ScriptedModel
from search_results import make_proof, make_result
from toys import make_plain_chain

from serve_apps.control_plane.config import ServerConfig
from ztom.cli.actions import search as search_action
from ztom.cli.actions import server as server_action
from ztom.cli.console import print_document, print_row


def document(*arguments: object, status: int = 0) -> Any:
    """What a command prints, which has to be one JSON document."""
    done = ztom(*arguments, "--json")
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def chain_file(tmp_path: Path) -> Path:
    make_plain_chain(tmp_path, dtype=torch.bfloat16)
    file = tmp_path / "chain.yaml"
    file.write_text(yaml.safe_dump({"checkpoints": ["00", "01", "02"]}))
    return file


@pytest.fixture
def variant(chain_file: Path, tmp_path: Path) -> Path:
    blend = ("blend", chain_file, "--factors", "0.1,-0.05", "--output", tmp_path / "v")
    made = document(*blend)
    assert made["path"] == str(tmp_path / "v")
    assert [step["factor"] for step in made["factors"]] == [0.1, -0.05]
    assert (made["row"], made["ledger"]) == (1, str(tmp_path / "ledger.db"))
    assert 0 < made["changed"] <= 1
    assert made["warnings"] == []
    return tmp_path / "v"


# Documents


def test_documents_are_made_of_what_commands_have() -> None:
    class Model(BaseModel):
        name: str

    @dataclass
    class Row:
        path: Path
        value: float

    content = {"model": Model(name="m"), "rows": [Row(Path("a"), float("nan"))], "set": {"b", "a"}}
    with redirect_stdout(io.StringIO()) as out:
        print_document(content)
        print_row({"end": float("inf")})
    assert out.getvalue().count("\n") > 5
    *lines, last = out.getvalue().splitlines()
    assert json.loads("\n".join(lines)) == {
        "model": {"name": "m"},
        "rows": [{"path": "a", "value": None}],
        "set": ["a", "b"],
    }
    assert last == '{"end": null}'
    with pytest.raises(TypeError, match="object cannot be written as JSON"):
        print_document({"x": object()})


# Chains and variants


def test_of_chains_and_variants(chain_file: Path, variant: Path) -> None:
    assert len(document("inspect", chain_file)["steps"]) == 2
    checked = document("verify", variant, "--share", "1")
    assert (checked["tensors"], checked["rederived"]) == (7, 7)
    assert checked["path"] == str(variant)
    assert len(checked["variant"]) == 64
    assert checked["signer"].startswith("local:")
    assert len(checked["public_key"]) == 44


def test_an_error_prints_no_document(variant: Path) -> None:
    (variant / "config.json").write_text("{}")
    done = ztom("verify", variant, "--json")
    assert (done.returncode, done.stdout) == (3, "")
    assert "changed config.json" in done.stderr


# Records


def test_of_records(variant: Path, tmp_path: Path) -> None:
    ledger, head = tmp_path / "ledger.db", tmp_path / "head.json"
    rows = [json.loads(line) for line in ztom("log", ledger, "--json").stdout.splitlines()]
    assert [row["kind"] for row in rows] == ["variant", "audit"]
    signed = document("audit", "sign", ledger, "--output", head, "--key", tmp_path / "key")
    assert signed["head"]["sequence"] == 1
    assert json.loads(head.read_text()) == signed["head"]
    verify = ("audit", "verify", ledger)
    unsigned = {"outcome": "OK", "rows": 1, "signed_row": None, "problems": []}
    assert document(*verify).items() >= unsigned.items()
    assert "cut off" in document(*verify)["unseen"][0]
    assert document(*verify, "--head", head)["signed_row"] == 1
    (variant / "config.json").write_text("{}")
    bad = document(*verify, status=1)
    assert (bad["outcome"], len(bad["problems"])) == ("BAD", 1)
    assert "config.json" in bad["problems"][0]
    shown = document("audit", "show", rows[0]["digest"][:8], "--ledger", ledger)
    assert shown["factors"] == [0.1, -0.05]


# Suites, eval and gate


def test_of_suites(tmp_path: Path) -> None:
    examples = document("suite", "examples")
    assert {"regression", "code-review"} <= {suite["example"] for suite in examples}
    made = document("suite", "new", "mine", "--example", "regression", "--root", tmp_path)
    assert (made["name"], made["version"], made["items"]) == ("mine", "0.1.0", 26)
    folder = tmp_path / "mine"
    (unlocked,) = document("suite", "check", folder, status=1)
    assert (unlocked["status"], unlocked["folder"]) == ("differs", str(folder))
    (locked,) = document("suite", "lock", folder)
    assert (locked["items"], locked["path"], locked["warnings"]) == (26, str(folder), [])
    (same,) = document("suite", "check", folder)
    assert same["status"] == "same"
    assert document("suite", "diff", folder) == same
    assert document("suite", "diff", folder, folder) == {**same, "lines": []}
    items = folder / "items.jsonl"
    items.write_text(items.read_text().replace("18:00", "19:00"))
    differs = document("suite", "diff", folder, status=1)
    assert differs["lines"][0].startswith("26 changed: regression-01, ")
    items.write_text("{\n")
    for command in (("check", folder), ("check", tmp_path)):
        (unreadable,) = document("suite", *command, status=3)
        assert (unreadable["status"], len(unreadable["lines"])) == ("unreadable", 1)
    assert document("suite", "diff", folder, folder, status=3)["status"] == "unreadable"


def test_of_a_suite_from_a_table(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("text,target\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(60)))
    made = document(
        "suite", "from-csv", file, "--output", tmp_path / "pairs", "--owner", "us", "--n", 40
    )
    assert (made["name"], made["items"], made["path"]) == ("pairs", 40, str(tmp_path / "pairs"))
    assert isinstance(made["warnings"], list)


def test_of_an_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_locked(tmp_path)
    (tmp_path / "good").mkdir()
    played = ScriptedModel("good", "answer", [])
    monkeypatch.setattr("ztom.evaluation.runs.models.open_model", lambda *_, **__: played)
    evaluation = ("eval", "good", "--suite", "suites", "--engine", "torch", "--no-cache")
    done = document(*evaluation)
    assert done["model"]["name"] == "good"
    (suite,) = done["suites"]
    assert (suite["suite"], suite["items"], suite["scored"]) == ("stays", N, N)
    assert suite["value"] == 1.0
    assert suite["problems"] == []
    assert (Path(suite["path"]) / "run.json").is_file()
    assert done["tasks"] is None
    part = document(*evaluation, "--limit", "3")
    assert part["suites"][0]["scored"] == 3
    monkeypatch.setattr(ScriptedModel, "generate", lambda *_: 1 / 0)
    failed = document(*evaluation, status=3)["suites"][0]
    assert (failed["value"], len(failed["problems"])) == (None, N)


@pytest.mark.parametrize("on_github", [False, True])
def test_of_the_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_github: bool) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    if on_github:
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
    make_locked(tmp_path)
    make_results(tmp_path, "same", right(N))
    make_results(tmp_path, "broken", right(N, wrong=range(30)))
    runs = ("--candidate-run", "broken", "--champion-run", "same")
    verdict = document("gate", *runs, status=1)
    assert verdict == json.loads((tmp_path / "gate/verdict.json").read_text())
    assert verdict["outcome"] == "fail"
    workflow = document("gate", "--ci", "github", "--candidate", "m")
    assert Path(workflow["path"]) == tmp_path / ".github/workflows/ztom-gate.yml"
    assert Path(workflow["constraints"]) == tmp_path / ".github/ztom-constraints.txt"
    done = ztom("gate", "--candidate-run", "nowhere", "--json")
    assert done.returncode == 3
    assert "no verdict" in done.stderr


# A search, and a server's own machine


def test_of_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search itself is played: what it prints is what it came to."""
    result = make_result(proof=make_proof())
    seen: dict[str, Any] = {}

    def run(config: Any, *, resume: bool, console: Any) -> Any:
        seen.update(config=config, resume=resume)
        console.print("notes")
        return result

    monkeypatch.setattr(search_action, "run_command", run)
    file = tmp_path / "search.yaml"
    file.write_text("chain: c.yaml\nstimuli: s.jsonl\nerror: rouge_l\n")
    options = ("--resume", "--set", "seed=5", "--ledger", tmp_path / "l.db")
    assert document("search", file, *options) == result.model_dump(mode="json")
    assert (seen["config"].seed, seen["resume"]) == (5, True)
    assert seen["config"].ledger == str(tmp_path / "l.db")
    in_words = ztom("search", file)
    assert "proof    improved: " in in_words.stdout
    assert "proof    improved: " in ztom("search", file, "--json").stderr
    interrupted = result.model_copy(update={"stop_reason": "interrupted"})
    monkeypatch.setattr(search_action, "run_command", lambda *_, **__: interrupted)
    assert document("search", file, status=130)["stop_reason"] == "interrupted"


def test_of_an_administrator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZTOM_PASSWORD", "a password of some length")
    made = document("admin", "create", "ada", "ada@example.org", "--data", tmp_path / "data")
    assert made["username"] == "ada"
    assert made["id"]


def test_of_a_server_that_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Running:
        url, dashboard, notes = "http://127.0.0.1:1", "http://127.0.0.1:2", ()

    def run(config: ServerConfig, *, on_ready: Any, **others: object) -> None:
        on_ready(Running)

    monkeypatch.setattr("serve_apps.server.launch.run_server", run)
    config = ServerConfig(data=tmp_path)
    server_action.up_command(config, host="127.0.0.1", port=0, as_json=True)
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {
        "url": Running.url,
        "dashboard": Running.dashboard,
        "data": str(tmp_path),
    }
    assert "no administrator yet" in printed.err
    server_action.up_command(config, host="127.0.0.1", port=0)
    assert f"Z-TOM serves at {Running.url}\n" in capsys.readouterr().out
