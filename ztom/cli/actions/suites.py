"""What the commands of ``ztom suite`` do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from ztom.cli.console import plain_console, print_document, print_error
from ztom.errors import EvaluationError
from ztom.evaluation.suites.from_table import Table, suite_from_table
from ztom.evaluation.suites.lock import (
    LOCK_FILE,
    Changes,
    compare,
    field_changes,
    lock_changes,
    lock_of,
    lock_suite,
)
from ztom.evaluation.suites.read import load_suite, suite_folders
from ztom.evaluation.suites.scaffold import example_folder, example_names, new_suite
from ztom.evaluation.suites.suite import MetricName, Suite


class CheckStatus(IntEnum):
    """The exit status of a comparison; of several suites the highest counts."""

    SAME = 0
    DIFFERS = 1
    UNREADABLE = 3


@dataclass(frozen=True)
class SuiteCheck:
    """What a comparison of one suite came to.

    Attributes:
        folder: The suite's folder.
        status: Whether the suite is what its lock says.
        lines: What differs, for people; the reason where it cannot be read.
        warnings: What a locked suite still lacks.
    """

    folder: Path
    status: CheckStatus
    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def new_command(name: str, folder: Path, *, example: str, as_json: bool = False) -> None:
    """Make a suite from an example."""
    suite = new_suite(name, folder, example=example)
    if as_json:
        print_document(_document(suite, folder))
        return
    _print(f"{_summary(suite)} in {folder}")
    _print(f"Make it yours, then: ztom suite lock {folder}")


def examples_command(*, as_json: bool = False) -> None:
    """List the examples."""
    suites = {name: load_suite(example_folder(name)) for name in example_names()}
    if as_json:
        print_document([{"example": name, **_document(s)} for name, s in suites.items()])
        return
    for suite in suites.values():
        _print(_summary(suite))


def from_csv_command(
    table: Table, output: Path, *, owner: str, metric: str, floor: float, as_json: bool = False
) -> None:
    """Make and lock a suite from a table.

    Raises:
        EvaluationError: There is no such metric, or the table does not make a suite.
    """
    if metric not in list(MetricName):
        raise EvaluationError(
            "there is no such metric", got=metric, expected=", ".join(list(MetricName))
        )
    suite = suite_from_table(
        table,
        output,
        name=output.absolute().name,
        owner=owner,
        metric=MetricName(metric),
        floor=floor,
    )
    if as_json:
        print_document({**_document(suite, output), "warnings": list(_warnings(suite))})
        return
    _print(f"{_summary(suite)} in {output}, locked")
    _print_warnings(_warnings(suite))


def lock_command(folders: Sequence[Path], *, as_json: bool = False) -> None:
    """Lock every suite of these folders, or below them."""
    documents = []
    for folder in (folder for root in folders for folder in suite_folders(root)):
        locked = lock_suite(folder)
        warnings = tuple(_warnings(load_suite(folder)))
        documents.append(
            {
                "name": locked.name,
                "version": locked.version,
                "path": folder.absolute(),
                "items": len(locked.items),
                "digest": locked.digest,
                "warnings": warnings,
            }
        )
        if not as_json:
            what = f"{len(locked.items)} items, {locked.digest[:12]}"
            _print(f"{locked.name} {locked.version} locked: {what}")
            _print_warnings(warnings)
    if as_json:
        print_document(documents)


def check_command(folders: Sequence[Path], *, as_json: bool = False) -> int:
    """Compare suites of these folders, or below them, with their locks; the exit status."""
    checks: list[SuiteCheck] = []
    for folder in folders:
        for check in _checks_below(folder):
            checks.append(check)
            if not as_json:
                _print_check(check)
    if as_json:
        print_document([_check_document(check) for check in checks])
    return max(check.status for check in checks)


def diff_command(old: Path, new: Path | None, *, as_json: bool = False) -> int:
    """Compare a suite with its lock, or with a newer one; returns the exit status."""
    check = _check(old) if new is None else _compare(old, new)
    if as_json:
        print_document(_check_document(check))
    elif new is None or check.status is CheckStatus.UNREADABLE:
        _print_check(check)
    else:
        for line in check.lines:
            _print(line)
        if check.status is CheckStatus.SAME:
            _print("no difference")
    return check.status


def _compare(old: Path, new: Path) -> SuiteCheck:
    try:
        before, after = load_suite(old), load_suite(new)
    except EvaluationError as error:
        return _unreadable(new, error)
    changes = compare(lock_of(before), lock_of(after))
    status = CheckStatus.DIFFERS if changes.any else CheckStatus.SAME
    return SuiteCheck(new, status, (*changes.lines(), *field_changes(before, after)))


def _checks_below(root: Path) -> Iterator[SuiteCheck]:
    try:
        folders = suite_folders(root)
    except EvaluationError as error:
        yield _unreadable(root, error)
        return
    for folder in folders:
        yield _check(folder)


def _check(folder: Path) -> SuiteCheck:
    try:
        if not (folder / LOCK_FILE).exists():
            load_suite(folder)
            lines = ("not locked. `ztom suite lock` is missing.",)
            return SuiteCheck(folder, CheckStatus.DIFFERS, lines)
        changes = lock_changes(folder)
        if changes.any:
            return SuiteCheck(folder, CheckStatus.DIFFERS, _change_lines(changes))
        warnings = tuple(_warnings(load_suite(folder)))
    except EvaluationError as error:
        return _unreadable(folder, error)
    lines = (f"{changes.new_version} is what its lock says",)
    return SuiteCheck(folder, CheckStatus.SAME, lines, warnings)


def _change_lines(changes: Changes) -> tuple[str, ...]:
    return (*changes.lines(), changes.advice())


def _unreadable(folder: Path, error: EvaluationError) -> SuiteCheck:
    return SuiteCheck(folder, CheckStatus.UNREADABLE, (f"{type(error).__name__}: {error}",))


def _print_check(check: SuiteCheck) -> None:
    if check.status is CheckStatus.UNREADABLE:
        for line in check.lines:
            print_error(line)
        return
    for line in check.lines:
        _print(f"{check.folder}: {line}")
    _print_warnings(check.warnings)


def _check_document(check: SuiteCheck) -> dict[str, Any]:
    return {**asdict(check), "folder": check.folder.absolute(), "status": check.status.name.lower()}


def _warnings(suite: Suite) -> Iterator[str]:
    from ztom.evaluation.gate.attainable import warnings  # scipy, which takes half a second

    yield from warnings(suite)


def _print_warnings(warnings: Sequence[str] | Iterator[str]) -> None:
    for line in warnings:
        _print(f"warning: {line}")


def _document(suite: Suite, folder: Path | None = None) -> dict[str, Any]:
    config = suite.config
    document: dict[str, Any] = {
        "name": config.name,
        "version": config.version,
        "items": len(suite.items),
        "layer": config.layer,
        "metric": config.metric,
    }
    return document if folder is None else {**document, "path": folder.absolute()}


def _summary(suite: Suite) -> str:
    config = suite.config
    return (
        f"{config.name} {config.version}: {len(suite.items)} items, {config.layer}, {config.metric}"
    )


def _print(line: str) -> None:
    plain_console().print(line, soft_wrap=True)
