"""The three kinds of models on the wire."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel


def _is_empty(value: tuple[str, ...]) -> bool:
    return not value


#: What was left aside of a request; absent from the JSON where there is nothing.
Warnings = Annotated[tuple[str, ...], Field(exclude_if=_is_empty)]


#: Largest number of a request, either way: what a ledger can keep.
LARGEST_NUMBER = 2**63 - 1


class WireRequest(BaseModel):
    """A request that may hold nothing but its fields, and no number that nobody can mean."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=True
    )

    @model_validator(mode="after")
    def _has_usual_numbers(self) -> Self:
        for name in type(self).model_fields:
            for number in _numbers_in(getattr(self, name)):
                if not -LARGEST_NUMBER <= number <= LARGEST_NUMBER:  # nor is NaN
                    alias = type(self).model_fields[name].alias or name
                    raise ValueError(f"{alias} holds a number that is not finite or beyond 2^63")
        return self

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


def _numbers_in(value: object) -> Iterator[int | float]:
    """Every number of a value, at any depth."""
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _numbers_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _numbers_in(item)
    elif isinstance(value, BaseModel):
        yield from _numbers_in(value.__dict__)
