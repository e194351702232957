"""One sentence about everything that is wrong with what a person wrote."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, Field

from ztom.errors import ConfigError, VariantError
from ztom.io.problems import check_json, check_model


class Below(BaseModel):
    model_config = ConfigDict(extra="forbid")

    percent: float = Field(ge=0)


class Written(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    steps: list[Below] = []
    either: Below | bool = False
    by_name: dict[str, Below] = {}


def problem(data: object, **options: object) -> str:
    with pytest.raises(ConfigError) as caught:
        check_model(Written, data, wrong="the file is wrong", **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_what_fits_is_the_model() -> None:
    assert check_model(Written, {"name": "a"}, wrong="wrong").steps == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "the file is wrong: name: missing"),
        ({"name": "a", "stpes": []}, "stpes: no such key (did you mean steps?)"),
        ({"name": "a", "steps": [{"precent": 1}]}, "steps.0.percent: missing"),
        ({"name": "a", "steps": [{"precent": 1}]}, "precent: no such key (did you mean percent?)"),
        ({"name": "a", "steps": [{"percent": -1}]}, "steps.0.percent: has to be at least"),
        ({"name": "a", "either": {"percent": -1}}, "either.percent: has to be at least"),
        ({"name": "a", "by_name": {"Support": {}}}, "by_name.Support.percent: missing"),
        ([], "the whole: has to be keys and values"),
    ],
)
def test_places_are_those_that_were_written(data: object, message: str) -> None:
    assert message in problem(data)
    assert "Below" not in problem(data)


def test_lists_may_be_counted_from_one() -> None:
    data = {"name": "a", "steps": [{"percent": 1}, {"percent": -1}]}
    assert "steps.2.percent" in problem(data, first_index=1)


def test_values_are_quoted_only_when_asked_and_cut() -> None:
    data = {"name": "a", "steps": [{"percent": "x" * 200}]}
    assert "xxx" not in problem(data)
    assert f"got '{'x' * 80}'" in problem(data, quote=True)


def test_what_is_too_much_is_counted() -> None:
    data = {"name": "a", "steps": [{"percent": -1}] * 8}
    assert problem(data).endswith("and 3 more")


def test_a_json_document_is_checked_the_same_way() -> None:
    assert check_json(Written, b'{"name": "a"}', wrong="wrong").name == "a"
    with pytest.raises(VariantError, match=r"recipe\.json is wrong: nmae: no such key"):
        check_json(
            Written, '{"name": "a", "nmae": 1}', wrong="recipe.json is wrong", kind=VariantError
        )
    with pytest.raises(VariantError, match="is not valid JSON"):
        check_json(Written, b"{", wrong="recipe.json is wrong", kind=VariantError)
