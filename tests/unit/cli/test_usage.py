"""What is wrong with what was typed reads like every other error."""

from __future__ import annotations

import pytest
from command_line import ztom


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("serve v --port 99999", "invalid value for '--port': has to be at most 65535, got 99999"),
        ("serve v --port x", "invalid value for '--port': has to be a whole number, got x"),
        ("blend chain.yaml", "missing option '--factors'"),
        ("blend c.yaml --factor 1", "no such option: --factor (Possible options: --factors)"),
        ("serv", "no such command 'serv' (did you mean 'serve', 'user', 'search'?)"),
        ("gate render", "no verdict: ConfigError: missing argument"),
        ("gate --ci jenkins", "has to be one of 'github', 'gitlab', got jenkins"),
        ("search --server http://x s.yaml", "--server is for a search of a project"),
        ("search s.yaml --project p --resume", "--resume and --ledger are for a search on this"),
        ("search", "no configuration is named. Start from --example."),
    ],
)
def test_a_wrong_line_is_one_message(line: str, message: str) -> None:
    done = ztom(*line.split())
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1
    assert "ConfigError: " in done.stderr
    assert message in done.stderr
    if not line.startswith("search"):
        where = " ".join(word for word in line.split()[:2] if word in ("gate", "render")) or (
            line.split()[0] if line != "serv" else ""
        )
        assert f"`{f'ztom {where}'.strip()} --help` says what it takes." in done.stderr
