"""Names: one meaning each, and what a docstring names exists."""

from __future__ import annotations

import ast
import builtins
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ztom", "cluster", "tune_search", "serve_apps")
#: Locals that say only that something was there.
EMPTY_NAMES = {"each", "told", "found", "asked", "said"}
#: A line on a value that begins so says to what it belongs, not what it is.
PREPOSITIONS = re.compile(
    r"(About|After|Against|Among|As|At|Before|Besides?|Between|By|During|For|From|In|Inside|Into|Its"
    r"|Of|On|Over|Per|Since|Through|To|Towards|Under|Until|Upon|With|Within|Without)\b"
)
#: Sections of a docstring whose lines are on values.
VALUES = re.compile(r"(?:Args|Attributes|Returns|Yields):")
VALUE_LINE = re.compile(r" {4}([*\w]+): (.*)")
#: One pair of backticks refers; two are for what is typed or read.
REFERENCE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
IDENTIFIERS = re.compile(r"[A-Za-z_][A-Za-z_0-9]*(\.[A-Za-z_][A-Za-z_0-9]*)*(\(\))?")


@cache
def trees() -> dict[str, ast.Module]:
    """The parsed files, by their dotted names."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
            path.read_text(encoding="utf-8")
        )
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    }


@cache
def defined_names() -> frozenset[str]:
    """Everything that is defined anywhere: modules, classes, functions, parameters, fields."""
    names = {part for module in trees() for part in module.split(".")}
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.arg):
                names.add(node.arg)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.attr)
    return frozenset(names | set(dir(builtins)))


@cache
def imported_packages() -> frozenset[str]:
    names = set()
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return frozenset(names)


def docstrings(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def value_lines(docstring: str) -> Iterator[tuple[str, str]]:
    """The name and the first line of each argument, attribute or result that it lists."""
    is_on_values = False
    for line in docstring.splitlines():
        if line and not line.startswith(" "):
            is_on_values = VALUES.fullmatch(line) is not None
        elif is_on_values and (match := VALUE_LINE.fullmatch(line)):
            yield match[1], match[2]


def exists(reference: str) -> bool:
    parts = reference.removesuffix("()").split(".")
    if parts[0] in PACKAGES:
        return _resolves(parts)
    if parts[0] in imported_packages() and len(parts) > 1:
        return True  # theirs to keep
    return all(part in defined_names() for part in parts)


def _resolves(parts: list[str]) -> bool:
    for end in range(len(parts), 0, -1):
        tree = trees().get(".".join(parts[:end]))
        if tree is not None:
            return all(part in _names_of(tree) for part in parts[end : end + 1]) and all(
                part in defined_names() for part in parts[end + 1 :]
            )
    return False


def _names_of(tree: ast.Module) -> set[str]:
    names = _listed(tree)
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def _listed(tree: ast.Module) -> set[str]:
    """The names of ``__all__``: a module may import them when they are wanted."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def test_a_class_name_exists_once() -> None:
    places = defaultdict(list)
    for module, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(module)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_no_local_says_only_that_something_was_there() -> None:
    offenders = {
        f"{module}:{node.lineno} {name}"
        for module, tree in trees().items()
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
        for name in _bound(node)
        if name in EMPTY_NAMES
    }
    assert offenders == set()


def _bound(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.arg):
        yield node.arg


@pytest.mark.parametrize("package", PACKAGES)
def test_what_a_docstring_names_in_backticks_exists(package: str) -> None:
    offenders = [
        f"{module}: `{reference}`"
        for module, tree in trees().items()
        if module.partition(".")[0] == package
        for text in docstrings(tree)
        for reference in REFERENCE.findall(text)
        if IDENTIFIERS.fullmatch(reference) and not exists(reference)
    ]
    assert offenders == []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_line_on_a_value_says_what_the_value_is(package: str) -> None:
    offenders = [
        f"{module}: {name}: {text}"
        for module, tree in trees().items()
        if module.partition(".")[0] == package
        for docstring in docstrings(tree)
        for name, text in value_lines(docstring)
        if PREPOSITIONS.match(text)
    ]
    assert offenders == []


def test_value_lines_are_those_of_arguments_and_attributes() -> None:
    text = "In it.\n\nArgs:\n    a: Of it.\n    *b: The\n        c: d.\n\nRaises:\n    E: As F."
    assert list(value_lines(text)) == [("a", "Of it."), ("*b", "The")]
    everything = [text for tree in trees().values() for text in docstrings(tree)]
    assert sum(len(list(value_lines(text))) for text in everything) > 1_000
