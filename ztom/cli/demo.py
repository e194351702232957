"""``ztom demo``: everything once, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ztom.cli.options import HelpPanel, command_group, examples
from ztom.cli.places import local_only
from ztom.stack import require_stack

demo_commands = command_group(None, "The demo.")


@demo_commands.command(
    rich_help_panel=HelpPanel.MASTER, epilog=examples("ztom demo", "ztom demo --stay --limit 0.3")
)
def demo(
    folder: Annotated[
        Path, typer.Option(callback=local_only, help="Write everything into this folder.")
    ] = Path("demo-out"),
    medical: Annotated[
        Path | None,
        typer.Option(help="Work on this chat data set instead (train, search, holdout .jsonl)."),
    ] = None,
    limit: Annotated[float, typer.Option(min=1e-6, help="Bound each factor by this.")] = 1.0,
    evaluations: Annotated[int, typer.Option(min=1, help="Search with so many trials.")] = 50,
    stay: Annotated[bool, typer.Option("--stay", help="Keep serving until Ctrl-C.")] = False,
) -> None:
    """Train a small chain on this machine, master it, and ask it something."""
    require_stack()
    from ztom.cli.actions.demo import run_demo

    raise typer.Exit(
        run_demo(folder, medical=medical, limit=limit, evaluations=evaluations, stay=stay)
    )
