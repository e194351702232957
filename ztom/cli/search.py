"""``ztom search``: on this machine, or of a project's chain on a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ztom.cli.options import LEDGER_HELP, HelpPanel, Json, Server, command_group, examples
from ztom.errors import ConfigError

ExitStatus = Annotated[
    bool,
    typer.Option(
        "--exit-status", help="End with 0 if it improved, 1 if not, 2 if that is inconclusive."
    ),
]

search_commands = command_group(None, "Searching.")


@search_commands.command(
    rich_help_panel=HelpPanel.MASTER,
    epilog=examples(
        "ztom search --example > search.yaml",
        "ztom search search.yaml --set budget.evaluations=20",
        "ztom search search.yaml --resume",
        "ztom search search.yaml --project PROJECT --server http://127.0.0.1:8000",
    ),
)
def search(
    config: Annotated[
        Path | None, typer.Argument(help="YAML file of the search; --example prints one.")
    ] = None,
    example: Annotated[
        bool, typer.Option("--example", help="Print a commented file with every key, and end.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest study of this name.")
    ] = False,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key; may be repeated."),
    ] = None,
    ledger: Annotated[
        str | None,
        typer.Option(help=f"{LEDGER_HELP} Without it, what the search's file says."),
    ] = None,
    project: Annotated[
        str | None,
        typer.Option(help="Search the chain of this project, by id or name, at a server."),
    ] = None,
    server: Server = None,
    exit_status: ExitStatus = False,
    as_json: Json = False,
) -> None:
    """Search the factors of a chain, prove them, write the variant."""
    if example:
        from ztom.search.example import example as example_text

        typer.echo(example_text(), nl=False)
        return
    if config is None:
        raise ConfigError("no configuration is named", fix="Start from --example.")
    if project is None:
        if server is not None:
            raise ConfigError("--server is for a search of a project", fix="Give --project ID.")
        from ztom.cli.actions.search import search_command

        raise typer.Exit(
            search_command(
                config,
                set or [],
                ledger=ledger,
                resume=resume,
                by_outcome=exit_status,
                as_json=as_json,
            )
        )
    if resume or ledger is not None:
        raise ConfigError(
            "--resume and --ledger are for a search on this machine", fix="Leave out --project."
        )
    from ztom.cli.actions.remote_search import remote_search_command

    raise typer.Exit(
        remote_search_command(
            config, set or [], project, server, by_outcome=exit_status, as_json=as_json
        )
    )
