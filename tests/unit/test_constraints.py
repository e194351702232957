"""The versions that the workflow of ``ztom gate --ci`` is held to are those of the lock file."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ztom.stack import COMPANIONS

ROOT = Path(__file__).resolve().parents[2]
#: Left out of the lock file, which is installed without dependencies.
NOT_LOCKED = {*COMPANIONS, "triton"}


def pins(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in (ln.split("==") for ln in lines)}


CONSTRAINTS = pins(ROOT / "ztom/cli/gate/workflows/constraints.txt")


def test_versions_are_those_of_the_lock_file() -> None:
    locked = pins(ROOT / "requirements/cpu.txt")
    differing = {n: v for n, v in CONSTRAINTS.items() if locked.get(n, v) != v}
    assert differing == {}, "make lock"
    assert CONSTRAINTS.keys() - locked.keys() == NOT_LOCKED


def test_everything_that_an_installation_brings_is_held() -> None:
    """From what the project names, through what each installed package names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    (members,) = extras["all"]
    names = re.split(r"[\[\],]", members)[1:-1]
    waiting = [*project["dependencies"], *extras["cpu"], *(r for n in names for r in extras[n])]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = Requirement(waiting.pop())
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        waiting += needs_of(requirement)
    brought = {name for name, _ in seen}
    assert len(brought) > 150
    assert brought - CONSTRAINTS.keys() == set(), "make lock"


def needs_of(requirement: Requirement) -> list[str]:
    try:
        lines = requires(requirement.name) or []
    except PackageNotFoundError:
        return []
    kept = []
    for line in lines:
        marker = Requirement(line).marker
        wanted = requirement.extras or {""}
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in wanted):
            kept.append(line)
    return kept


def test_the_extra_pins_what_is_compiled_against_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [Requirement(line) for line in project["optional-dependencies"]["cpu"]]
    pinned = {line.name: str(line.specifier) for line in lines}
    for name in ("torch", *COMPANIONS):
        assert pinned[name] == f"=={CONSTRAINTS[name]}"
