"""Commands on data: ``ztom data check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ztom.cli.options import Json, command_group, examples

data = command_group(
    "data",
    "Data: what the files of a search are understood as.",
    "ztom data check stimuli.jsonl holdout.jsonl",
)


@data.callback()
def _data() -> None:
    """Data: what the files of a search are understood as."""


@data.command(
    epilog=examples(
        "ztom data check stimuli.jsonl",
        "ztom data check questions.csv --expected-outputs answers.txt --model runs/checkpoint-3",
        "ztom data check hf://datasets/tatsu-lab/alpaca/data/train.parquet --json",
    )
)
def check(
    files: Annotated[
        list[str],
        typer.Argument(help="Files: JSON Lines, JSON, CSV or Parquet; or hf://datasets/... ones."),
    ],
    expected_outputs: Annotated[
        Path | None,
        typer.Option(help="Take expected outputs from this file; it belongs to a single FILE."),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Read expected outputs as these classes: cat,dog")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Count tokens with the tokenizer in this folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what files of data are understood as: counts, the longest, duplicates, examples."""
    from ztom.cli.actions.data import check_command

    names = [] if labels is None else [label.strip() for label in labels.split(",")]
    check_command(
        files, expected_outputs=expected_outputs, labels=names, model=model, as_json=as_json
    )
