"""Commands on data: files as they are read, and data sets with versions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ztom.cli.options import Json, command_group, examples
from ztom.cli.places import local_only

data = command_group(
    "data",
    "Data: what files are understood as, and data sets with versions.",
    "ztom data check stimuli.jsonl holdout.jsonl",
    "ztom data add support march.jsonl",
)


@data.callback()
def _data() -> None:
    """Data: what files are understood as, and data sets with versions."""


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
        typer.Argument(
            help="Files: JSON Lines, JSON, CSV or Parquet; hf://datasets/... ones; or one data set."
        ),
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
    """Show what files of data are understood as: counts, the longest, duplicates, examples.

    Of a data set: whether its files are what its versions say, and no split knows another's rows.
    """
    if len(files) == 1 and (Path(files[0]) / "dataset.yaml").is_file():
        from ztom.cli.actions.datasets import check_dataset_command

        check_dataset_command(Path(files[0]), as_json=as_json)
        return
    from ztom.cli.actions.data import check_command

    names = [] if labels is None else [label.strip() for label in labels.split(",")]
    check_command(
        files, expected_outputs=expected_outputs, labels=names, model=model, as_json=as_json
    )


DatasetFolder = Annotated[Path, typer.Argument(metavar="DATASET", help="Folder of the data set.")]
VersionNumber = Annotated[
    int | None, typer.Option("--version", min=1, help="Take this version; by default the newest.")
]
Source = Annotated[
    str | None, typer.Option(help="Say that the labels come from here; by default from the file.")
]


@data.command(
    epilog=examples(
        "ztom data add support march.jsonl",
        "ztom data add support corrections.csv --source ann",
        "ztom data add support labelled.json --label-studio",
    )
)
def add(
    dataset: DatasetFolder,
    files: Annotated[list[str], typer.Argument(help="Files, as ztom data check reads them.")],
    source: Source = None,
    label_studio: Annotated[
        bool, typer.Option("--label-studio", help="Take labels from exports of Label Studio.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Add rows and labels to a data set, which is made where there is none."""
    from ztom.cli.actions.datasets import add_command

    add_command(dataset, files, source=source, label_studio=label_studio, as_json=as_json)


@data.command(epilog=examples("ztom data version support"))
def version(dataset: DatasetFolder, as_json: Json = False) -> None:
    """Make a version of all that was added: what leaks into another split is left out."""
    from ztom.cli.actions.datasets import version_command

    version_command(dataset, as_json=as_json)


@data.command(epilog=examples("ztom data show support", "ztom data show support --version 3"))
def show(dataset: DatasetFolder, number: VersionNumber = None, as_json: Json = False) -> None:
    """Show a version: rows, labels and conflicts of each split, what was left out."""
    from ztom.cli.actions.datasets import show_command

    show_command(dataset, number=number, as_json=as_json)


@data.command(epilog=examples("ztom data diff support 2 3"))
def diff(
    dataset: DatasetFolder,
    before: Annotated[int, typer.Argument(min=1, help="Number of a version.")],
    after: Annotated[int, typer.Argument(min=1, help="Number of another one.")],
    as_json: Json = False,
) -> None:
    """Show what changed from one version to another: rows and labels of each split."""
    from ztom.cli.actions.datasets import diff_command

    diff_command(dataset, before, after, as_json=as_json)


@data.command(
    epilog=examples(
        "ztom data export support search --output search.jsonl",
        "ztom data export support train --unlabelled --label-studio --output tasks.json",
    )
)
def export(
    dataset: DatasetFolder,
    split: Annotated[str, typer.Argument(help="Name of the split.")],
    output: Annotated[Path, typer.Option(callback=local_only, help="Write this file.")],
    number: VersionNumber = None,
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="Take the rows that nobody has labelled.")
    ] = False,
    label_studio: Annotated[
        bool, typer.Option("--label-studio", help="Write tasks for Label Studio.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a split as stimuli, with the labels that count, or as tasks to label."""
    from ztom.cli.actions.datasets import RowsWanted, export_command

    rows = RowsWanted(split, unlabelled=unlabelled, label_studio=label_studio)
    export_command(dataset, rows, output, number=number, as_json=as_json)


@data.command(epilog=examples("ztom data label support --source ann --split gate"))
def label(
    dataset: DatasetFolder,
    source: Annotated[str, typer.Option(help="Say who labels.")],
    split: Annotated[str | None, typer.Option(help="Label rows of this split alone.")] = None,
    most: Annotated[int, typer.Option(min=1, help="Stop after so many.")] = 100,
) -> None:
    """Label rows that nobody has labelled: type the label, nothing to pass over, Ctrl-D to end."""
    from ztom.cli.actions.datasets import label_command

    label_command(dataset, source=source, split=split, most=most)
