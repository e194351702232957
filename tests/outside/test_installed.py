"""The wheel is all that is needed: its command answers, and the server that it starts does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import requests
from installed import ROOT, Installed
from up import Up

from ztom.version import __version__


@pytest.mark.brings("install", "the wheel beside its dependencies", "its command runs")
def test_the_command_of_the_wheel_runs(installed: Installed, tmp_path: Path) -> None:
    answer = installed.run("--version", cwd=tmp_path)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert __version__ in answer.stdout


def test_the_sources_are_not_what_is_tested(installed: Installed, tmp_path: Path) -> None:
    code = "import cluster, serve_apps, tune_search, ztom; print(ztom.__file__)"
    command = [str(installed.python), "-c", code]
    environment = installed.environment()
    printed = subprocess.check_output(command, env=environment, cwd=tmp_path, text=True)
    assert not Path(printed.strip()).is_relative_to(ROOT)
    assert Path(printed.strip()).is_relative_to(installed.python.parents[1])


@pytest.mark.brings("install", "the wheel beside its dependencies", "`ztom up` serves")
def test_a_server_of_the_wheel_answers(outside: Up) -> None:
    assert requests.get(f"{outside.url}/health", timeout=60).status_code == 200
    projects = outside.session().get(f"{outside.url}/project", timeout=60)
    assert (projects.status_code, isinstance(projects.json(), list)) == (200, True)
