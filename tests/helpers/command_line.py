"""Running ``ztom`` as from a shell."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest
import typer

from ztom.cli.main import app, main


def ztom(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command in this process: starting Python and torch takes seconds."""
    out, err = io.StringIO(), io.StringIO()
    command = ["ztom", *map(str, arguments)]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", command)
        try:
            main()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return subprocess.CompletedProcess(command, status, out.getvalue(), err.getvalue())


def ztom_process(
    *arguments: object, environment: Mapping[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "ztom", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        input=stdin,
        env={**os.environ, **(environment or {})},
    )


def every_command() -> Iterator[tuple[str, Any]]:
    """Every command and group: what is typed for it after ``ztom``, and typer's object."""
    yield from _below("", typer.main.get_command(app))


def _below(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _below(f"{path} {name}".strip(), child)
