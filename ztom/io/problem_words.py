"""What pydantic finds wrong with a single value, in this project's words.

Messages of a library change with its version and speak of its types ("Input should be a valid
dictionary"). Here the kind of the problem decides, so that people read one language everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

#: Of our own validators: what they say is told as it is.
_OURS = ("value_error", "assertion_error")
_WHOLE_NUMBER, _NUMBER = "has to be a whole number", "has to be a number"
_TEXT, _BOOLEAN = "has to be text", "has to be true or false"
_LIST, _KEYS = "has to be a list", "has to be keys and values"
_TIME = "has to be a date or a time in ISO 8601"

_FIXED: dict[str, str] = {
    "missing": "missing",
    "extra_forbidden": "no such key",
    "json_type": "has to be JSON",
    "int_type": _WHOLE_NUMBER,
    "int_parsing": _WHOLE_NUMBER,
    "int_parsing_size": "is too large a number",
    "int_from_float": _WHOLE_NUMBER,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "has to be a finite number",
    "decimal_type": _NUMBER,
    "decimal_parsing": _NUMBER,
    "string_type": _TEXT,
    "string_sub_type": _TEXT,
    "string_unicode": "has to be UTF-8",
    "bytes_type": "has to be bytes",
    "bool_type": _BOOLEAN,
    "bool_parsing": _BOOLEAN,
    "none_required": "has to be null",
    "list_type": _LIST,
    "tuple_type": _LIST,
    "set_type": _LIST,
    "frozen_set_type": _LIST,
    "iterable_type": _LIST,
    "dict_type": _KEYS,
    "mapping_type": _KEYS,
    "model_type": _KEYS,
    "model_attributes_type": _KEYS,
    "dataclass_type": _KEYS,
    "dataclass_exact_type": _KEYS,
    "path_type": "has to be a path",
    "path_not_file": "has to be a file that is there",
    "path_not_directory": "has to be a folder that is there",
    "url_type": "has to be an address",
    "url_parsing": "has to be an address",
    "frozen_instance": "cannot be changed",
    "recursion_loop": "holds itself",
}
_WITH_CONTEXT: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "greater_than": lambda of: f"has to be greater than {of['gt']}",
    "greater_than_equal": lambda of: f"has to be at least {of['ge']}",
    "less_than": lambda of: f"has to be less than {of['lt']}",
    "less_than_equal": lambda of: f"has to be at most {of['le']}",
    "multiple_of": lambda of: f"has to be a multiple of {of['multiple_of']}",
    "string_too_short": lambda of: f"has to have at least {_count(of['min_length'], 'character')}",
    "string_too_long": lambda of: f"has to have at most {_count(of['max_length'], 'character')}",
    "string_pattern_mismatch": lambda of: f"has to be of the form {of['pattern']}",
    "too_short": lambda of: f"has to have at least {_count(of['min_length'], 'entry', 'entries')}",
    "too_long": lambda of: f"has to have at most {_count(of['max_length'], 'entry', 'entries')}",
    "literal_error": lambda of: f"has to be {_choice(of['expected'])}",
    "enum": lambda of: f"has to be {_choice(of['expected'])}",
    "json_invalid": lambda of: f"is not valid JSON ({of['error']})",
}
_KINDS: tuple[tuple[str, str], ...] = (
    (r"^(date|time|datetime|timezone)", _TIME),
    (r"^url", "has to be an address"),
    (r"^bytes", "has to be bytes"),
    (r"^decimal", _NUMBER),
    (r"^uuid", "has to be a UUID"),
    (r"^union", "is none of the forms that it can have"),
)


def words_for(details: Mapping[str, Any]) -> str:
    """What is wrong with one value, without its place.

    Args:
        details: Details of one error, as pydantic's ``errors()`` lists them.
    """
    kind = str(details["type"])
    if kind in _OURS:
        text = str(details["msg"])
        return re.sub(r"^(Value|Assertion) error,? ?(failed, )?", "", text).rstrip(".")
    if kind in _FIXED:
        return _FIXED[kind]
    if kind in _WITH_CONTEXT and details.get("ctx"):
        return _WITH_CONTEXT[kind](details["ctx"])
    for pattern, text in _KINDS:
        if re.match(pattern, kind):
            return text
    return f"is not what it has to be ({kind.replace('_', ' ')})"


def _choice(expected: object) -> str:
    """``'a', 'b' or 'c'`` as one of them."""
    text = str(expected)
    return text if " or " not in text and "," not in text else f"one of {text}"


def _count(number: object, singular: str, plural: str | None = None) -> str:
    return f"{number} {singular if number == 1 else plural or singular + 's'}"
