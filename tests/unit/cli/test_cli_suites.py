"""``ztom suite``: what a user types, and what comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ztom.cli.main import app
from ztom.errors import EvaluationError, ZtomError


def suite(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["suite", *map(str, arguments)])


@pytest.fixture
def made(tmp_path: Path) -> Path:
    done = suite("new", "mine", "--example", "regression", "--root", tmp_path)
    assert done.exit_code == 0, done.output
    assert "mine 0.1.0: 26 items, frozen, exact_match" in done.output
    return tmp_path / "mine"


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_from_new_to_a_lock_to_a_new_version(made: Path) -> None:
    assert suite("check", made).exit_code == 1
    assert "not locked" in suite("check", made).output
    locked = suite("lock", made)
    assert locked.exit_code == 0
    assert "mine 0.1.0 locked: 26 items" in locked.output
    assert suite("check", made, made.parent).exit_code == 0
    edit(made / "items.jsonl", "18:00", "19:00")
    for command in ("check", "diff"):
        differs = suite(command, made)
        assert differs.exit_code == 1
        assert "changed: regression-01" in differs.output
        assert "Only a version above 0.1.0 in suite.yaml is missing" in differs.output
    refused = suite("lock", made)
    assert isinstance(refused.exception, EvaluationError)
    edit(made / "suite.yaml", "version: 0.1.0", "version: 0.2.0")
    assert suite("lock", made).exit_code == 0
    assert suite("check", made).exit_code == 0


def test_what_cannot_be_read_is_another_status(made: Path, tmp_path: Path) -> None:
    suite("lock", made)
    with (made / "items.jsonl").open("a") as file:
        file.write("{\n")
    for arguments in (("check", made), ("check", tmp_path), ("diff", made), ("diff", made, made)):
        done = suite(*arguments)
        assert done.exit_code == 3
        assert "items.jsonl, line 27: not JSON" in done.output
    assert suite("check", tmp_path / "nowhere").exit_code == 3
    (made / "suite.lock").write_text("[red]x[/red]")
    edit(made / "items.jsonl", "{\n", "")
    assert suite("check", made).exit_code == 3


def test_two_folders_are_compared_in_detail(made: Path, tmp_path: Path) -> None:
    suite("new", "other", "--example", "regression", "--root", tmp_path)
    other = tmp_path / "other"
    same = suite("diff", other, other)
    assert (same.exit_code, same.output.strip()) == (0, "no difference")
    edit(other / "items.jsonl", "950 g or 1.1 kg", "950 g or 1.2 kg")
    edit(other / "suite.yaml", "minimum_n: 20", "minimum_n: 25")
    done = suite("diff", made, other)
    assert done.exit_code == 1
    lines = done.output.splitlines()
    assert "minimum_n: 20 -> 25" in lines
    assert "name: 'mine' -> 'other'" in lines
    assert "regression-15: input" in lines
    assert "950" not in done.output


def test_texts_of_files_are_never_markup(made: Path) -> None:
    edit(made / "items.jsonl", '"id": "regression-01"', '"id": "[bold]one[/bold]:smile:"')
    suite("lock", made)
    edit(made / "items.jsonl", "How many days", "How many long days")
    assert "1 changed: [bold]one[/bold]:smile:" in suite("check", made).output


def test_fewer_items_than_the_minimum_are_said(made: Path) -> None:
    edit(made / "suite.yaml", "minimum_n: 20", "minimum_n: 200")
    done = suite("lock", made)
    assert done.exit_code == 0
    assert "fewer items than minimum_n (200)" in done.output


def test_a_margin_that_nothing_can_show_is_said(tmp_path: Path) -> None:
    suite("new", "mine", "--root", tmp_path)
    made = tmp_path / "mine"
    assert "warning" not in suite("lock", made).output
    edit(made / "suite.yaml", "margin: 0.06", "margin: 0.03")
    edit(made / "suite.yaml", "version: 0.1.0", "version: 0.2.0")
    for command in ("lock", "check"):
        done = suite(command, made)
        assert done.exit_code == 0
        assert "show no margin below 0.057, and 0.03 is asked for" in done.output
        assert "about 124 items would do" in done.output


def test_from_a_table(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("text,category\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(60)))
    options = ("--target", "category", "--n", 40, "--seed", 3, "--owner", "us")
    done = suite("from-csv", file, "--output", tmp_path / "pairs", *options)
    assert done.exit_code == 0, done.output
    assert "pairs 1.0.0: 40 items, task, accuracy" in done.output
    assert suite("check", tmp_path / "pairs").exit_code == 0
    for wrong in (("--metric", "beauty"), ("--text", "words")):
        refused = suite("from-csv", file, "--output", tmp_path / "x", *options, *wrong)
        assert isinstance(refused.exception, ZtomError)
    assert not (tmp_path / "x").exists()


def test_examples_are_listed() -> None:
    assert "code-review 1.0.0: 63 items, task, macro_f1" in suite("examples").output
