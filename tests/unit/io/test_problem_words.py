"""Pydantic's own words never show: every kind of problem that it knows has words of ours."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import core_schema

from ztom.errors import ConfigError
from ztom.io.problem_words import words_for
from ztom.io.problems import check_model

ROOT = Path(__file__).resolve().parents[3]
CONTEXT = {
    **dict.fromkeys(("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length"), 3),
    **dict.fromkeys(("pattern", "expected", "error"), "x"),
}
#: How pydantic's sentences begin.
THEIRS = ("Input", "Field", "String", "List", "Value", "Unable", "Object", "Data", "Tuple")


@pytest.mark.parametrize("kind", get_args(core_schema.ErrorType))
def test_every_kind_of_problem_has_words(kind: str) -> None:
    message = "Value error, the factors differ." if kind == "value_error" else "Input should be it"
    words = words_for({"type": kind, "msg": message, "ctx": CONTEXT})
    if kind == "assertion_error":
        assert words == "Input should be it"  # what our own assertion says
        return
    assert words
    assert not words.startswith(THEIRS)


class Steps(BaseModel):
    model_config = ConfigDict(extra="forbid")

    count: int = 0
    share: float = Field(default=0.5, ge=0, le=1)
    finite: float = Field(default=0.5, allow_inf_nan=False)
    name: str = Field(default="a", min_length=1, max_length=3, pattern="^[a-z]+$")
    form: Literal["dense", "adapter"] = "dense"
    only: Literal["dense"] = "dense"
    on: bool = False
    tags: Annotated[tuple[str, ...], Field(max_length=1)] = ()
    nested: dict[str, int] = {}
    either: int | tuple[int, ...] = 1

    @field_validator("form")
    @classmethod
    def _fits(cls, form: str) -> str:
        if form == "adapter":
            raise ValueError("the chain has no adapters: write it dense.")
        return form


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": "x"}, "count: has to be a whole number"),
        ({"count": 1.5}, "count: has to be a whole number"),
        ({"share": 1.5}, "share: has to be at most 1.0"),
        ({"share": -1}, "share: has to be at least 0.0"),
        ({"finite": float("nan")}, "finite: has to be a finite number"),
        ({"name": ""}, "name: has to have at least 1 character"),
        ({"name": "abcd"}, "name: has to have at most 3 characters"),
        ({"name": "A"}, "name: has to be of the form ^[a-z]+$"),
        ({"name": 1}, "name: has to be text"),
        ({"form": "x"}, "form: has to be one of 'dense' or 'adapter'"),
        ({"form": "adapter"}, "form: the chain has no adapters: write it dense"),
        ({"only": "x"}, "only: has to be 'dense'"),
        ({"on": 7}, "on: has to be true or false"),
        ({"tags": ["a", "b"]}, "tags: has to have at most 1 entry"),
        ({"tags": "a"}, "tags: has to be a list"),
        ({"nested": []}, "nested: has to be keys and values"),
        ({"cuont": 1}, "cuont: no such key (did you mean count?)"),
    ],
)
def test_what_is_wrong_is_said_in_our_words(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        check_model(Steps, values, wrong="the steps are wrong")
    assert str(refusal.value) == f"the steps are wrong: {message}"


def test_nobody_but_one_room_reads_pydantics_messages() -> None:
    """``error.errors()[0]["msg"]`` stands in `ztom.io` alone."""
    offenders = []
    for package in ("ztom", "tune_search", "serve_apps", "cluster"):
        for path in sorted((ROOT / package).rglob("*.py")):
            where = path.relative_to(ROOT).as_posix()
            if where == "ztom/io/problem_words.py":
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                is_key = isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant)
                if is_key and node.slice.value == "msg":
                    offenders.append(f"{where}:{node.lineno}")
    assert offenders == []


def test_an_error_of_pydantic_itself_is_told_alike() -> None:
    with pytest.raises(ValidationError) as refusal:
        Steps(count="x")
    (details,) = refusal.value.errors(include_url=False)
    assert words_for(details) == "has to be a whole number"
