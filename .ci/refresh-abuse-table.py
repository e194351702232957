"""Write docs/abuse-cases.md from the tests that bear the numbers of cases.

A row is a case of `.ci/abuse-cases.yaml` with the files of tests that have a mark
``@pytest.mark.abuse(numbers)``; a case without such a test is listed as open.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "abuse-cases.md"
HEAD = """# Abuse and faults, case by case

What is done on purpose or goes wrong, what comes of it, and the tests that do it; a case without a
test is open. The page is written by `python .ci/refresh-abuse-table.py`.
"""


def cases() -> dict[str, dict[int, str]]:
    """The sentence of each case by its number, by topic."""
    text = (ROOT / ".ci" / "abuse-cases.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def tests() -> dict[int, list[str]]:
    """Files with tests that exercise a case, by its number."""
    found: dict[int, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if "mark.abuse" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.abuse":
                for number in map(ast.literal_eval, node.args):
                    name = path.relative_to(ROOT / "tests").as_posix()
                    if name not in found[number]:
                        found[number].append(name)
    return found


def page() -> str:
    """The whole page as Markdown."""
    topics, exercised = cases(), tests()
    known = {number: text for topic in topics.values() for number, text in topic.items()}
    if unknown := sorted(set(exercised) - set(known)):
        raise SystemExit(f"abuse() names cases that there are not: {unknown}")
    missing = [number for number in known if number not in exercised]
    parts = [HEAD, f"{len(known) - len(missing)} of {len(known)} cases have a test.\n"]
    for topic, sentences in topics.items():
        lines = [f"## {topic}", "", "| | case | tests |", "| --- | --- | --- |"]
        for number, sentence in sentences.items():
            files = ", ".join(f"`{name}`" for name in exercised.get(number, ())) or "open"
            lines.append(f"| {number} | {sentence} | {files} |")
        parts.append("\n".join([*lines, ""]))
    open_cases = [f"- {number}: {known[number]}" for number in missing]
    parts.append("\n".join(["## Open", "", *(open_cases or ["None."]), ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
