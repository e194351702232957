"""Commands on keys that sign: ``ztom signing-key``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ztom.cli.options import Json, Server, command_group, examples
from ztom.cli.places import local_only

signing_key = command_group(
    "signing-key",
    "Keys that sign verdicts and variants, and those that a server believes.",
    "ztom signing-key create ci.key",
)

Name = Annotated[str, typer.Argument(help="Name under which records show who signed.")]


@signing_key.command("create", epilog=examples("ztom signing-key create ci.key"))
def signing_key_create(
    file: Annotated[
        Path,
        typer.Argument(
            callback=local_only, help="Write the private key into this file, mode 600; new."
        ),
    ],
    as_json: Json = False,
) -> None:
    """Make a key; its public half is printed, to be registered."""
    from ztom.cli.actions.signing_keys import create_key

    create_key(file, as_json=as_json)


@signing_key.command(
    "show", epilog=examples("ztom signing-key show", "ztom signing-key show ci.key")
)
def signing_key_show(
    file: Annotated[
        Path | None,
        typer.Argument(callback=local_only, help="File of a private key; else your own."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the public half of a key; your own signs the variants that you write."""
    from ztom.cli.actions.signing_keys import show_key

    show_key(file, as_json=as_json)


@signing_key.command(
    "register",
    epilog=examples("ztom signing-key register ci l5G0t7wTWvY1qSgkmcz4Hn2rSz0S3oYUtd1cxHDIuYI="),
)
def signing_key_register(
    name: Name,
    key: Annotated[str, typer.Argument(help="Public key in Base64, or file of the private key.")],
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Let a server believe what a key signs; for administrators."""
    from ztom.cli.actions.signing_keys import register_key

    register_key(name, key, server, as_json=as_json)


@signing_key.command("list", epilog=examples("ztom signing-key list"))
def signing_key_list(server: Server = None, as_json: Json = False) -> None:
    """List the keys that a server believes, or did."""
    from ztom.cli.actions.signing_keys import list_keys

    list_keys(server, as_json=as_json)


@signing_key.command("revoke", epilog=examples("ztom signing-key revoke ci"))
def signing_key_revoke(
    name: Annotated[str, typer.Argument(help="Id or name of the key.")],
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Let a server believe a key no more; what it has signed before does not count either."""
    from ztom.cli.actions.signing_keys import revoke_key

    revoke_key(name, server, as_json=as_json)
