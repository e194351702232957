"""JSON as the checkpoint formats define it: valid UTF-8, no key twice, no bottomless nesting.

How many values a text can hold is counted before any of them is made: 64 MB of ``[],[],`` are
gigabytes as Python objects. What is long is parsed in another process, so that this one goes on
with other work meanwhile.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from ztom.errors import CheckpointError
from ztom.io.bounded import BoundedPool, OverLimitError

#: Longer texts, in bytes, are parsed in another process.
ASIDE_BYTES = 256 * 2**10
#: Most objects and lists, most values of any kind, and most levels of one in the other.
MAX_CONTAINERS = 200_000
MAX_VALUES = 4_000_000
MAX_DEPTH = 100

_PROCESSES = 2
_MEMORY_BYTES = 2 * 2**30
_CPU_S = 10.0


class DuplicateKeyError(ValueError):
    """One object of a JSON text has a key twice; readers disagree about which one counts."""

    def __init__(self, key: str) -> None:
        super().__init__(f"duplicate key {key!r}")
        self.key = key


def parse_json(raw: bytes, *, integers_only: bool = False) -> object:
    """Parse JSON strictly.

    Args:
        raw: The whole text.
        integers_only: Whether to refuse fractions, ``NaN`` and ``Infinity``.

    Raises:
        DuplicateKeyError: A key stands twice in one object.
        ValueError: Anything else that is not such JSON, or too much of it; the message says what.
    """
    check_size(raw)
    if len(raw) <= ASIDE_BYTES:
        return _parsed(raw, integers_only)
    try:
        kind, value = parsers().call("ztom.io.json:parsed_aside", raw, integers_only, cpu_s=_CPU_S)
    except OverLimitError as error:
        raise ValueError(f"it cannot be parsed: {error}") from None
    if kind == "twice":
        raise DuplicateKeyError(value)
    if kind == "wrong":
        raise ValueError(value)
    return value


@functools.cache
def parsers() -> BoundedPool:
    """The processes that parse what is long; started when there is something to parse."""
    return BoundedPool(processes=_PROCESSES, memory_bytes=_MEMORY_BYTES)


def parsed_aside(raw: bytes, integers_only: bool) -> tuple[str, object]:
    """What a text holds, or what is wrong with it, as values that go from process to process.

    Args:
        raw: The whole text.
        integers_only: Whether to refuse fractions, ``NaN`` and ``Infinity``.
    """
    try:
        return "value", _parsed(raw, integers_only)
    except DuplicateKeyError as error:
        return "twice", error.key
    except ValueError as error:
        return "wrong", str(error)


def parse_tolerant(raw: bytes) -> object:
    """Parse JSON as the standard library does, within the same limits.

    Args:
        raw: The whole text.

    Raises:
        ValueError: It is no JSON, or nested too deeply.
    """
    check_size(raw)
    value = json.loads(raw)
    check_depth(value)
    return value


def check_size(raw: bytes) -> None:
    """Refuse a text that can hold more values than are taken; nothing is parsed.

    Raises:
        ValueError: It is too much; the message says how much.
    """
    containers = raw.count(b"[") + raw.count(b"{")
    if containers > MAX_CONTAINERS:
        raise ValueError(f"{containers} objects and lists, at most {MAX_CONTAINERS} are taken")
    values = containers + raw.count(b",") + 1
    if values > MAX_VALUES:
        raise ValueError(f"{values} values, at most {MAX_VALUES} are taken")


def check_depth(value: object) -> None:
    """Refuse a value whose lists and objects are nested too deeply.

    Raises:
        ValueError: They are.
    """
    level: list[Any] = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        level = [item for holder in level for item in _containers_in(holder)]
        if not level:
            return
    raise ValueError(f"nested too deeply, more than {MAX_DEPTH} levels")


def _containers_in(holder: Any) -> Iterator[object]:
    items = holder.values() if isinstance(holder, dict) else holder
    return (item for item in items if isinstance(item, dict | list))


def _parsed(raw: bytes, integers_only: bool) -> object:
    refuse = _refuse_number if integers_only else None
    try:
        text = raw.decode("utf-8")
        value = json.loads(
            text, object_pairs_hook=_unique, parse_float=refuse, parse_constant=refuse
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    check_depth(value)
    return value


def read_json_object(raw: bytes, *, what: str, limit: int) -> Mapping[str, Any]:
    """Parse a JSON file whose top level must be an object.

    Args:
        raw: The bytes of the file, at most ``limit`` + 1 of them.
        what: Names the file in errors.
        limit: Largest size that is parsed, in bytes.

    Raises:
        CheckpointError: Too large, not JSON, or not an object.
    """
    if len(raw) > limit:
        raise CheckpointError(f"{what} is too large", expected=f"at most {limit} bytes")
    try:
        value = parse_json(raw)
    except ValueError as error:
        raise CheckpointError(f"{what} is not valid JSON", reason=str(error)) from None
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{what} has the wrong shape", got=type(value).__name__, expected="an object"
        )
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise DuplicateKeyError(key)
            seen.add(key)
    return result


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"{text[:40]} is not an integer")
