"""Inputs made by chance are refused or taken, never anything else; a short part of the long run.

``benchmarks/fuzz.py`` is the long one. What it found lies in ``tests/corpus``, a folder for each
target, and is fed again here.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parents[2]
_CORPUS = _ROOT / "tests" / "corpus"
#: Inputs of each target: together some seconds.
_SHORT = {
    "safetensors": 400, "tar": 150, "bodies": 60, "openai": 600, "yaml": 40, "stimuli": 150,
    "jwt": 600,
}  # fmt: skip
_LIMIT_S = 2.0


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark's module, which finds its own beside it."""
    monkeypatch.syspath_prepend(str(_ROOT / "benchmarks"))
    return importlib.import_module("fuzz")


@pytest.mark.parametrize("name", sorted(_SHORT))
def test_chance_finds_nothing(fuzz: Any, name: str, tmp_path: Path) -> None:
    tally = fuzz.feed(name, seed=7, first=0, count=_SHORT[name], state=tmp_path)
    assert tally.findings == {}
    assert tally.done == _SHORT[name]
    assert len(tally.outcomes) > 1, "something is taken, something refused"


@pytest.mark.parametrize("path", sorted(_CORPUS.glob("*/*")), ids=lambda path: path.name)
def test_what_was_found_once_is_refused(fuzz: Any, path: Path, tmp_path: Path) -> None:
    with fuzz.open_target(path.parent.name, tmp_path) as target:
        began = time.process_time()
        target.feed(path.read_bytes())
    assert time.process_time() - began < _LIMIT_S


def test_an_input_follows_from_its_number(fuzz: Any) -> None:
    inputs = importlib.import_module("fuzz_inputs")
    seeds = [b'{"a": 1}', b"x HTTP\n{}"]
    first = [inputs.make_input(seeds, seed=1, target="t", number=n) for n in range(50)]
    again = [inputs.make_input(seeds, seed=1, target="t", number=n) for n in range(50)]
    other = [inputs.make_input(seeds, seed=2, target="t", number=n) for n in range(50)]
    assert first == again != other


def test_a_run_goes_on_where_it_was_stopped_and_keeps_what_it_finds(tmp_path: Path) -> None:
    command = [sys.executable, str(_ROOT / "benchmarks" / "fuzz.py"), "--only", "jwt"]
    command += ["--state", str(tmp_path)]
    for inputs in (100, 300):
        done = subprocess.run(
            [*command, "--inputs", str(inputs)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        tally = json.loads((tmp_path / "tally-1.json").read_text())["jwt"]
        assert tally["done"] == inputs


def test_findings_are_found(fuzz: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a parser that dies of a digit, which is in most inputs."""
    targets = importlib.import_module("fuzz_targets")

    def weak(folder: Path, undo: Any) -> Any:
        def feed(data: bytes) -> str:
            if b"7" in data:
                raise KeyError("seven")
            return "taken"

        return targets.Target([b"[1234567]"], feed)

    monkeypatch.setitem(targets._TARGETS, "jwt", weak)
    tally = fuzz.feed("jwt", seed=1, first=0, count=50, state=tmp_path)
    assert 0 < len(tally.findings) < 50
    assert all("seven" in reason for reason in tally.findings.values())
    assert {path.name for path in (tmp_path / "findings").iterdir()} == set(tally.findings)
