"""JSON as the checkpoint formats define it: valid UTF-8, no key twice, no bottomless nesting."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from ztom.errors import CheckpointError


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
        ValueError: Anything else that is not such JSON; the message says what.
    """
    refuse = _refuse_number if integers_only else None
    try:
        text = raw.decode("utf-8")
        return json.loads(
            text, object_pairs_hook=_unique, parse_float=refuse, parse_constant=refuse
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


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
