"""What ``ztom up``, ``ztom admin create`` and ``ztom admin rotate-key`` do."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ztom.cli.console import plain_console, print_document
from ztom.errors import ConfigError
from ztom.io.problems import check_model
from ztom.io.yaml import parse_yaml
from ztom.ledger.accounts import NewUser, UserRecord
from ztom.ledger.ledger import Ledger
from ztom.ledger.passwords import hash_password
from ztom.settings import local_actor

if TYPE_CHECKING:
    from serve_apps.control_plane.config import ServerConfig
    from serve_apps.server.launch import Running

#: Where a password is looked for when nobody can type one.
PASSWORD_VARIABLE = "ZTOM_PASSWORD"


def server_config(data: Path, ledger: str | None, overrides: list[str]) -> ServerConfig:
    """The configuration that the options, and the environment, describe.

    Raises:
        ConfigError: An option is misspelt or out of range.
    """
    from serve_apps.control_plane.config import ServerConfig

    values: dict[str, object] = {"data": data}
    if ledger is not None:
        values["ledger"] = ledger
    values |= parse_settings(overrides)
    return check_model(ServerConfig, values, wrong="the server's options are wrong")


def parse_settings(settings: list[str]) -> dict[str, object]:
    """What ``--set KEY=VALUE`` says; values are YAML.

    Raises:
        ConfigError: One is not of this form.
    """
    values: dict[str, object] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError("an option is not KEY=VALUE", got=setting)
        name = key.strip()
        values[name] = parse_yaml(text, source=f"the value of {name}", json_only=False)
    return values


def up_command(config: ServerConfig, *, host: str, port: int, as_json: bool = False) -> None:
    """Run a server until it is stopped."""
    from serve_apps.server.launch import run_server

    console = plain_console(stderr=as_json)

    def say(running: Running) -> None:
        if as_json:
            print_document(
                {
                    "url": running.url,
                    "dashboard": running.dashboard,
                    "data": config.data.absolute(),
                }
            )
        console.print(f"Z-TOM serves at {running.url}")
        console.print(f"  docs       {running.url}/docs")
        console.print(f"  dashboard  {running.dashboard}")
        console.print(f"  data       {config.data}", soft_wrap=True)
        if not any(user.is_admin for user in _users(config)):
            console.print(
                f"  no administrator yet: ztom admin create NAME ADDRESS --data {config.data}",
                soft_wrap=True,
            )
        console.print("Ctrl-C stops it.")

    run_server(config, host=host, port=port, on_ready=say)


def create_admin_command(
    username: str, address: str, config: ServerConfig, *, stdin: bool, as_json: bool = False
) -> None:
    """Make an administrator's account, in the ledger itself."""
    config.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    password = read_password(stdin=stdin, twice=True)
    with Ledger.open(config.ledger_address) as ledger:
        user = ledger.accounts.create(
            NewUser(username, address, hash_password(password), is_admin=True),
            actor=local_actor(),
        )
    if as_json:
        print_document({"id": user.id, "username": user.username})
    else:
        plain_console().print(f"{user.username} is an administrator")


def rotate_key_command(config: ServerConfig) -> None:
    """Sign tokens with a new key; the one before still verifies, the ones before that do not."""
    from serve_apps.control_plane.tokens import rotate

    rotate(config.keys / "jwt.keys")
    plain_console().print("tokens are signed with a new key from the server's next start")


def _users(config: ServerConfig) -> tuple[UserRecord, ...]:
    with Ledger.open(config.ledger_address) as ledger:
        return ledger.accounts.all()


def read_password(*, stdin: bool, twice: bool) -> str:
    """Typed, or from standard input or the environment; never from the command line.

    Raises:
        ConfigError: There is nobody to type it, or it was typed differently.
    """
    if stdin:
        return sys.stdin.readline().rstrip("\n")
    from_environment = os.environ.get(PASSWORD_VARIABLE)
    if from_environment is not None:
        return from_environment
    if not sys.stdin.isatty():
        raise ConfigError(
            "there is nobody to ask for the password",
            fix=f"Give --password-stdin, or set {PASSWORD_VARIABLE}.",
        )
    password = getpass.getpass("password: ")
    if twice and getpass.getpass("once more: ") != password:
        raise ConfigError("the two passwords differ")
    return password
