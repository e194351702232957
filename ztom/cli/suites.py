"""Commands on suites: ``ztom suite new | examples | from-csv | lock | check | diff``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ztom.cli.options import Json, command_group, examples
from ztom.cli.places import local_only

suite = command_group(
    "suite",
    "Suites: what a model has to show before it ships.",
    "ztom suite new support",
    "ztom suite lock suites",
)

Folders = Annotated[list[Path], typer.Argument(help="Folders of suites, or of folders of them.")]


@suite.command(epilog=examples("ztom suite new support --example support-classification"))
def new(
    name: Annotated[str, typer.Argument(help="Name the suite, and its folder, like this.")],
    example: Annotated[
        str, typer.Option(help="Start from this one; `ztom suite examples` lists them.")
    ] = "support-classification",
    root: Annotated[
        Path, typer.Option(callback=local_only, help="Put the suite's folder into this one.")
    ] = Path("suites"),
    as_json: Json = False,
) -> None:
    """Make a suite from an example, to be changed and then locked."""
    from ztom.cli.actions.suites import new_command

    new_command(name, root / name, example=example, as_json=as_json)


@suite.command("examples", epilog=examples("ztom suite examples"))
def list_examples(as_json: Json = False) -> None:
    """List what `ztom suite new --example` can start from."""
    from ztom.cli.actions.suites import examples_command

    examples_command(as_json=as_json)


@suite.command(
    "from-csv",
    epilog=examples(
        "ztom suite from-csv tickets.csv --output suites/tickets --owner ada --target category"
    ),
)
def from_csv(
    file: Annotated[Path, typer.Argument(help="CSV file with a header.")],
    output: Annotated[
        Path,
        typer.Option(
            callback=local_only, help="Write the suite into this folder; it names the suite, too."
        ),
    ],
    owner: Annotated[str, typer.Option(help="Name whoever answers for the suite.")],
    text: Annotated[str, typer.Option(help="Take inputs from this column.")] = "text",
    target: Annotated[str, typer.Option(help="Take targets from this column.")] = "target",
    n: Annotated[int | None, typer.Option(min=1, help="Draw so many items; else all.")] = None,
    seed: Annotated[int, typer.Option(help="Draw items by this seed.")] = 0,
    metric: Annotated[
        str,
        typer.Option(
            help="Score answers by: accuracy, macro_f1, exact_match, rouge_l or similarity."
        ),
    ] = "accuracy",
    floor: Annotated[
        float, typer.Option(min=0, max=1, help="Require at least this value of the metric, 0 to 1.")
    ] = 0.0,
    as_json: Json = False,
) -> None:
    """Make and lock a suite from rows of a table, stratified by target."""
    from ztom.cli.actions.suites import from_csv_command
    from ztom.evaluation.suites.from_table import Table

    table = Table(file, text, target, n, seed)
    from_csv_command(table, output, owner=owner, metric=metric, floor=floor, as_json=as_json)


@suite.command(epilog=examples("ztom suite lock suites"))
def lock(folders: Folders, as_json: Json = False) -> None:
    """Write suite.lock; a suite that changed needs a higher version for that."""
    from ztom.cli.actions.suites import lock_command

    lock_command(folders, as_json=as_json)


@suite.command(epilog=examples("ztom suite check suites"))
def check(folders: Folders, as_json: Json = False) -> None:
    """Compare suites with their locks; exit status 0: all fit, 1: one differs, 3: unreadable."""
    from ztom.cli.actions.suites import check_command

    raise typer.Exit(check_command(folders, as_json=as_json))


@suite.command(
    epilog=examples("ztom suite diff suites/support", "ztom suite diff suites/old suites/support")
)
def diff(
    old: Annotated[Path, typer.Argument(help="Folder of the suite, or of the older one of two.")],
    new: Annotated[
        Path | None, typer.Argument(help="Folder of the newer one; without it, the suite's lock.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what changed since the lock, or between two folders; exit status as of check."""
    from ztom.cli.actions.suites import diff_command

    raise typer.Exit(diff_command(old, new, as_json=as_json))
