"""Build the wheel and look whether it holds what it has to: modules, types, templates, examples."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("ztom", "tune_search", "serve_apps", "cluster")
#: Files of packages that nothing reads once they are installed.
NOT_SHIPPED = {".md", ".pyc"}
#: Folders of files that are deployed from a checkout.
DEPLOYED = (
    "cluster/helm/",
    "cluster/image/",
    "cluster/monitoring/",
    "cluster/ray-up/",
    "cluster/terraform/",
)


def main() -> int:
    """Compare the wheel with the sources; returns the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.rmtree(ROOT / "build", ignore_errors=True)  # what was there would be in the wheel
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
        subprocess.run(
            [*command, "--no-build-isolation", "--wheel-dir", folder, str(ROOT)], check=True
        )
        [wheel] = Path(folder).glob("*.whl")
        names = set(zipfile.ZipFile(wheel).namelist())
    files = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix not in NOT_SHIPPED
    }
    expected = {path for path in files if not path.startswith(DEPLOYED)}
    expected |= {f"{package}/py.typed" for package in PACKAGES}
    missing, others = expected - names, {name.partition("/")[0] for name in names} - set(PACKAGES)
    if missing:
        print(f"the wheel lacks {', '.join(sorted(missing))}", file=sys.stderr)
    others = {name for name in others if not name.endswith(".dist-info")}
    if others:
        print(f"the wheel has {', '.join(sorted(others))}", file=sys.stderr)
    return 1 if missing or others else 0


if __name__ == "__main__":
    sys.exit(main())
