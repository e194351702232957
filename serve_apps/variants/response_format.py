"""``response_format``: what an engine can be asked to keep to, decided before it is asked.

A grammar is compiled from the schema, and some schemas never end: references that lead back to
themselves, repetitions of repetitions. They are refused by their form, in time that grows with the
length of the schema and with nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

MAX_DEPTH = 32
MAX_NODES = 4_000
#: Largest count in the schema: of characters, items or properties.
MAX_COUNT = 2_048
#: Largest product of all the repetitions of one regular expression, and its length in characters.
MAX_REPEATS = 4_096
MAX_PATTERN_CHARACTERS = 1_024
MAX_PATTERNS = 64
#: Most references that lead from one to the next.
MAX_REFERENCES = 64

TYPES = ("text", "json_object", "json_schema")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_REPEAT = re.compile(r"\{(\d*),?(\d*)\}")
_OPEN_REPEAT = re.compile(r"(?<!\\)[*+]")


def response_format_problem(value: object) -> str | None:
    """What is wrong with a ``response_format``, as a sentence; None where nothing is."""
    if not isinstance(value, dict) or value.get("type") not in TYPES:
        return f"it is an object with a type out of {', '.join(TYPES)}"
    if value["type"] != "json_schema":
        return None
    outer = value.get("json_schema")
    if not isinstance(outer, dict) or not isinstance(outer.get("schema"), dict):
        return "json_schema needs a name and a schema, which is an object"
    if not isinstance(outer.get("name", ""), str):
        return "json_schema.name is a text"
    return schema_problem(outer["schema"])


def schema_problem(schema: Mapping[str, Any]) -> str | None:
    """What is wrong with a JSON schema, as a sentence; None where it can be compiled."""
    patterns = 0
    for number, (node, depth) in enumerate(_nodes(schema)):
        if number >= MAX_NODES:
            return f"the schema is too large: more than {MAX_NODES} values"
        if depth > MAX_DEPTH:
            return f"the schema is nested deeper than {MAX_DEPTH}"
        if isinstance(node, dict) and (problem := _node_problem(node, schema)):
            return problem
        patterns += isinstance(node, dict) and "pattern" in node
        if patterns > MAX_PATTERNS:
            return f"the schema has more than {MAX_PATTERNS} patterns"
    return None


def _nodes(schema: object) -> Iterator[tuple[object, int]]:
    waiting = [(schema, 1)]
    while waiting:
        node, depth = waiting.pop()
        yield node, depth
        if depth > MAX_DEPTH:
            continue
        below = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        waiting.extend((item, depth + 1) for item in islice(below, MAX_NODES))


def _node_problem(node: dict[str, Any], schema: Mapping[str, Any]) -> str | None:
    for name in _COUNTS:
        count = node.get(name)
        if isinstance(count, int | float) and not 0 <= count <= MAX_COUNT:
            return f"{name} must be from 0 to {MAX_COUNT}"
    pattern = node.get("pattern")
    if isinstance(pattern, str) and (problem := pattern_problem(pattern)):
        return problem
    return _reference_problem(node["$ref"], schema) if isinstance(node.get("$ref"), str) else None


def pattern_problem(pattern: str) -> str | None:
    """What is wrong with a regular expression, as a sentence; None where it can be compiled."""
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        return f"a pattern has more than {MAX_PATTERN_CHARACTERS} characters"
    product = 1
    for low, high in _REPEAT.findall(pattern):
        product *= max(int(low[:9] or 1), int(high[:9] or 1), 1)
        if product > MAX_REPEATS:
            return f"a pattern repeats more than {MAX_REPEATS} times in all"
    if len(_OPEN_REPEAT.findall(pattern)) > 64:
        return "a pattern has more than 64 open repetitions"
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return "a pattern is no regular expression"
    return None


def _reference_problem(reference: str, schema: Mapping[str, Any]) -> str | None:
    """What is wrong with a reference; it may lead back, but not to itself by references alone."""
    seen: set[str] = set()
    while True:
        if reference in seen:
            return "a $ref leads back to itself"
        if len(seen) >= MAX_REFERENCES:
            return f"more than {MAX_REFERENCES} $refs lead from one to the next"
        seen.add(reference)
        if not reference.startswith("#"):
            return "a $ref leads out of the schema"
        target = _resolve(reference, schema)
        if target is None:
            return "a $ref leads nowhere"
        following = target.get("$ref") if isinstance(target, dict) else None
        if not isinstance(following, str):
            return None
        reference = following


def _resolve(reference: str, schema: Mapping[str, Any]) -> object | None:
    node: object = schema
    for part in reference.removeprefix("#").split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if not name:
            continue
        node = node.get(name) if isinstance(node, dict) else None
        if node is None:
            return None
    return node
