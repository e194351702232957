"""Which Pythons Z-TOM runs on, and the sentence for the others."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ztom.version import PYTHON_END, PYTHON_FIRST, python_refusal

ROOT = Path(__file__).resolve().parents[2]
SENTENCE = "Z-TOM needs Python 3.11 to 3.13, and this is Python 3.10."
#: As another Python would run it, as far as what says its version goes.
OLD = "import runpy, sys; sys.version_info = (3, 10, 13, 'final', 0); sys.argv = ['-m']; "


@pytest.mark.parametrize(("minor", "runs"), [(9, 0), (10, 0), (11, 1), (12, 1), (13, 1), (14, 0)])
def test_pythons_that_it_runs_on(minor: int, runs: bool) -> None:
    refusal = python_refusal(3, minor)
    assert (refusal is None) == bool(runs)
    assert refusal is None or f"this is Python 3.{minor}" in refusal


def test_they_are_those_that_pip_installs_it_on() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    first, end = (".".join(map(str, version)) for version in (PYTHON_FIRST, PYTHON_END))
    assert project["requires-python"] == f">={first},<{end}"


@pytest.mark.parametrize("module", ["ztom", "ztom.version"])
def test_python_3_10_is_refused_by_name(module: str) -> None:
    """``make setup`` runs the second, before it makes an environment."""
    code = f"{OLD}runpy.run_module({module!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(SENTENCE)
    assert "Traceback" not in done.stderr


def test_importing_it_is_refused_as_python_does() -> None:
    code = f"{OLD}sys.argv = ['']; import ztom"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith(f"ImportError: {SENTENCE}")


def test_the_set_up_asks_first() -> None:
    lines = (ROOT / "Makefile").read_text().splitlines()
    asks = lines.index("\t$(PYTHON) -W ignore -m ztom.version")
    assert "-m venv $(VENV)" in lines[asks + 1]
