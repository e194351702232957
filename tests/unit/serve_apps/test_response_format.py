"""Formats and schemas that clients ask for: bounded before an engine sees them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from serve_apps.variants.response_format import response_format_problem, schema_problem
from serve_apps.variants.tool_parsers import named_parser

PERSON = {"type": "object", "properties": {"name": {"type": "string", "pattern": "^[a-z]{1,20}$"}}}
TREE = {"$defs": {"t": {"properties": {"left": {"$ref": "#/$defs/t"}}}}, "$ref": "#/$defs/t"}


def _format(schema: object) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}


@pytest.mark.parametrize(
    "value", [{"type": "text"}, {"type": "json_object"}, _format(PERSON), _format(TREE)]
)
def test_what_an_engine_can_keep_to(value: object) -> None:
    assert response_format_problem(value) is None


def _deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


LOOP = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}


@pytest.mark.abuse(107)
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("json", "an object with a type"),
        ([], "an object with a type"),
        ({}, "an object with a type"),
        ({"type": ["text"]}, "an object with a type"),
        ({"type": "json_schema"}, "needs a name and a schema"),
        (_format("x"), "needs a name and a schema"),
        (_format(LOOP), "leads back to itself"),
        (_format({"$ref": "#"}), "leads back to itself"),
        (_format({"$ref": "#/$defs/none"}), "leads nowhere"),
        (_format({"$ref": "https://example.org/schema"}), "leads out of the schema"),
        (_format({"$ref": "file:///etc/passwd"}), "leads out of the schema"),
        (_format({"pattern": "(a{1,1000}){1,1000}"}), "repeats more than 4096 times"),
        (_format({"pattern": "a{999999999999999}"}), "repeats more than 4096 times"),
        (_format({"pattern": "(a"}), "no regular expression"),
        (_format({"pattern": "a" * 2000}), "more than 1024 characters"),
        (_format({"pattern": "a*" * 100}), "more than 64 open repetitions"),
        (_format({"maxLength": 10**9}), "maxLength must be"),
        (_format({"minItems": 1e30}), "minItems must be"),
        (_format({"enum": ["a"] * 10_000}), "too large"),
        (_format(_deep(400)), "nested deeper than 32"),
        (_format({"oneOf": [{"pattern": "a"}] * 100}), "more than 64 patterns"),
        (
            _format({"$ref": "#/d0", **{f"d{i}": {"$ref": f"#/d{i + 1}"} for i in range(99)}}),
            "more than 64 $refs",
        ),
    ],
)
def test_what_would_not_end_is_refused_at_once(value: object, reason: str) -> None:
    began = time.monotonic()
    assert reason in (response_format_problem(value) or "")
    assert time.monotonic() - began < 1.0


@pytest.mark.abuse(107)
def test_a_wide_schema_is_refused_in_bounded_time() -> None:
    wide = {"properties": {f"p{i}": {"type": "string"} for i in range(100_000)}}
    began = time.monotonic()
    assert "too large" in (schema_problem(wide) or "")
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize(
    ("option", "template", "parser"),
    [
        ("auto", "{{ '<tool_call>' }}", "hermes"),
        ("auto", "{{ '<tool_call>\\n<function=' }}", "qwen3_coder"),
        ("auto", {"default": "", "tool_use": "<|python_tag|>"}, "llama3_json"),
        ("auto", "[TOOL_CALLS]", "mistral"),
        ("auto", "{{ messages }}", None),
        ("auto", None, None),
        ("pythonic", "{{ messages }}", "pythonic"),
        ("pythonic", None, None),
        ("none", "<tool_call>", None),
    ],
)
def test_the_parser_of_calls_follows_from_the_template(
    option: str, template: object, parser: str | None
) -> None:
    assert named_parser(option, template) == parser
