"""YAML read strictly: nothing is overwritten in silence, nothing grows, everything is also JSON.

Refused are keys given twice (of two floors the second would win), aliases (a few lines of them are
gigabytes), dates, NaN and infinities, and half surrogate pairs.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any

import yaml

from ztom.io.text import Place


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="an alias; write it out", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.MarkedYAMLError(problem="a key twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep=deep)


def parse_yaml(text: str, *, place: Place) -> object:
    """The value that ``text`` is.

    Raises:
        StimuliError: It is not YAML, or holds something that is refused.
    """
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else place.line
        raise Place(place.path, line).error("not usable YAML", got=error.problem) from None
    except (yaml.YAMLError, ValueError) as error:
        raise place.error("not usable YAML", got=error) from None
    except RecursionError:
        raise place.error("YAML is nested too deeply") from None
    _require_json(value, place=place)
    return value


def _require_json(value: object, *, place: Place) -> None:
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False, sort_keys=True).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise place.error(
            "a value that JSON has not", got=error, fix="Put a date in quotes."
        ) from None
