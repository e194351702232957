"""Output never goes to a local folder that is called like a scheme."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from serve_apps.control_plane.config import ServerConfig
from ztom.cli.main import app
from ztom.client import Client
from ztom.errors import ConfigError, LedgerError
from ztom.io.places import require_local
from ztom.ledger import Ledger
from ztom.search.config_files import parse_config
from ztom.settings import Settings

ADDRESS = "gs://team-models/out"
#: Every command that writes, with what it needs besides.
COMMANDS = {
    "suite-new": ["suite", "new", "mine", "--root", ADDRESS],
    "suite-from-csv": ["suite", "from-csv", "t.csv", "--output", ADDRESS, "--owner", "me"],
    "audit-sign-key": ["audit", "sign", "ledger.db", "--output", "head", "--key", ADDRESS],
    "download": ["project", "download", "p", "f", "--output", ADDRESS],
    "edit": ["project", "edit", "p", "f", "--output", ADDRESS],
    "metatune": ["project", "metatune", "p", "--factor", "f=0.5", "--output", ADDRESS],
    "search-result": ["searches", "result", "p", "r", "--output", ADDRESS],
    "chain": ["chain", "run", "--output", ADDRESS],
    "data-export": ["data", "export", "support", "train", "--output", ADDRESS],
    "convert": ["convert", "model", ADDRESS],
    "demo": ["demo", "--folder", ADDRESS],
    "up": ["up", "--data", ADDRESS],
    "admin": ["admin", "create", "ada", "ada@example.org", "--data", ADDRESS],
    "admin-rotate-key": ["admin", "rotate-key", "--data", ADDRESS],
}
#: Options that take an address of a store.
TAKEN = {("blend", "output"), ("eval", "out"), ("gate", "out"), ("audit sign", "output")}
#: Options and arguments of the same names that say what is read, or which key is meant.
INPUTS = {
    ("chain", "folder"),
    ("key revoke", "key"),
    ("endpoint remove-rule", "key"),
    ("signing-key register", "key"),
}
SEARCH = {"chain": "c.yaml", "stimuli": "s.txt", "error": "rouge_l"}


@pytest.mark.abuse(116)
@pytest.mark.parametrize(
    "place", [ADDRESS, "s3://b/x", "memory://x", "file:///tmp/x", "abfs+x://a", Path("gs://b/x")]
)
def test_addresses_are_refused(place: str | Path) -> None:
    with pytest.raises(ConfigError, match=r"the output is an address: got \w+[+\w]*://"):
        require_local(place, what="the output")


@pytest.mark.parametrize("place", ["out", "/tmp/out", "a:b", "./x", "../x", "runs/a", Path("x")])
def test_paths_are_taken_as_they_are(place: str | Path) -> None:
    assert require_local(place, what="the output") == place


@pytest.mark.abuse(116)
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_refuses_an_address_before_any_work(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, COMMANDS[name])
    assert done.exit_code
    assert f"{done.exception}{done.output}".replace("\n", "").count(ADDRESS) == 1, done.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line",
    [
        "blend chain.yaml --factors 0.1 --output",
        "eval model --suite suites --out",
        "gate --candidate model --out",
        "audit sign ledger.db --key key --output",
    ],
)
def test_what_takes_an_address_refuses_another_scheme_and_odd_ones(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for address in ("abfs://bucket/x", "gs://bucket/../x"):
        done = CliRunner().invoke(app, [*line.split(), address])
        assert done.exit_code
        assert address in f"{done.exception}{done.output}".replace("\n", "")
    assert list(tmp_path.iterdir()) == []


def test_no_command_has_an_output_that_is_not_checked() -> None:
    """A new option of these names has to be listed above."""
    group = typer.main.get_command(app)
    found = set()

    def walk(command: object, name: str) -> None:
        for child, below in (getattr(command, "commands", None) or {}).items():
            walk(below, f"{name} {child}".strip())
        for option in getattr(command, "params", ()):
            if option.name in ("output", "out", "folder", "root", "data", "key"):
                found.add((name, option.name))

    walk(group, "")
    listed = (
        INPUTS
        | TAKEN
        | {
            (" ".join(part for part in line if part in _WORDS), _option(option))
            for line in COMMANDS.values()
            for option in line[line.index(ADDRESS) - 1 : line.index(ADDRESS)]
        }
    )
    assert {(name, option) for name, option in found if (name, option) not in listed} == set()


def _option(word: str) -> str:
    """What stands before the address: an option, or an argument, which is then the output."""
    return word.removeprefix("--") if word.startswith("--") else "output"


_WORDS = {
    *("blend", "eval", "gate", "suite", "new", "from-csv", "audit", "sign", "project"),
    *("download", "demo", "up", "admin", "create", "rotate-key", "searches", "result", "chain"),
    *("convert", "edit", "metatune", "data", "export"),
}


def test_a_search_writes_to_an_address_only_with_a_ledger_elsewhere(tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        with pytest.raises(ConfigError, match=f"output is an address .{ADDRESS}.*PostgreSQL"):
            parse_config({**SEARCH, "output": ADDRESS}, folder=folder)
        ledger = "postgresql+psycopg://db/ztom"
        taken = parse_config({**SEARCH, "output": ADDRESS, "ledger": ledger}, folder=folder)
        assert str(taken.output) == taken.model_dump(mode="json")["output"] == ADDRESS
    for ledger in (ADDRESS, "s3://bucket/ledger.db"):
        with pytest.raises(ConfigError, match=f"ledger is an address of a store: {ledger}"):
            parse_config({**SEARCH, "ledger": ledger})
        with pytest.raises(LedgerError, match="cannot be an object of a store.*PostgreSQL"):
            Ledger.open(ledger)
        with pytest.raises(ValueError, match="PostgreSQL"):
            ServerConfig(ledger=ledger)
    with pytest.raises(ConfigError, match="where tensorboard cannot write"):
        parse_config(
            {**SEARCH, "output": ADDRESS, "ledger": "x.db", "trackers": ["tensorboard"]},
        )
    for place in ("file:///tmp/x", "gs://b/../x", "abfs://b/x"):
        with pytest.raises(ConfigError, match="output"):
            parse_config({**SEARCH, "output": place, "ledger": "x.db"})
    kept = parse_config({**SEARCH, "variant": {"copy_to": ADDRESS}})
    assert kept.variant.copy_to == ADDRESS


def test_the_library_refuses_it_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=ADDRESS):
        ServerConfig(data=Path(ADDRESS))
    with pytest.raises(ValueError, match=ADDRESS):
        Settings(cache_dir=Path(ADDRESS))
    with Client("http://127.0.0.1:9", key="k") as client:
        for save in (client.download, client.artifact):
            with pytest.raises(ConfigError, match=ADDRESS):
                save("p", "f", ADDRESS)
        with pytest.raises(ConfigError, match=ADDRESS):
            client.metatune("p", {}, ADDRESS)
        with pytest.raises(ConfigError, match=ADDRESS):
            client.remove_training("p", [], ADDRESS)
    assert list(tmp_path.iterdir()) == []
