"""The code of docs/extending.md runs, and passes the suites that the page itself names."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from ztom.plugins import Group

PAGE = Path(__file__).parents[3] / "docs" / "extending.md"
_BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
for _language, _code in _BLOCKS:
    if _language == "python":
        exec(compile(_code, str(PAGE), "exec"), globals())  # pytest collects the page's classes


def test_every_block_is_python_or_toml() -> None:
    assert {language for language, _ in _BLOCKS} == {"python", "toml"}


def test_the_suites_of_the_page_are_run() -> None:
    assert {"TestWorstToken", "TestHalton", "TestShelf"} <= set(globals())


def test_groups_of_entry_points_exist() -> None:
    (text,) = (code for language, code in _BLOCKS if language == "toml")
    assert set(tomllib.loads(text)["project"]["entry-points"]) <= set(Group)
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"`{group}`" in page for group in Group)


def test_the_engine_of_the_page_is_made(tmp_path: Path) -> None:
    from ztom.engines.config import EngineConfig

    make = globals()["make_engine"]
    assert callable(make)
    assert make(EngineConfig(), tmp_path, None).factors == ()


@pytest.mark.parametrize("name", ["ztom.testing.fake_engine:make_engine"])
def test_the_fake_engine_is_found_as_the_page_says(name: str, tmp_path: Path) -> None:
    from ztom.engines.build import build_single
    from ztom.engines.config import EngineConfig

    assert build_single(EngineConfig(name=name), tmp_path).info.name == "fake"
