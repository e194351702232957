"""Groups of tensors on the wire: the rule of a request, the labels of an answer."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from ztom.blending.groups import FactorGroups, parse_groups
from ztom.wire.fields import from_json_text


def _rule(value: Any) -> Any:
    return value if value == "kinds" else from_json_text(value)


def _is_empty(labels: tuple[str, ...]) -> bool:
    return not labels


def rule_of(groups: object) -> FactorGroups | None:
    """A rule as a caller writes it.

    Raises:
        ConfigError: It makes no sense.
    """
    return None if groups is None else parse_groups(groups)


#: How tensors are divided: JSON, JSON text in a form, or the word ``kinds``.
GroupRule = Annotated[FactorGroups, BeforeValidator(_rule)]
#: Name of each scaling factor, a step and a group; absent where a step has one factor.
FactorLabels = Annotated[tuple[str, ...], Field(exclude_if=_is_empty)]
