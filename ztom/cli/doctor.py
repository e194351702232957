"""``ztom doctor``: does this installation work, and what mends it."""

from __future__ import annotations

from typing import Annotated

import typer

from ztom.cli.options import HelpPanel, Json, command_group, examples

doctor_commands = command_group(None, "The installation.")


@doctor_commands.command(
    rich_help_panel=HelpPanel.SERVER, epilog=examples("ztom doctor", "ztom doctor --fix")
)
def doctor(
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Run the commands that mend what does not fit, with pip."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Import what engines stand on, say its versions, and name the command that mends it."""
    from ztom.cli.actions.doctor import doctor_command

    doctor_command(fix=fix, as_json=as_json)
