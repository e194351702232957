"""``ztom submit``: a search on a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ztom.cli.options import HelpPanel, Json, command_group, examples

submit_commands = command_group(None, "Searching on a cluster.")

Cluster = Annotated[
    str,
    typer.Option(
        "--cluster",
        envvar="ZTOM_CLUSTER",
        help="Take the cluster whose dashboard is at this address.",
    ),
]


@submit_commands.command(
    rich_help_panel=HelpPanel.MASTER,
    epilog=examples(
        "ztom submit search.yaml --cluster http://10.0.0.5:8265 "
        "--ledger postgresql+psycopg://ztom@10.0.0.5/ztom --storage gs://team-models/ztom",
    ),
)
def submit(
    config: Annotated[Path, typer.Argument(help="YAML file of the search.")],
    cluster: Cluster,
    ledger: Annotated[
        str | None,
        typer.Option(
            envvar="ZTOM_LEDGER", help="Keep the trials in this database, which all nodes reach."
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            envvar="ZTOM_STORAGE", help="Write under this address, which all nodes reach."
        ),
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key; may be repeated."),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="Put the result into this folder; else into runs/NAME.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="End when the cluster has taken the search.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a search on a cluster: check it from there, submit it, follow it, fetch the result."""
    from ztom.cli.actions.submit import submit_command

    raise typer.Exit(
        submit_command(
            config,
            set or [],
            cluster=cluster,
            ledger=ledger,
            storage=storage,
            to=to,
            follow=not detach,
            as_json=as_json,
        )
    )
