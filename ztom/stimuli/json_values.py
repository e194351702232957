"""JSON read strictly: what Python's reader lets through and nobody means is refused.

Refused are keys given twice, NaN and infinities (``1e999`` too), lone surrogates, which no encoder
can write again, and nesting deeper than anything a stimulus needs.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import NoReturn

from ztom.errors import StimuliError
from ztom.io.text import Place
from ztom.stimuli.text_files import check_length

MAX_DEPTH = 32


def parse_json(text: str, *, place: Place) -> object:
    """The value that ``text`` is.

    Raises:
        StimuliError: It is not JSON, or holds something that is refused.
    """

    def refuse_constant(name: str) -> NoReturn:
        raise place.error("a number is not finite", got=name)

    def unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
        unique = dict(pairs)
        if len(unique) != len(pairs):
            raise place.error("an object has a key twice")
        return unique

    try:
        value = json.loads(text, parse_constant=refuse_constant, object_pairs_hook=unique_keys)
    except StimuliError:
        raise
    except RecursionError:
        raise place.error("JSON is nested too deeply", expected=f"at most {MAX_DEPTH}") from None
    except json.JSONDecodeError as error:
        where = replace(place, line=place.line + error.lineno - 1)
        raise where.error(f"not JSON: {error.msg} at column {error.colno}") from None
    except ValueError:  # an integer of thousands of digits
        raise place.error("a number has too many digits") from None
    check_value(value, place=place)
    return value


def check_value(value: object, *, place: Place) -> None:
    """Refuse a value, however it was read, that holds what is refused in JSON.

    Raises:
        StimuliError: It is nested too deeply, or holds a number that is not finite, a text that is
            too long, or half of a surrogate pair.
    """
    _check(value, place=place, depth=1)


def _check(value: object, *, place: Place, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise place.error("JSON is nested too deeply", expected=f"at most {MAX_DEPTH}")
    if isinstance(value, str):
        check_length(value, place=place, field="a text")
        if not _is_encodable(value):
            raise place.error("a text holds half of a surrogate pair", fix="Mend the \\u escapes.")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise place.error("a number is not finite")
    elif isinstance(value, list):
        for item in value:
            _check(item, place=place, depth=depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check(key, place=place, depth=depth + 1)
            _check(item, place=place, depth=depth + 1)


def _is_encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
