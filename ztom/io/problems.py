"""What is wrong with a value that a person wrote, as one sentence: the way from pydantic's errors.

Each problem names its place by the keys that were written, not by the branches of unions that were
tried, and a key that does not exist is told with the nearest one that does.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ztom.errors import ConfigError, ZtomError
from ztom.io.problem_words import words_for

Model = TypeVar("Model", bound=BaseModel)

_WHOLE = "the whole"
#: Longest value that is quoted, in characters.
_MAX_QUOTED = 80
#: What pydantic calls the branches of unions that have plain types.
_TYPE_NAMES = frozenset({"bool", "bytes", "dict", "float", "int", "list", "none", "str", "tuple"})


def check_model(
    model: type[Model],
    data: object,
    *,
    wrong: str,
    kind: type[ZtomError] = ConfigError,
    expected: str | None = None,
    fix: str | None = None,
    context: Mapping[str, Any] | None = None,
    whole: str = _WHOLE,
    quote: bool = False,
    first_index: int = 0,
) -> Model:
    """A value as a model, or an error that says what is wrong with it.

    Args:
        model: The pydantic model.
        data: Keys and values as a person wrote them.
        wrong: First words of the error: which file or option is wrong.
        kind: Class of the error.
        expected: What would have been right, where one line can say so.
        fix: What the reader can do about it, a full sentence.
        context: Context that is handed to the model's validators.
        whole: Place of a problem that concerns no single key; see `problem_sentence`.
        quote: Whether to show wrong values.
        first_index: The number of the first entry of a list in places.

    Raises:
        ZtomError: It is not as the model wants it; of ``kind``, it names every problem and its
            place.
    """
    try:
        return model.model_validate(data, context=None if context is None else dict(context))
    except ValidationError as error:
        problems = problem_sentence(
            error, data, model=model, whole=whole, quote=quote, first_index=first_index
        )
        raise kind(wrong, reason=problems, expected=expected, fix=fix) from error


def check_json(
    model: type[Model],
    raw: bytes | str,
    *,
    wrong: str,
    kind: type[ZtomError] = ConfigError,
    fix: str | None = None,
) -> Model:
    """A JSON document as a model, or an error that says what is wrong with it.

    Args:
        model: The pydantic model.
        raw: The whole document.
        wrong: First words of the error: which file is wrong.
        kind: Class of the error.
        fix: What the reader can do about it, a full sentence.

    Raises:
        ZtomError: It is not as the model wants it; of ``kind``, it names every problem and its
            place.
    """
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        problems = problem_sentence(error, _json_or_none(raw), model=model)
        raise kind(wrong, reason=problems, fix=fix) from error


def _json_or_none(raw: bytes | str) -> object:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def problem_sentence(
    error: ValidationError,
    data: object,
    *,
    model: type[BaseModel] | None = None,
    whole: str = _WHOLE,
    quote: bool = False,
    first_index: int = 0,
    limit: int = 5,
) -> str:
    """One sentence about everything that is wrong, parts separated by semicolons.

    Args:
        error: Error that pydantic raised.
        data: The value that was validated, as the person wrote it.
        model: The model of the value; with it, a misspelt key is told with the nearest known one.
        whole: Words for the place of a problem that concerns no single key.
        quote: Whether to show wrong values, cut at 80 characters; False where they may be private.
        first_index: The number of the first entry of a list in places: 0, or 1 for readers who
            count from one.
        limit: Largest number of problems that are told; the rest is counted.
    """
    problems = _with_places(error, data)
    keys = sorted(set(_keys(model))) if model is not None else []
    parts = [
        _sentence(place, details, keys, whole=whole, quote=quote, first_index=first_index)
        for place, details in problems[:limit]
    ]
    rest = len(problems) - limit
    return "; ".join(parts) + (f" and {rest} more" if rest > 0 else "")


def _with_places(
    error: ValidationError, data: object
) -> list[tuple[tuple[int | str, ...], ErrorDetails]]:
    return [(_written_place(details, data), details) for details in error.errors(include_url=False)]


def _written_place(details: ErrorDetails, data: object) -> tuple[int | str, ...]:
    """A location without the names of the branches of unions that were tried."""
    place: list[int | str] = []
    for part in details["loc"]:
        if _holds(data, part):
            data = data[part]  # type: ignore[index]
        elif isinstance(part, str) and not _is_key(part):
            continue
        place.append(part)
    return tuple(place)


def _is_key(part: str) -> bool:
    """Whether a part that is not in the data may be a key all the same, such as a missing one."""
    return part.isidentifier() and part.islower() and part not in _TYPE_NAMES


def _holds(data: object, part: int | str) -> bool:
    if isinstance(data, Mapping):
        return part in data
    return isinstance(data, list | tuple) and isinstance(part, int) and part < len(data)


def _sentence(
    place: tuple[int | str, ...],
    details: ErrorDetails,
    keys: Sequence[str],
    *,
    whole: str,
    quote: bool,
    first_index: int,
) -> str:
    shown = [str(part + first_index) if isinstance(part, int) else part for part in place]
    key = ".".join(shown) or whole
    if not shown and whole == _WHOLE and details["type"] == "value_error":
        return words_for(details)  # a sentence about all of it, by a validator of ours
    if details["type"] == "extra_forbidden":
        return f"{key}: no such key{_suggestion(str(place[-1]) if place else '', keys)}"
    value = details.get("input")
    is_short = not isinstance(value, dict | list | tuple)
    quoted = f", got {str(value)[:_MAX_QUOTED]!r}" if quote and is_short else ""
    if details["type"] == "missing":
        quoted = ""
    return f"{key}: {words_for(details)}{quoted}"


def _suggestion(key: str, keys: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, keys, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _keys(model: type[BaseModel], seen: set[type[BaseModel]] | None = None) -> Iterator[str]:
    """Every key of a model and of the models below it, aliases where there are some."""
    seen = set() if seen is None else seen
    seen.add(model)
    for name, field in model.model_fields.items():
        yield field.alias or name
        for below in _models(field.annotation):
            if below not in seen:
                yield from _keys(below, seen)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
