"""Which room may import which: the rules of the layout, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: What each room of ztom may import of ztom.
MAY_IMPORT = {
    "errors": set(),
    "io": {"errors"},
    "settings": {"io"},
    "files": set(),
    "checkpoints": {"errors", "io", "settings"},
    "blending": {"errors", "io", "settings", "checkpoints"},
    "stimuli": {"errors", "settings"},
    "scoring": {"errors", "settings", "stimuli"},
    "engines": {"errors", "settings", "checkpoints", "blending", "stimuli", "scoring"},
    "variants": {"errors", "io", "settings", "checkpoints", "blending", "ledger"},
    "ledger": {"errors", "settings"},
    "passwords": {"errors"},
    "pages": set(),
    "evaluation": {
        "errors",
        "files",
        "io",
        "settings",
        "pages",
        "checkpoints",
        "blending",
        "stimuli",
        "scoring",
        "engines",
        "variants",
    },
    "rollout": {"errors"},
    "client": {"errors", "io", "settings", "checkpoints"},
    "demo": {"errors", "io", "settings", "stimuli"},
}
VLLM_FILES = {"ztom/engines/vllm_engine.py", "serve_apps/variants/engine.py"}


def sources(package: str) -> Iterator[tuple[str, set[str]]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module)
        yield path.relative_to(ROOT).as_posix(), names


def tops(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def test_ztom_never_imports_ray_and_only_the_cli_reaches_into_the_ray_packages() -> None:
    for path, names in sources("ztom"):
        assert "ray" not in tops(names), path
        if not path.startswith("ztom/cli/"):
            assert not tops(names) & {"tune_search", "serve_apps"}, path


@pytest.mark.parametrize("package", ["ztom", "tune_search", "serve_apps"])
def test_vllm_is_imported_in_its_two_files_only(package: str) -> None:
    for path, names in sources(package):
        assert ("vllm" in tops(names)) == (path in VLLM_FILES), path


def test_search_and_serving_do_not_import_each_other() -> None:
    for path, names in sources("tune_search"):
        assert "serve_apps" not in tops(names), path
    for path, names in sources("serve_apps"):
        assert "tune_search" not in tops(names), path


def test_rooms_import_in_one_direction() -> None:
    for path, names in sources("ztom"):
        room = Path(path).parts[1].removesuffix(".py")
        if room not in MAY_IMPORT:
            assert room in {"__init__", "cli"}, f"{path}: a new room needs its rule here"
            continue
        used = {n.split(".")[1] for n in names if n.startswith("ztom.")} - {room}
        assert used <= MAY_IMPORT[room], f"{path} imports {sorted(used - MAY_IMPORT[room])}"
