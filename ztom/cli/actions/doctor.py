"""What ``ztom doctor`` does: compare builds, then import the stack in a process of its own."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

from ztom.cli.console import plain_console, print_document
from ztom.errors import ConfigError, EngineError
from ztom.stack import COMPANIONS, Misfit, find_misfits, installed_version, vllm_versions
from ztom.version import __version__

#: What every installation has to be able to import, and the part that other packages break.
_STACK = (
    *("torch", "transformers", "transformers.models.llama.modeling_llama", "ray"),
    *("sentence_transformers", "vllm"),
)
#: Seconds that importing it may take: minutes on a cold disk.
_IMPORT_LIMIT_S = 600.0
#: Runs in a fresh process, so that what a broken package does at import cannot end this one.
_IMPORTS = """
import importlib, json, sys, warnings
warnings.simplefilter("ignore")
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception as error:
        print(json.dumps([name, f"{type(error).__name__}: {error}"]))
        break
else:
    print("[]")
"""


def doctor_command(*, fix: bool, as_json: bool = False) -> None:
    """Check the installation and say what it has.

    Args:
        fix: Whether to run the commands that mend it, before it is checked.
        as_json: Whether to print one document.

    Raises:
        ConfigError: Packages do not fit each other; the first of them with its command.
        EngineError: They fit, and one of them still cannot be imported.
    """
    misfits = find_misfits()
    if fix and misfits:
        for command in dict.fromkeys(misfit.fix for misfit in misfits):
            _run(command)
        misfits = find_misfits()
    _show(misfits, as_json=as_json)
    for misfit in misfits:
        raise ConfigError(misfit.reason, fix=f"Run: {misfit.fix}, or: ztom doctor --fix")
    _require_imports()
    if not as_json:
        plain_console().print("OK: they fit each other, and each can be imported")


def _run(command: str) -> None:
    """A command of `Misfit.fix`, shown before it runs.

    Raises:
        ConfigError: It failed.
    """
    console = plain_console(stderr=True)
    console.print(f"$ {command}", soft_wrap=True)
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    console.print((done.stdout + done.stderr).strip(), soft_wrap=True)
    if done.returncode != 0:
        raise ConfigError("the command did not mend it", got=f"exit status {done.returncode}")


def _show(misfits: list[Misfit], *, as_json: bool) -> None:
    names = ("torch", "transformers", "ray", "sentence_transformers", *COMPANIONS)
    there = {name: installed_version(name) for name in names}
    versions = {name: value for name, value in there.items() if value is not None}
    versions = {
        "ztom": __version__,
        "python": platform.python_version(),
        **versions,
        **vllm_versions(),
    }
    if as_json:
        print_document({"versions": versions, "misfits": misfits})
        return
    console = plain_console()
    for name, value in versions.items():
        console.print(f"{name} {value}")


def _require_imports() -> None:
    """Import the stack, without vLLM where that is not installed.

    Raises:
        EngineError: One of its modules cannot be imported.
    """
    modules = [name for name in _STACK if name != "vllm" or vllm_versions()]
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTS, *modules],
        capture_output=True,
        text=True,
        timeout=_IMPORT_LIMIT_S,
        check=False,
    )
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise EngineError("the stack cannot be imported", reason=last)
    failure = json.loads(lines[-1])
    if failure:
        raise EngineError(
            f"{failure[0]} cannot be imported",
            reason=failure[1],
            fix="Make a new environment, as docs/setup.md says.",
        )
