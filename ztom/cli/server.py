"""Commands on a server's own machine: ``ztom up`` and ``ztom admin``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ztom.cli.options import (
    LEDGER_HELP,
    HelpPanel,
    Json,
    PasswordStdin,
    Settings,
    command_group,
    examples,
)
from ztom.cli.places import local_only
from ztom.io.disk import require_place
from ztom.stack import require_stack

server_commands = command_group(None, "The server.")
admin = command_group(
    "admin",
    "Look after a server: accounts and keys.",
    "ztom admin create ada ada@example.org --data ztom-data",
)

Data = Annotated[
    Path, typer.Option(callback=local_only, help="Keep the server's data in this folder.")
]
LedgerAddress = Annotated[
    str | None, typer.Option(help=f"{LEDGER_HELP} Without it, ledger.db in the data folder.")
]


@server_commands.command(
    rich_help_panel=HelpPanel.SERVER,
    epilog=examples("ztom up", "ztom up --data /srv/ztom --host 0.0.0.0 --port 8080"),
)
def up(
    data: Data = Path("ztom-data"),
    host: Annotated[str, typer.Option(help="Listen on this address.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Listen on this port; 0 takes a free one.")
    ] = 8000,
    ledger: LedgerAddress = None,
    without_deadlines: Annotated[
        bool,
        typer.Option(
            "--without-deadlines", help="Go on where the doors of a cluster keep no deadlines."
        ),
    ] = False,
    set: Settings = None,
    as_json: Json = False,
) -> None:
    """Run the server, on this machine or at RAY_ADDRESS: projects, searches, edits over HTTP."""
    from ztom.cli.actions.server_options import server_config

    config = server_config(data, ledger, set or [])
    require_place(config.data, what="--data")
    require_stack()
    from ztom.cli.actions.server import up_command

    up_command(config, host=host, port=port, without_deadlines=without_deadlines, as_json=as_json)


@admin.command("create", epilog=examples("ztom admin create ada ada@example.org"))
def admin_create(
    username: Annotated[str, typer.Argument(help="Name to log in with.")],
    address: Annotated[str, typer.Argument(help="E-mail address to log in with.")],
    data: Data = Path("ztom-data"),
    ledger: LedgerAddress = None,
    password_stdin: PasswordStdin = False,
    as_json: Json = False,
) -> None:
    """Make an administrator's account; the first one of a server is made like this."""
    from ztom.cli.actions.server import create_admin_command
    from ztom.cli.actions.server_options import server_config

    config = server_config(data, ledger, [])
    create_admin_command(username, address, config, stdin=password_stdin, as_json=as_json)


@admin.command("rotate-key", epilog=examples("ztom admin rotate-key --data ztom-data"))
def admin_rotate_key(data: Data = Path("ztom-data"), ledger: LedgerAddress = None) -> None:
    """Sign tokens with a new key; the one before still verifies until the next rotation."""
    from ztom.cli.actions.server import rotate_key_command
    from ztom.cli.actions.server_options import server_config

    rotate_key_command(server_config(data, ledger, []))
