"""What is wrong with what was typed reads like every other error."""

from __future__ import annotations

import pytest
from command_line import ztom

from ztom.client.transfer import bar


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("serve v --port 99999", "invalid value for '--port': got 99999, expected less than or"),
        ("serve v --port x", "invalid value for '--port': got x, expected a valid integer"),
        ("blend chain.yaml", "missing option '--factors'"),
        ("blend c.yaml --factor 1", "no such option: --factor (Possible options: --factors)"),
        ("serv", "no such command 'serv' (did you mean 'serve', 'search'?)"),
        ("gate render", "no verdict: ConfigError: missing argument"),
        ("gate --ci jenkins", "got jenkins, expected one of 'github', 'gitlab'"),
        ("search --server http://x s.yaml", "--server is for a search of a project"),
        ("search s.yaml --project p --resume", "--resume and --ledger are for a search on this"),
        ("search", "no configuration is named. Start from --example."),
    ],
)
def test_a_wrong_line_is_one_message(line: str, message: str) -> None:
    done = ztom(*line.split())
    assert (done.returncode, done.stdout) == (3 if line.startswith("gate") else 2, "")
    assert done.stderr.count("\n") == 1
    assert "ConfigError: " in done.stderr
    assert message in done.stderr
    if not line.startswith("search"):
        where = " ".join(word for word in line.split()[:2] if word in ("gate", "render")) or (
            line.split()[0] if line != "serv" else ""
        )
        assert f"`{f'ztom {where}'.strip()} --help` says what it takes." in done.stderr


def test_a_title_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    """Names of files and projects come from outside; what is printed is them, on standard error."""
    with bar("[red]{task.nothing} [/]:smile:", 2, show=True) as advance:
        advance(2)
    printed = capsys.readouterr()
    assert "[red]{task.nothing} [/]:smile:" in printed.err
    assert printed.out == ""
