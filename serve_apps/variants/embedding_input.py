"""What a request for embeddings holds: bounded and of the right types before an engine sees it.

OpenAI's ``input`` is a text, a list of texts, the token ids of one text, or a list of those.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: As many as OpenAI takes.
MAX_INPUTS = 2048

_FORMATS = ("float", "base64")
_FORM = "'input' must be a text, a list of texts, token ids, or a list of lists of token ids"


def embedding_problem(body: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first thing that is wrong with a request for embeddings.

    Args:
        body: Body without its neutral values.

    Returns:
        The sentence on it and the field's name; None when all is well.
    """
    for field, check in _CHECKS.items():
        if problem := check(body.get(field)):
            return problem, field
    return None


def _input_problem(value: object) -> str | None:
    if value is None:
        return "'input' is missing."
    if isinstance(value, str) or _is_tokens(value):
        return None
    if not isinstance(value, list):
        return f"{_FORM}; got {type(value).__name__}."
    if not value:
        return "'input' is empty."
    if len(value) > MAX_INPUTS and not isinstance(value[0], int):
        return f"At most {MAX_INPUTS} inputs in one request; got {len(value)}."
    if [] in value:
        return f"input[{value.index([])}] is empty."
    if all(isinstance(item, str) for item in value) or all(map(_is_tokens, value)):
        return None
    return f"{_FORM}."


def _is_tokens(value: object) -> bool:
    """Whether it is a list of token ids, with at least one; true is none, though Python counts it
    as a number.
    """
    return (
        isinstance(value, list)
        and bool(value)
        and all(type(item) is int and item >= 0 for item in value)
    )


def _format_problem(value: object) -> str | None:
    if value is None or value in _FORMATS:
        return None
    return "'encoding_format' must be 'float' or 'base64'."


def _dimensions_problem(value: object) -> str | None:
    if value is None or (type(value) is int and value >= 1):
        return None
    return "'dimensions' must be a number from 1."


_CHECKS = {
    "input": _input_problem,
    "encoding_format": _format_problem,
    "dimensions": _dimensions_problem,
}
