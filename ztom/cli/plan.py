"""``ztom plan``: what a chain takes on a machine, before one is rented."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ztom.cli.options import Dtype, HelpPanel, Json, command_group, examples

plan_commands = command_group(None, "Planning.")


@plan_commands.command(
    rich_help_panel=HelpPanel.MASTER,
    epilog=examples(
        "ztom plan chain.yaml --machine g2-standard-24",
        "ztom plan chain.yaml --gpu T4 --memory-gb 60 --price 0.9 --stimuli 500 --new-tokens 200",
    ),
)
def plan(
    chain: Annotated[Path, typer.Argument(help="YAML file that lists the chain's checkpoints.")],
    machine: Annotated[
        str | None, typer.Option(help="Plan for this machine type, such as g2-standard-24.")
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(help="Plan for this kind of GPU, such as L4, instead.")
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="Plan with so many GPUs of --gpu.")] = 1,
    memory_gb: Annotated[
        float | None,
        typer.Option(min=1, help="Plan with so much host memory beside --gpu, or without a GPU."),
    ] = None,
    bandwidth_gb_s: Annotated[
        float | None,
        typer.Option(min=0.01, help="Read the host's memory at GB a second, without a GPU."),
    ] = None,
    file_gb_s: Annotated[
        float | None,
        typer.Option(min=0.001, help="Read files at GB a second; else nothing is said of them."),
    ] = None,
    stimuli: Annotated[int, typer.Option(min=1, help="Count so many stimuli a trial.")] = 100,
    new_tokens: Annotated[
        int, typer.Option(min=0, help="Count so many generated tokens for each stimulus.")
    ] = 64,
    trials: Annotated[int, typer.Option(min=1, help="Count so many trials a search.")] = 55,
    price: Annotated[
        float | None, typer.Option(min=0, help="Take this price of the machine an hour.")
    ] = None,
    dtype: Dtype = "auto",
    as_json: Json = False,
) -> None:
    """Compute what of a chain fits where on a machine, seconds a trial, and what a search costs."""
    from ztom.cli.actions.plan import MachineOptions, plan_command

    plan_command(
        chain,
        MachineOptions(machine, gpu, gpus, memory_gb, bandwidth_gb_s, file_gb_s, price),
        stimuli=stimuli,
        new_tokens=new_tokens,
        trials=trials,
        dtype=dtype,
        as_json=as_json,
    )
