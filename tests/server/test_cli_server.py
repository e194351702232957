"""The command line against a server, and on a server's own folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import command_line
import pytest
import yaml
from search_helpers import new_study
from server_helpers import PASSWORD, Server, serving
from test_client import finished_search
from toys import make_plain_chain

from cluster.jobs import JobState
from serve_apps.control_plane.config import ServerConfig
from serve_apps.control_plane.runner import SearchJob
from ztom.cli.actions.remote import projects_command
from ztom.cli.actions.remote_search import search_options
from ztom.errors import ConfigError
from ztom.ledger import Ledger


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(ServerConfig(data=tmp_path / "data", poll_s=0.05)) as server:
        yield server


def ztom(home: Path, *arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_CONFIG_HOME": str(home / "config")}
    return subprocess.run(
        [sys.executable, "-c", "from ztom.cli import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        input=stdin,
        env=environment,
    )


def test_from_login_to_a_search(server: Server, tmp_path: Path) -> None:
    server.as_user("ada")

    def run(job: SearchJob) -> None:
        finished_search(job.config, server.services.config.ledger_address)
        server.runner.states[job.id] = JobState.SUCCEEDED

    server.runner.on_submit = run
    early = ztom(tmp_path, "project", "list", "--server", server.url)
    assert (early.returncode, "nobody is logged in" in early.stderr) == (3, True)
    done = ztom(tmp_path, "login", server.url, "ada", "--password-stdin", stdin=PASSWORD + "\n")
    assert done.returncode == 0, done.stderr
    kept = tmp_path / "config" / "ztom" / "credentials.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    project = ztom(tmp_path, "project", "create", "p", "--server", server.url).stdout.strip()
    paths = make_plain_chain(tmp_path / "chain")
    done = ztom(tmp_path, "project", "add", project, *paths, "--server", server.url)
    assert done.returncode == 0, done.stderr
    listed = ztom(tmp_path, "project", "list", "--server", server.url).stdout
    assert all(name in listed for name in ("00", "01", "02", "ITERATION"))
    prompts = ("one", "two", "three", "four", "five")
    lines = [f'{{"prompt": "{prompt}", "expected": "b"}}\n' for prompt in prompts]
    (tmp_path / "s.jsonl").write_text("".join(lines))
    config = {
        "chain": "not used",
        "stimuli": "s.jsonl",
        "error": "rouge_l",
        "budget": {"evaluations": 3},
    }
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(config))
    arguments = ("--project", project, "--server", server.url, "--set", "seed=5")
    done = ztom(tmp_path, "search", tmp_path / "search.yaml", *arguments)
    assert done.returncode == 0, done.stderr
    assert "optimized_scaling_factors  +0.02, +0" in done.stdout
    sent = yaml.safe_load(server.runner.submitted[0].config.read_text())
    assert (sent["seed"], sent["budget"]) == (5, {"evaluations": 3, "tolerance": 0.01})
    assert "search" in ztom(tmp_path, "log", project, "--server", server.url).stdout


def test_titles_are_printed_as_they_are(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session = server.as_user("ada")
    server.project(session, "[red]x :smile:")
    monkeypatch.setenv("ZTOM_API_KEY", server.token("ada"))
    projects_command(server.url)
    assert "[red]x :smile:" in capsys.readouterr().out


def test_as_json_projects_are_what_the_server_answers(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.as_user("ada")
    monkeypatch.setenv("ZTOM_API_KEY", server.token("ada"))
    monkeypatch.setenv("ZTOM_SERVER", server.url)

    def document(*arguments: object) -> Any:
        done = command_line.ztom(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    project = document("project", "create", "[p]")
    assert project["name"] == "[p]"
    base, *rest = make_plain_chain(tmp_path / "chain")
    assert document("project", "add", project["id"], base, "--base")["id"] == project["id"]
    assert len(document("project", "add", project["id"], *rest)["fileList"]) == 2
    (listed,) = document("project", "list")
    assert [file["part"] for file in listed["fileList"]] == ["ITERATION", "ITERATION"]
    file = listed["fileList"][0]["id"]
    saved = document("project", "download", project["id"], file, "--output", tmp_path / "saved")
    assert Path(saved["path"]).exists()
    rows = command_line.ztom("log", project["id"], "--server", server.url, "--json")
    assert all(json.loads(row)["requestId"] for row in rows.stdout.splitlines())


def test_what_the_server_does_not_take_is_said(tmp_path: Path) -> None:
    content = {"stimuli": "s", "guardrails": []}
    with pytest.raises(ConfigError, match="guardrails"):
        search_options(content, tmp_path)
    with pytest.raises(ConfigError, match="no stimuli"):
        search_options({}, tmp_path)
    assert search_options({"stimuli": "gs://b/s.jsonl"}, tmp_path) == {
        "stimuli": "gs://b/s.jsonl",
        "limit": 0.1,
    }
    grouped = {"stimuli": "gs://b/s.jsonl", "factors": {"groups": {"layers": 4}}}
    assert search_options(grouped, tmp_path)["factorGroups"] == {"layers": 4}


def test_the_first_administrator(tmp_path: Path) -> None:
    data = tmp_path / "data"
    short = ztom(
        tmp_path, "admin", "create", "a", "a@b", "--data", data, "--password-stdin", stdin="short\n"
    )
    assert (short.returncode, "10 to 1000" in short.stderr) == (3, True)
    nobody = ztom(tmp_path, "admin", "create", "a", "a@b", "--data", data)
    assert (nobody.returncode, "nobody to ask" in nobody.stderr) == (3, True)
    made = ztom(
        tmp_path, "admin", "create", "a", "a@b", "--data", data, "--password-stdin", stdin=PASSWORD
    )
    assert made.returncode == 0, made.stderr
    with Ledger.open(data / "ledger.db") as ledger:
        assert [user.is_admin for user in ledger.accounts.all()] == [True]
        new_study(ledger)
    assert ztom(tmp_path, "admin", "rotate-key", "--data", data).returncode == 0
    assert len((data / "keys" / "jwt.keys").read_text().split()) == 2
    wrong = ztom(tmp_path, "up", "--data", data, "--set", "token_ours=1")
    assert (wrong.returncode, "token_ours" in wrong.stderr) == (3, True)
