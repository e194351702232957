"""Which room may import which: the rules of the house, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ztom", "cluster", "tune_search", "serve_apps")
VLLM_FILES = {
    "ztom/engines/vllm_engine.py",
    "serve_apps/variants/vllm_server.py",
    "serve_apps/variants/vllm_renderer.py",
}

_GROUND = {"errors", "extras", "io", "settings"}
#: What `cluster` may import of `ztom`.
CLUSTER_MAY_IMPORT = {"ztom.errors", "ztom.io", "ztom.settings"}
#: Further rooms for what packs a search for a cluster, and has its nodes look at what it names.
CLUSTER_LOOKS_INTO = {
    "cluster/examination.py": {"ztom.checkpoints"},
    "cluster/submission.py": {"ztom.checkpoints", "ztom.plugins", "ztom.search"},
}
#: What each room of a package may import of its own package; a room is a folder or a file in it.
MAY_IMPORT: dict[str, dict[str, set[str]]] = {
    "ztom": {
        "errors": set(),
        "extras": {"errors"},
        "settings": {"io"},
        "plugins": {"errors"},
        "stack": {"errors"},
        "version": set(),
        "pages": set(),
        "io": {"errors", "extras"},
        "statistics": {"errors"},
        "checkpoints": {*_GROUND, "plugins"},
        "blending": {*_GROUND, "pages", "checkpoints"},
        "stimuli": _GROUND,
        "scoring": {*_GROUND, "plugins", "statistics", "stimuli"},
        "engines": {*_GROUND, "plugins", "stack", "checkpoints", "blending", "stimuli", "scoring"},
        "rollout": {"errors", "io", "statistics"},
        # it keeps the values of rollout, and hands them out as what they are
        "ledger": {*_GROUND, "rollout"},
        "variants": {*_GROUND, "version", "pages", "checkpoints", "blending", "ledger"},
        "evaluation": {
            *(*_GROUND, "version"),
            *("statistics", "pages", "checkpoints", "blending", "stimuli", "scoring"),
            *("engines", "plugins", "variants"),
        },
        "search": {
            *_GROUND,
            *("statistics", "pages", "blending", "stimuli", "scoring", "engines", "ledger"),
            *("evaluation", "plugins"),
        },
        "wire": {
            *("errors", "io", "blending", "engines", "evaluation", "ledger", "rollout"),
            *("scoring", "search"),
        },
        "client": {*_GROUND, "checkpoints", "wire"},
        "data": {*_GROUND, "statistics", "stimuli"},
        "loop": set(),
        "drift": {*_GROUND, "scoring", "statistics", "stimuli"},
        "demo": {*_GROUND, "stimuli"},
        "testing": {
            "checkpoints",
            *("errors", "statistics", "blending", "stimuli", "scoring", "engines", "evaluation"),
            "search",
        },
    },
    "cluster": {
        "capacity": set(),
        "environment": set(),
        "jobs": set(),
        "node_settings": set(),
        "ports": set(),
        "token": set(),
        "nodes": {"environment", "node_settings", "ports", "token"},
        "examination": {"node_settings", "token"},
        "doctor": {"examination", "jobs"},
        "submission": {"examination"},
        "serve": set(),
        "leftovers": set(),
        "shutdown": set(),
        "shared_disk": set(),
        "drain": set(),
        "health": set(),
        "local": {"environment", "leftovers", "ports", "shutdown"},
        "pools": {"capacity"},
    },
    "tune_search": {
        "display": set(),
        "factories": set(),
        "payload": set(),
        "phases": set(),
        "replacements": set(),
        "session": set(),
        "slots": set(),
        "shared_places": set(),
        "preparation": {"factories", "payload"},
        "device": {"factories", "preparation"},
        "study_record": {"payload"},
        "trackers": set(),
        "engine_actor": {"payload"},
        "engine_client": {"engine_actor", "payload"},
        "engine_pool": {"engine_actor", "engine_client", "payload", "slots"},
        "spare_engine": {"engine_client", "engine_pool", "payload"},
        "score_actor": {"payload", "slots"},
        "racing": {"engine_client", "payload", "score_actor"},
        "trial": {"engine_client", "payload", "racing", "score_actor"},
        "searcher": {"payload", "replacements", "trial"},
        "experiment": {"engine_client", "payload", "score_actor", "searcher", "slots", "trial"},
        "study": {
            *("engine_client", "engine_pool", "experiment", "payload", "preparation"),
            "replacements",
            *("score_actor", "searcher", "session", "spare_engine", "study_record", "trackers"),
        },
        "gate": {"engine_client", "phases", "preparation"},
        "holdout": {"engine_pool", "gate", "payload", "phases", "preparation", "spare_engine"},
        "proof": {"holdout", "payload", "preparation"},
        "existing": {"holdout", "payload", "preparation"},
        "evidence": {"existing", "preparation"},
        "prove": {
            *(
                "evidence",
                "existing",
                "factories",
                "gate",
                "holdout",
                "phases",
                "preparation",
                "proof",
            ),
            "spare_engine",
        },
        "run": {
            *(
                "device",
                "existing",
                "preparation",
                "prove",
                "session",
                "shared_places",
                "spare_engine",
            ),
            "study",
        },
        "command": {"display", "run"},
    },
    "serve_apps": {
        "event_stream": set(),
        "tasks": set(),
        "tracing": set(),
        "variants": {"event_stream", "tracing"},
        "gateway": {"event_stream", "tasks", "tracing", "variants"},
        "endpoints": {"variants"},
        "controller": {"endpoints", "gateway", "variants"},
        "control_plane": {
            *("endpoints", "event_stream", "gateway", "tasks", "tracing", "variants"),
        },
        "server": {"control_plane", "controller", "endpoints", "gateway", "tasks"},
    },
}
#: What each package may import of the others.
PACKAGE_MAY_IMPORT = {
    "ztom": set(),
    "cluster": {"ztom"},
    "tune_search": {"ztom", "cluster"},
    "serve_apps": {"ztom", "cluster"},
}
#: Rooms that any room is below, and the packages that they reach up to: whoever types a command may
#: mean any; of the functions of ``import ztom`` one runs a search, and imports it when called.
ABOVE_ALL = {"cli": {"cluster", "tune_search", "serve_apps"}, "api": {"tune_search"}}


@cache
def graph(package: str) -> Mapping[str, frozenset[str]]:
    """Path of each file, and the dotted names that it imports."""
    return {
        path.relative_to(ROOT).as_posix(): frozenset(_imported(path))
        for path in sorted((ROOT / package).rglob("*.py"))
    }


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def tops(names: frozenset[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def room_of(path: str) -> str:
    return Path(path).parts[1].removesuffix(".py")


def test_ztom_never_imports_ray() -> None:
    for path, names in graph("ztom").items():
        assert "ray" not in tops(names), path


@pytest.mark.parametrize("package", PACKAGES)
def test_vllm_is_imported_in_its_two_files_only(package: str) -> None:
    for path, names in graph(package).items():
        assert ("vllm" in tops(names)) == (path in VLLM_FILES), path


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_in_one_direction(package: str) -> None:
    others = set(PACKAGES) - {package}
    for path, names in graph(package).items():
        above = ABOVE_ALL.get(room_of(path), set()) if package == "ztom" else set()
        used = tops(names) & others
        assert used <= PACKAGE_MAY_IMPORT[package] | above, f"{path} imports {sorted(used)}"


def test_the_front_door_reaches_up_only_when_it_is_called() -> None:
    tree = ast.parse((ROOT / "ztom/api.py").read_text(encoding="utf-8"))
    assert "tune_search" in tops(graph("ztom")["ztom/api.py"])
    at_import = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert all("tune_search" not in ast.unparse(node) for node in at_import)


def test_the_cluster_stands_on_errors_and_settings() -> None:
    for path, names in graph("cluster").items():
        allowed = tuple(CLUSTER_MAY_IMPORT | CLUSTER_LOOKS_INTO.get(path, set()))
        for name in (name for name in names if name.startswith("ztom")):
            assert name.startswith(allowed), f"{path} imports {name}"


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_rooms_import_in_one_direction(package: str) -> None:
    rules = MAY_IMPORT[package]
    rooms = {room_of(path) for path in graph(package)} - {"__init__", "__main__"}
    assert rooms - set(ABOVE_ALL) == set(rules), "a new room needs its rule here, a lost one none"
    for path, names in graph(package).items():
        room = room_of(path)
        if room not in rules:
            continue
        used = {n.split(".")[1] for n in names if n.startswith(f"{package}.")} & rooms - {room}
        assert used <= rules[room], f"{path} imports {sorted(used - rules[room])}"


@pytest.mark.parametrize("rules", [*MAY_IMPORT.values(), PACKAGE_MAY_IMPORT])
def test_the_rules_have_no_arrow_up(rules: dict[str, set[str]]) -> None:
    TopologicalSorter(rules).prepare()


def test_no_files_import_each_other_in_a_circle() -> None:
    files = {_module(path): names for package in PACKAGES for path, names in graph(package).items()}
    edges = {
        module: {name for name in names if name in files} - {module}
        for module, names in files.items()
    }
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of files: {' -> '.join(error.args[1])}")


def _module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
