"""Schemas are tried out in another process; here its functions are a few lines long. Row 107."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_apps.variants.schema_check import SchemaCheck, schemas_of

TASKS = "schema_tasks_of_the_test"


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SchemaCheck]:
    (tmp_path / f"{TASKS}.py").write_text(
        "known, calls = set(), []\n"
        "def learn(name, info):\n    assert info == 'vocabulary'\n    known.add(name)\n"
        "def knows(name): return name in known\n"
        "def convert(schemas):\n"
        "    calls.append(schemas)\n"
        "    while 'spin' in schemas[0]: pass\n"
        "def compile_for(name, schemas):\n"
        "    assert name in known\n"
        "    if 'swell' in schemas[0]: bytearray(2**40)\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    check = SchemaCheck(lambda: "vocabulary", tasks=TASKS)
    yield check
    check.close()


@pytest.mark.abuse(107)
def test_what_needs_too_much_is_refused_and_what_does_not_passes(check: SchemaCheck) -> None:
    async def run() -> list[str | None]:
        schemas = [{"title": "a"}, {"title": "spin"}, {"title": "b"}, {"title": "swell"}] * 2
        return [await check.problem([schema]) for schema in schemas]

    fine, spins, again, swells = asyncio.run(run())[4:]
    assert (fine, again) == (None, None)
    assert (
        spins == "the schema is too complex to compile: it needed more computing than it may have"
    )
    assert "more memory than it may have" in str(swells)


def test_schemas_are_those_of_formats_and_tools() -> None:
    schema = {"type": "object"}
    tools = [
        {"type": "function", "function": {"name": "a", "parameters": schema}},
        {"type": "function", "function": {"name": "b"}},
    ]
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "string"}}}
    assert schemas_of({"messages": []}) == []
    assert schemas_of({"response_format": {"type": "json_object"}}) == []
    assert schemas_of({"response_format": form, "tools": tools}) == [{"type": "string"}, schema]
