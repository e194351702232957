"""What several files of tests over a socket start from; some have a server of their own."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from gateway_calls import make_key
from server_commands import STANDS_STILL, Ran, Releasing, Terminal, Ztom
from server_helpers import Server
from variant_folders import chief_of, deploy, reading_variants

from ztom.cli.main import main
from ztom.client import Client


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with reading_variants(tmp_path) as server:
        yield server


@pytest.fixture
def admin(server: Server) -> Iterator[Client]:
    with chief_of(server) as client:
        yield client


@pytest.fixture
def key(server: Server) -> str:
    """An API key of a user who is nobody special."""
    return make_key(server, "ada")


@pytest.fixture
def ask(server: Server, key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
        yield client


@pytest.fixture
def ztom(
    server: Server,
    admin: Client,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Ztom:
    """Runs a command as the administrator; nobody is at the terminal unless somebody types."""
    monkeypatch.setenv("ZTOM_SERVER", server.url)
    monkeypatch.setenv("ZTOM_API_KEY", admin.key)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setattr("ztom.cli.actions.endpoints._POLL_S", 0.05)

    def run(*arguments: object, typed: str | None = None) -> Ran:
        if arguments[0] == "deploy" and "--wait" not in arguments:
            arguments += ("--wait", "30")  # not the ten minutes of the default
        monkeypatch.setattr(sys, "argv", ["ztom", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO() if typed is None else Terminal(typed))
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        return Ran(int(caught.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def releasing(server: Server, admin: Client, tmp_path: Path) -> Releasing:
    """Begins a release of `two` over `one`: the release and both digests."""

    def begin(**plan: Any) -> tuple[Any, str, str]:
        _, one = deploy(server, admin, "one")
        _, two = deploy(server, admin, "two", plan=STANDS_STILL | plan)
        (release,) = admin.endpoints.releases("support")
        return release, one, two

    return begin
