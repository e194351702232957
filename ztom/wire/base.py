"""The three kinds of models on the wire."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


def _is_empty(value: tuple[str, ...]) -> bool:
    return not value


#: What was left aside of a request; absent from the JSON where there is nothing.
Warnings = Annotated[tuple[str, ...], Field(exclude_if=_is_empty)]


class WireRequest(BaseModel):
    """A request that may hold nothing but its fields."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=True
    )

    def body(self) -> dict[str, Any]:
        """The request as JSON values: what was set and is not None."""
        return self.model_dump(
            mode="json", by_alias=True, exclude_unset=True, exclude_none=True, warnings=False
        )


class TolerantRequest(WireRequest):
    """A request to which users' existing code adds further keyword arguments.

    What is not known is left aside, and the answer says so (`warnings`).
    """

    model_config = ConfigDict(extra="allow")

    @property
    def warnings(self) -> list[str]:
        """What was left aside, by name."""
        return [f"{name[:60]!r} is not known and was ignored" for name in self.model_extra or ()]


class WireAnswer(BaseModel):
    """An answer; a client leaves aside what a newer server adds to it."""

    model_config = ConfigDict(
        extra="ignore", frozen=True, alias_generator=to_camel, validate_by_name=True
    )

    @classmethod
    def parse(cls, content: object) -> Self:
        """The answer in JSON values; what is not known, at any depth, is left aside."""
        return cls.model_validate(content, extra="ignore")

    def to_json(self) -> str:
        """The answer as a line of JSON, as the server sends it."""
        return self.model_dump_json(by_alias=True)
