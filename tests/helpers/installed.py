"""Z-TOM as users have it: its wheel, installed into an environment of its own.

What it needs is taken from the environment that the tests run in, so that an installation takes
seconds; whether pip finds the right packages is another test's question.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
#: What a wheel is made of.
_PACKAGES = ("ztom", "tune_search", "serve_apps", "cluster")
_FILES = ("pyproject.toml", "README.md", "LICENSE")


class Installed:
    """An installation.

    Attributes:
        python: Its interpreter.
        ztom: Its command.
    """

    def __init__(self, folder: Path) -> None:
        self.python = folder / "bin" / "python"
        self.ztom = folder / "bin" / "ztom"

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """The variables of this process without those that lead Python to the sources."""
        parts = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        kept = [part for part in parts if part and not Path(part, "ztom", "__init__.py").exists()]
        bins = os.pathsep.join([str(self.ztom.parent), os.environ.get("PATH", "")])
        return {**os.environ, "PATH": bins, "PYTHONPATH": os.pathsep.join(kept), **(more or {})}

    def run(
        self,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 300,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """``ztom`` with arguments, in a pipe; its status is looked at by who calls.

        Args:
            arguments: Of the command.
            env: Variables beside those of this process.
            timeout_s: Seconds that it may take.
            options: Of `subprocess.run`, such as ``cwd`` or ``input``.
        """
        command = [str(self.ztom), *map(str, arguments)]
        options = {"capture_output": True, "text": True, **options}
        return subprocess.run(command, env=self.environment(env), timeout=timeout_s, **options)


def build_wheel(folder: Path) -> Path:
    """The wheel of the sources beside the tests.

    Args:
        folder: Where it is built, from a copy, as a folder ``build`` beside the sources goes in.
    """
    sources = folder / "sources"
    sources.mkdir(parents=True)
    for name in _PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, sources / name, ignore=ignored)
    for name in _FILES:
        shutil.copy2(ROOT / name, sources / name)
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(sources))
    [wheel] = folder.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Installed:
    """An environment with the wheel, over the packages of this process's environment.

    Args:
        wheel: A built wheel.
        folder: Of the new environment.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    [packages] = folder.glob("lib/python*/site-packages")
    below = [part for part in sys.path if Path(part).name == "site-packages"]
    packages.joinpath("below.pth").write_text("".join(f"{part}\n" for part in below))
    _pip("--python", str(folder), "install", "--no-deps", "--force-reinstall", str(wheel))
    return Installed(folder)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, cwd="/")
