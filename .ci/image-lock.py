"""Write what the image is made of: the digest of its base, and the hash of every package.

    make image-lock BASE=docker.io/library/python:3.12-slim-bookworm

A maintainer runs it, with internet, Python 3.12 and skopeo, and commits what it writes.

It asks the registry for the base's digest and the package index for hashes, and makes none up:
where either does not answer, it ends and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMAGE = ROOT / "cluster" / "image"
KINDS = ("cpu", "gpu")


def digest_of(image: str) -> str:
    """The digest that a registry has for an image."""
    command = ["skopeo", "inspect", "--format", "{{.Digest}}", f"docker://{image}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def hashes_of(requirements: Path) -> list[str]:
    """A line for each package: its version, and the hash of the file that this Python takes."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps"]
        command += ["--ignore-installed", "--only-binary", ":all:", "--report", str(report)]
        subprocess.run([*command, "--requirement", str(requirements)], check=True)
        installs = json.loads(report.read_text(encoding="utf-8"))["install"]
    lines = []
    for item in installs:
        hashes = item["download_info"]["archive_info"]["hashes"]
        name, version = item["metadata"]["name"], item["metadata"]["version"].partition("+")[0]
        lines.append(f"{name}=={version} --hash=sha256:{hashes['sha256']}")
    return sorted(lines)


def main() -> None:
    """Ask for everything first, and write then."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", help="image of Python 3.12 on Debian or Ubuntu, with its tag")
    base = parser.parse_args().base
    if sys.version_info[:2] != (3, 12):
        parser.error(f"hashes are of files for one Python: run it with 3.12, not {sys.version[:4]}")
    pinned = f"{base.partition('@')[0]}@{digest_of(base)}"
    hashes = {kind: hashes_of(ROOT / "requirements" / f"{kind}.txt") for kind in KINDS}
    for kind, lines in hashes.items():
        text = "\n".join(["# `make image-lock` wrote it.", *lines]) + "\n"
        (IMAGE / f"{kind}.hashes.txt").write_text(text, encoding="utf-8")
    lock = {"bases": dict.fromkeys(KINDS, pinned), "tag": base}
    (IMAGE / "image.lock").write_text(json.dumps(lock, indent=2) + "\n", encoding="utf-8")
    print(f"locked {pinned} and {sum(map(len, hashes.values()))} packages")


if __name__ == "__main__":
    main()
