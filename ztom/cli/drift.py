"""Commands on a model's traffic: ``ztom drift``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ztom.cli.options import Json, JsonRows, command_group, examples

drift = command_group(
    "drift",
    "Watch traffic: has quality fallen, have requests moved, and what moved?",
    "ztom drift replay monitor.yaml requests.jsonl",
)

MonitorFile = Annotated[Path, typer.Argument(metavar="MONITOR", help="YAML file of the monitor.")]
Reference = Annotated[
    Path | None,
    typer.Option(
        help="Compare with these observations; by default with those of the log before the start."
    ),
]


@drift.callback()
def _drift() -> None:
    """Watch traffic: has quality fallen, have requests moved, and what moved?"""


@drift.command(
    epilog=examples(
        "ztom drift replay monitor.yaml requests.jsonl",
        "ztom drift replay monitor.yaml requests.jsonl --state monitor.json --exit-status",
    )
)
def replay(
    monitor: MonitorFile,
    log: Annotated[
        Path, typer.Argument(help="Observations: JSON Lines with time, text and what is known.")
    ],
    reference: Reference = None,
    state: Annotated[
        Path | None,
        typer.Option(help="Go on from this file, and keep in it what was seen."),
    ] = None,
    meanings: Annotated[
        bool, typer.Option(help="Compare the meanings of texts, by the embedding model.")
    ] = True,
    exit_status: Annotated[
        bool, typer.Option("--exit-status", help="End with 1 where an alarm is open.")
    ] = False,
    as_json: JsonRows = False,
) -> None:
    """Look at every whole window of a log that was not looked at yet; say what is wrong."""
    from ztom.cli.actions.drift import replay_command

    is_open = replay_command(
        monitor, log, reference=reference, state=state, meanings=meanings, as_json=as_json
    )
    if exit_status and is_open:
        raise typer.Exit(1)


@drift.command(epilog=examples("ztom drift acted monitor.json"))
def acted(
    state: Annotated[Path, typer.Argument(help="File that ztom drift replay keeps.")],
    as_json: Json = False,
) -> None:
    """Close the open alarm: somebody has acted on it, and the watch begins anew."""
    from ztom.cli.actions.drift import acted_command

    acted_command(state, as_json=as_json)


@drift.command(
    epilog=examples(
        "ztom drift plan monitor.yaml --reference labelled.jsonl",
        "ztom drift plan monitor.yaml --reference labelled.jsonl --labels 30",
    )
)
def plan(
    monitor: MonitorFile,
    reference: Annotated[Path, typer.Option(help="Take the labels of these observations.")],
    labels: Annotated[
        int | None, typer.Option(min=1, help="Say it for so many labels a window.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say how often the labelled monitor will be wrong, and how late it will see a decay."""
    from ztom.cli.actions.drift import plan_command

    plan_command(monitor, reference, labels=labels, as_json=as_json)
