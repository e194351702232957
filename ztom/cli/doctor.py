"""``ztom doctor``: does this installation work, and what mends it."""

from __future__ import annotations

from typing import Annotated

import typer

from ztom.cli.options import HelpPanel, Json, command_group, examples
from ztom.errors import ConfigError

doctor_commands = command_group(None, "The installation.")


@doctor_commands.command(
    rich_help_panel=HelpPanel.SERVER,
    epilog=examples(
        "ztom doctor",
        "ztom doctor --fix",
        "ztom doctor --cluster http://10.0.0.5:8265 "
        "--place gs://team-models/base --ledger postgresql+psycopg://ztom@10.0.0.5/ztom",
    ),
)
def doctor(
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Run the commands that mend what does not fit, with pip."),
    ] = False,
    cluster: Annotated[
        str | None,
        typer.Option(help="Look at every node of the cluster whose dashboard is at this address."),
    ] = None,
    place: Annotated[
        list[str] | None,
        typer.Option(help="Have every node read this checkpoint; may be repeated."),
    ] = None,
    ledger: Annotated[str | None, typer.Option(help="Have every node reach this database.")] = None,
    shared: Annotated[
        str | None, typer.Option(help="See that all nodes share this folder of a disk.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Import what engines stand on, say its versions, and name the command that mends it."""
    if cluster is not None:
        from ztom.cli.actions.cluster_doctor import cluster_doctor_command

        status = cluster_doctor_command(
            cluster, places=place or [], ledger=ledger, shared=shared, as_json=as_json
        )
        raise typer.Exit(status)
    if place or ledger or shared:
        raise ConfigError("--place, --ledger and --shared are for a cluster", fix="Give --cluster.")
    from ztom.cli.actions.doctor import doctor_command

    doctor_command(fix=fix, as_json=as_json)
