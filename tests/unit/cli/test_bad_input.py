"""Every command with input that cannot be right: one sentence, status 3, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import every_command, ztom
from typer.core import TyperCommand

from ztom.io.heartbeat import Heartbeat, current

#: What is typed after each command, and a part of what is said.
FILES = {
    "search": ("nothing.yaml", "nothing.yaml cannot be read"),
    "demo": ("--folder gs://bucket/demo", "--folder is an address"),
    "blend": ("binary --factors 0 --output v", "binary cannot be read"),
    "inspect": ("binary", "binary cannot be read"),
    "verify": ("folder", "folder is not a variant"),
    "eval": ("folder --suite folder", "folder"),
    "serve": ("binary", "binary is not a variant"),
    "log": ("binary", "ledger"),
    "audit verify": ("binary", "ledger"),
    "audit sign": ("binary --output h --key k", "ledger"),
    "audit show": ("x --ledger binary", "ledger"),
    "up": ("--data binary/data", "not a directory"),
    "admin create": ("a b@c.d --data binary/data", "not a directory"),
    "admin rotate-key": ("--data gs://bucket/x", "--data is an address"),
    "gate": ("--candidate-run binary", "no verdict: "),
    "gate render": ("binary", "is no verdict"),
    "signing-key create": ("binary", "binary exists"),
    "signing-key show": ("binary", "binary"),
    "suite new": ("x --root binary", "binary"),
    "suite examples": ("--no-such-option", "no such option: --no-such-option"),
    "suite from-csv": ("binary --output s --owner a", "binary"),
    "suite lock": ("nothing", "nothing"),
    "suite check": ("nothing", "nothing"),
    "suite diff": ("nothing", "nothing"),
    "data check": ("binary", "binary"),
    "submit": ("nothing.yaml --cluster http://127.0.0.1:1", "nothing.yaml cannot be read"),
    "plan": ("nothing --machine g2-standard-24", "nothing"),
    "cluster start": ("--host nowhere --no-such-option", "no such option: --no-such-option"),
    "cluster join": ("binary --host nowhere --no-such-option", "no such option: --no-such-option"),
    "cluster settings": ("--no-such-option", "no such option: --no-such-option"),
    "data add": ("folder binary", "binary"),
    "data version": ("nothing", "nothing"),
    "data show": ("nothing", "nothing"),
    "data diff": ("nothing 1 2", "nothing"),
    "data export": ("nothing train --output o", "nothing"),
    "data label": ("nothing --source a", "nothing"),
    "drift replay": ("nothing nothing", "nothing"),
    "drift plan": ("nothing --reference nothing", "nothing"),
    "drift acted": ("binary", "binary is no state of a monitor"),
    "chain": ("nothing", "nothing"),
    "convert": ("nothing c", "nothing"),
    "push": ("folder org/name", "folder"),
    "doctor": ("--no-such-option", "no such option: --no-such-option"),
}
#: Of a server: an address that is none, which is seen before anything is sent.
REMOTE = {
    "deploy": "folder --alias a",
    "promote": "a",
    "rollback": "a",
    "status": "",
    "apply": "endpoints.yaml",
    "release list": "",
    "release show": "a",
    "release watch": "a",
    "release tell": "a promote",
    "endpoint list": "",
    "endpoint show": "a",
    "endpoint traffic": "a --canary 5",
    "endpoint remove": "a",
    "endpoint remove-rule": "a --key x",
    "deployment list": "",
    "deployment show": "a",
    "deployment cancel": "a",
    "verdict record": "endpoints.yaml",
    "verdict list": "",
    "verdict show": "0",
    "signing-key register": "ci key",
    "signing-key list": "",
    "signing-key revoke": "ci",
    "feedback": "r --score 1",
    "whoami": "",
    "usage": "",
    "limits": "",
    "project list": "",
    "project create": "p",
    "project change": "p --name q",
    "project delete": "p",
    "project add": "p folder",
    "project remove": "p f",
    "project data": "p binary",
    "project download": "p f --output o",
    "project edit": "p f --output o",
    "project metatune": "p --factor f=0.5 --output o",
    "analysis static": "p f",
    "analysis inference": "p/f binary",
    "analysis sensitivity": "p f binary",
    "searches list": "",
    "searches show": "r",
    "searches events": "r",
    "searches cancel": "r",
    "searches resume": "r",
    "searches result": "p r --output o",
    "user list": "",
    "user add": "a b@c.d",
    "user change": "a --disable",
    "user remove": "a",
    "user invite": "a@b.c",
    "user invitations": "",
    "user uninvite": "a@b.c",
    "member list": "p",
    "member add": "p b@c.d",
    "member change": "p a",
    "member remove": "p a",
    "key list": "",
    "key create": "k",
    "key revoke": "k",
}
#: The address of the server is an argument.
ADDRESSED = {"login": "http://127.0.0.1:port ada", "logout": "http://127.0.0.1:port"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, a file that is no text, and nobody who is logged in anywhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("ZTOM_PASSWORD", "a password of some length")
    monkeypatch.delenv("ZTOM_SERVER", raising=False)
    monkeypatch.setenv("ZTOM_API_KEY", "key")
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    (tmp_path / "endpoints.yaml").write_text("endpoints: {}\n")
    return tmp_path


def assert_one_sentence(line: str, message: str) -> None:
    done = ztom(*line.split())
    said = [text for text in done.stderr.splitlines() if not text.endswith(" ...")]
    assert done.returncode == 3, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert len(said) == 1, done.stderr
    assert message in said[0]
    assert "Input should be" not in said[0]


def test_the_tables_name_every_command() -> None:
    there = {name for name, command in every_command() if not hasattr(command, "commands")}
    assert {*FILES, *REMOTE, *ADDRESSED} == there | {"gate"}


@pytest.mark.abuse(125)
@pytest.mark.parametrize("name", [*FILES, *REMOTE, *ADDRESSED])
def test_no_command_is_silent_in_a_pipe(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a command does, it does it under a heartbeat."""
    seen: list[Heartbeat | None] = []
    monkeypatch.setattr(TyperCommand, "invoke", lambda *_: seen.append(current()))
    monkeypatch.setattr("ztom.cli.gate.run.gate_command", lambda _: seen.append(current()))
    arguments = {**{name: line for name, (line, _) in FILES.items()}, **REMOTE, **ADDRESSED}[name]
    usual = arguments.replace("gs://bucket/", "").replace("--no-such-option", "")
    done = ztom(*name.split(), *usual.split())
    assert [type(heartbeat) for heartbeat in seen] == [Heartbeat], done.stderr
    assert current() is None


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_none(name: str) -> None:
    arguments, message = FILES[name]
    assert_one_sentence(f"{name} {arguments}", message)


@pytest.mark.parametrize("name", REMOTE)
def test_a_server_that_is_none(name: str) -> None:
    assert_one_sentence(
        f"{name} {REMOTE[name]} --server http://127.0.0.1:port", "the server's address is none"
    )


@pytest.mark.parametrize("name", REMOTE)
def test_no_server_at_all(name: str) -> None:
    assert_one_sentence(f"{name} {REMOTE[name]}", "no server is named")


@pytest.mark.parametrize("name", ADDRESSED)
def test_an_address_that_is_none(name: str) -> None:
    message = "the server's address is none" if name == "login" else "nobody is logged in"
    assert_one_sentence(f"{name} {ADDRESSED[name]}", message)


@pytest.mark.parametrize(
    ("variable", "line"),
    [
        ("ZTOM_ALLOWED_ROOTS", "inspect chain.yaml"),
        ("ZTOM_SERVER_POINTER_ROOTS", "up --data data"),
        ("ZTOM_ALLOWED_ROOTS", "up --data data"),
    ],
)
def test_settings_that_are_not_json(
    folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str, line: str
) -> None:
    (folder / "chain.yaml").write_text("checkpoints: [a, b]\n")
    monkeypatch.setenv(variable, "/models")
    assert_one_sentence(line, f"{variable} is not valid JSON")
