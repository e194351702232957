"""Nothing is cut: what is copied from a narrow terminal or a pipe is whole."""

from __future__ import annotations

import pytest
from rich.table import Table

from ztom.cli.actions.answers import print_table
from ztom.cli.console import plain_console, print_error

ID = "0123456789abcdef" * 4


@pytest.mark.parametrize("columns", ["20", "80", "200"])
def test_ids_and_reasons_stay_in_one_piece(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    table = Table("deployment", "reason", box=None, pad_edge=False)
    table.add_row(ID, f"[{ID}] :cat: " * 5)
    table.add_row("short", "")
    plain_console().print(table)
    plain_console().print(f"variant {ID} in /a/{ID}")
    print_error(f"no such thing: {ID} {ID}")
    printed = capsys.readouterr()
    head, row, short, line = printed.out.splitlines()
    assert row == f"{ID}  {(f'[{ID}] :cat: ' * 5).rstrip()}"
    assert line == f"variant {ID} in /a/{ID}"
    assert printed.err == f"no such thing: {ID} {ID}\n"
    assert (head.split(), short) == (["deployment", "reason"], "short"), "no blanks at the end"


def test_a_table_of_answers_has_empty_cells_for_none(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([], ("user", "name"), [(ID, None), (None, "ada")], as_json=False)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["user", "name"],
        [ID],
        ["ada"],
    ]
    print_table([{"a": 1}], ("user",), [], as_json=True)
    assert capsys.readouterr().out == '[\n {\n  "a": 1\n }\n]\n'
