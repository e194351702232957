"""The edge between JSON columns and the values that they hold.

A value is written as JSON and read again here, once; whoever asks the ledger gets it typed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ztom.errors import LedgerError
from ztom.io.problems import problem_sentence

Value = TypeVar("Value", bound=BaseModel)


def to_json(value: BaseModel, *, exclude_defaults: bool = False) -> dict[str, Any]:
    """What a column holds of a value; without ``exclude_defaults`` every field is written."""
    return value.model_dump(mode="json", exclude_defaults=exclude_defaults)


def from_json(kind: type[Value], content: Mapping[str, Any]) -> Value:
    """The value in a column.

    Raises:
        LedgerError: It is none: it was damaged, or written by a newer version.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise LedgerError(
            f"the ledger holds a {kind.__name__} that cannot be read",
            reason=problem_sentence(error, content, model=kind),
            fix="Open the ledger with the version of Z-TOM that wrote it.",
        ) from error
