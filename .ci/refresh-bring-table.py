"""Write docs/what-you-can-bring.md from the tests that bring it.

A row is a mark ``@pytest.mark.brings(area, what, outcome)`` on a test, or ``marks=`` of one of its
parameters: nothing stands in the table that no test has brought.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "what-you-can-bring.md"
#: Order and titles of the tables.
AREAS = {
    "client code": "Code against the original product's API",
    "family": "Model families",
    "checkpoint": "Checkpoints",
    "registry": "Addresses and registries",
    "data": "Data",
    "endpoint": "Calls of an endpoint",
    "install": "Installation",
    "terminal": "Terminal",
}
HEAD = """# What you can bring

Each row is a test, most of them with the installed wheel on its defaults (vLLM, `dtype: auto`); the
page is written from them by `python .ci/refresh-bring-table.py`.
"""


def rows() -> dict[str, list[tuple[str, str]]]:
    """What is brought and what becomes of it, by area."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if "mark.brings" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.brings":
                area, what, outcome = (ast.literal_eval(argument) for argument in node.args)
                if (what, outcome) not in found[area]:
                    found[area].append((what, outcome))
    if unknown := set(found) - set(AREAS):
        raise SystemExit(f"areas {sorted(unknown)} of brings() are none of {list(AREAS)}")
    return found


def by_family(area: str, brought: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """A row for each model family, with all that is done with it; other areas as they are."""
    if area != "family":
        return brought
    done: dict[str, list[str]] = defaultdict(list)
    for family, outcome in brought:
        done[family].append(outcome)
    return [(family, "; ".join(outcomes)) for family, outcomes in sorted(done.items())]


def page() -> str:
    """The whole page as Markdown."""
    brought = rows()
    parts = [HEAD]
    for area, title in AREAS.items():
        if brought.get(area):
            head = [f"## {title}", "", "| you bring | Z-TOM |", "| --- | --- |"]
            lines = [f"| {what} | {outcome} |" for what, outcome in by_family(area, brought[area])]
            parts.append("\n".join([*head, *lines, ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
