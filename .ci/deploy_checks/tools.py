"""Programs that checks run: where they are, and what they say."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
#: What `make deploy-tools` made: an environment for tools, and one for checkov, which pins its own.
TOOLS = ROOT / ".venv-deploy"
CHECKOV = ROOT / ".venv-checkov"
_SHOWN = 4000


class Skipped(Exception):
    """A check that cannot be made here, and why."""


@dataclass(frozen=True)
class Done:
    """A program that has ended.

    Attributes:
        status: Its exit status.
        out: What it printed on standard output.
        error: What it printed on standard error.
    """

    status: int
    out: str
    error: str

    @property
    def problem(self) -> str:
        """The end of what it said."""
        return (self.out + self.error).strip()[-_SHOWN:]


def program(name: str, *, environment: Path = TOOLS) -> str | None:
    """Path of a program: of the tools, or of this machine; None where there is neither."""
    path = environment / "bin" / name
    return str(path) if path.exists() else shutil.which(name)


def run(
    name: str,
    *arguments: str | Path,
    environment: Path = TOOLS,
    folder: Path = ROOT,
    timeout_s: float = 300,
) -> Done:
    """Run a program to its end.

    Raises:
        Skipped: It is not there; an error in CI.
    """
    path = program(name, environment=environment)
    if path is None:
        raise absent(f"{name} is not here", "make deploy-tools")
    return _run([path, *map(str, arguments)], folder, timeout_s)


def _run(command: Sequence[str], folder: Path, timeout_s: float) -> Done:
    # no tool looks at who runs it, or asks the network for a newer version of itself
    variables = {**os.environ, "CHECKPOINT_DISABLE": "1", "LOG_LEVEL": "ERROR"}
    done = subprocess.run(
        command,
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def absent(what: str, remedy: str) -> Exception:
    """What to raise where something a check needs is not here: a failure in CI, else a skip."""
    message = f"{what}: {remedy}"
    return RuntimeError(message) if os.environ.get("CI") else Skipped(message)
