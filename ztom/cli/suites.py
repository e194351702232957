"""Commands on suites: ``ztom suite new | from-csv | lock | check | diff``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ztom.cli.console import plain_console
from ztom.cli.places import local_only
from ztom.errors import EvaluationError

if TYPE_CHECKING:
    from ztom.evaluation.suites.suite import Suite

suite = typer.Typer(help="Suites: what a model has to show before it ships.", no_args_is_help=True)

_SAME, _DIFFERS, _UNREADABLE = 0, 1, 3


@suite.command()
def new(
    name: Annotated[str, typer.Argument(help="Of the suite.")],
    example: Annotated[
        str, typer.Option(help="What to start from; `ztom suite examples` lists them.")
    ] = "support-classification",
    root: Annotated[Path, typer.Option(callback=local_only, help="Where its folder goes.")] = Path(
        "suites"
    ),
) -> None:
    """Make a suite from an example, to be changed and then locked."""
    from ztom.evaluation.suites.scaffold import new_suite

    folder = root / name
    made = new_suite(name, folder, example=example)
    _say(f"{_short(made)} in {folder}")
    _say(f"Make it yours, then: ztom suite lock {folder}")


@suite.command()
def examples() -> None:
    """List what `ztom suite new --example` can start from."""
    from ztom.evaluation.suites.read import load_suite
    from ztom.evaluation.suites.scaffold import example_folder, example_names

    for name in example_names():
        _say(_short(load_suite(example_folder(name))))


@suite.command("from-csv")
def from_csv(
    file: Annotated[Path, typer.Argument(help="CSV with a header.")],
    output: Annotated[
        Path, typer.Option(callback=local_only, help="Folder of the suite to be; names it, too.")
    ],
    owner: Annotated[str, typer.Option(help="Who answers for it.")],
    text: Annotated[str, typer.Option(help="Column of the inputs.")] = "text",
    target: Annotated[str, typer.Option(help="Column of the targets.")] = "target",
    n: Annotated[int | None, typer.Option(min=1, help="How many items; all if none.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed, another draw.")] = 0,
    metric: Annotated[
        str, typer.Option(help="accuracy, macro_f1, exact_match, rouge_l or similarity.")
    ] = "accuracy",
    floor: Annotated[float, typer.Option(min=0, max=1, help="What has to be reached.")] = 0.0,
) -> None:
    """Make and lock a suite from rows of a table, stratified by target."""
    from ztom.evaluation.suites.from_table import Table, suite_from_table
    from ztom.evaluation.suites.suite import MetricName

    if metric not in list(MetricName):
        raise EvaluationError("there is no such metric", got=metric)
    made = suite_from_table(
        Table(file, text, target, n, seed),
        output,
        name=output.absolute().name,
        owner=owner,
        metric=MetricName(metric),
        floor=floor,
    )
    _say(f"{_short(made)} in {output}, locked")
    _warn(made)


@suite.command()
def lock(
    folders: Annotated[list[Path], typer.Argument(help="Suites, or folders of suites.")],
) -> None:
    """Write suite.lock; a suite that changed needs a higher version for that."""
    from ztom.evaluation.suites.lock import lock_suite
    from ztom.evaluation.suites.read import load_suite, suite_folders

    for folder in (each for root in folders for each in suite_folders(root)):
        locked = lock_suite(folder)
        what = f"{len(locked.items)} items, {locked.digest[:12]}"
        _say(f"{locked.name} {locked.version} locked: {what}")
        _warn(load_suite(folder))


@suite.command()
def check(
    folders: Annotated[list[Path], typer.Argument(help="Suites, or folders of suites.")],
) -> None:
    """Compare suites with their locks; exit status 0: all fit, 1: one differs, 3: unreadable."""
    raise typer.Exit(max(_check_below(folder) for folder in folders))


@suite.command()
def diff(
    old: Annotated[Path, typer.Argument(help="The suite's folder, or the older one of two.")],
    new: Annotated[Path | None, typer.Argument(help="The newer one; its lock if none.")] = None,
) -> None:
    """Say what changed since the lock, or between two folders; exit status as of check."""
    raise typer.Exit(_check(old) if new is None else _diff(old, new))


def _check_below(root: Path) -> int:
    from ztom.evaluation.suites.read import suite_folders

    try:
        folders = suite_folders(root)
    except EvaluationError as error:
        return _unreadable(error)
    return max(_check(folder) for folder in folders)


def _check(folder: Path) -> int:
    from ztom.evaluation.suites.lock import LOCK_FILE, lock_changes
    from ztom.evaluation.suites.read import load_suite

    try:
        if not (folder / LOCK_FILE).exists():
            load_suite(folder)
            _say(f"{folder}: not locked. `ztom suite lock` is missing.")
            return _DIFFERS
        changes = lock_changes(folder)
    except EvaluationError as error:
        return _unreadable(error)
    if not changes.any:
        _say(f"{folder}: {changes.new_version} is what its lock says")
        _warn(load_suite(folder))
        return _SAME
    for line in changes.lines():
        _say(f"{folder}: {line}")
    _say(f"{folder}: {changes.advice()}")
    return _DIFFERS


def _diff(old: Path, new: Path) -> int:
    from ztom.evaluation.suites.lock import compare, field_changes, lock_of
    from ztom.evaluation.suites.read import load_suite

    try:
        before, after = load_suite(old), load_suite(new)
    except EvaluationError as error:
        return _unreadable(error)
    changes = compare(lock_of(before), lock_of(after))
    for line in (*changes.lines(), *field_changes(before, after)):
        _say(line)
    if not changes.any:
        _say("no difference")
    return _DIFFERS if changes.any else _SAME


def _unreadable(error: EvaluationError) -> int:
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    console.print(f"{type(error).__name__}: {error}", style="red", soft_wrap=True)
    return _UNREADABLE


def _warn(made: Suite) -> None:
    from ztom.evaluation.gate.attainable import warnings

    for line in warnings(made):
        _say(f"warning: {line}")


def _short(made: Suite) -> str:
    config = made.config
    return (
        f"{config.name} {config.version}: {len(made.items)} items, {config.layer}, {config.metric}"
    )


def _say(line: str) -> None:
    plain_console().print(line, soft_wrap=True)
