"""Every example runs, as it stands; those that need Ray share one."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_run_here() -> None:
    names = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb", ".sh")}
    assert names == {"blend.py", "gate.py", "search.ipynb", "search.py", "serve.py"}


def test_blend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load("blend").main(tmp_path)
    output = capsys.readouterr().out
    assert output.startswith("2 transitions: base -> first, first -> second\nvariant ")
    assert (tmp_path / "variant" / "manifest.json").is_file()


def test_gate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load("gate").main(tmp_path)
    outcome, *reasons = capsys.readouterr().out.splitlines()
    assert outcome.split(",")[0] in ("pass", "fail", "inconclusive")
    assert any("toy-questions" in reason for reason in reasons)


def test_search(local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load("search").main(tmp_path)
    output = capsys.readouterr().out
    assert "holdout: improved" in output
    assert output.splitlines()[-1].startswith("variant ")
    assert (tmp_path / "search" / "report.html").is_file()


def test_serve() -> None:
    """In a process of its own: Serve's client of a Ray that has ended would be asked otherwise."""
    script = str(EXAMPLES / "serve.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    printed = done.stdout.splitlines()  # Ray may have printed a line of its own
    beginnings = ("toy-variant at http://127.0.0.1:", "it says: ")
    assert [sum(line.startswith(begin) for line in printed) for begin in beginnings] == [1, 1]


def test_the_notebook_runs_cell_by_cell(local_ray: None, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    notebook = json.loads((EXAMPLES / "search.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    values: dict[str, Any] = {}
    shown = [
        run_cell("".join(cell["source"]), values)
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]
    titles = [text.partition("</strong>")[0].partition("<strong>")[2] for text in shown]
    assert [title.split()[0] for title in titles if title] == ["chain", "search", "variant"]
    assert all(cell.get("outputs", []) == [] for cell in notebook["cells"])


def run_cell(source: str, values: dict[str, Any]) -> str:
    """Run a cell as a notebook does; the HTML of its last line, where that is an expression."""
    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "<cell>", "exec"), values)
    if not isinstance(last, ast.Expr):
        return ""
    return str(eval(compile(ast.Expression(last.value), "<cell>", "eval"), values)._repr_html_())
