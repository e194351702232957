"""What the commands of ``ztom data`` on data sets do."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table

from ztom.cli.console import plain_console, print_document
from ztom.data.dataset import Dataset, DatasetConfig, DatasetVersion, counts
from ztom.data.label_studio import read_labels, tasks
from ztom.data.rows import Label, Row
from ztom.errors import LeakageError, StimuliError
from ztom.io.files import write_document
from ztom.stimuli.files import read_stimuli_file
from ztom.stimuli.prompts import prompt_text


def add_command(
    folder: Path,
    files: Sequence[str],
    *,
    source: str | None,
    label_studio: bool,
    as_json: bool,
) -> None:
    """Add files.

    Raises:
        ZtomError: A file cannot be read; nothing of it is added, what came before it is.
    """
    is_new = not (folder / "dataset.yaml").exists()
    if is_new and label_studio:
        raise StimuliError(f"there is no data set in {folder}", fix="Add its rows first.")
    dataset = Dataset.create(folder, DatasetConfig(name=folder.name)) if is_new else Dataset(folder)
    now = datetime.now(UTC)
    added = []
    for name in files:
        if label_studio:
            labels = read_labels(_json(Path(name)), source=source or "label-studio")
            rows, count = 0, dataset.add_labels(labels)
        else:
            stimuli = read_stimuli_file(name, need_expected=False).stimuli
            by = source or Path(name).name
            rows, count = dataset.add(stimuli, source=by, time=now)
        added.append({"file": name, "rows": rows, "labels": count})
        if not as_json:
            plain_console().print(f"{name}: {rows} new rows, {count} new labels")
    if as_json:
        print_document(added)
    else:
        plain_console().print(f"make a version of them: ztom data version {folder}")


def version_command(folder: Path, *, as_json: bool) -> None:
    """Make a version, or say that nothing has changed."""
    dataset = Dataset(folder)
    before = dataset.versions()
    version = dataset.make_version(created=datetime.now(UTC))
    if as_json:
        print_document(version)
    elif before and version == before[-1]:
        plain_console().print(f"nothing was added since version {version.number}")
    else:
        _print_version(version)


def show_command(folder: Path, *, number: int | None, as_json: bool) -> None:
    """Show a version."""
    dataset = Dataset(folder)
    version = _version(dataset, number)
    table = counts(dataset.read(version), dataset.labels(version))
    if as_json:
        print_document({"version": version, "splits": table})
        return
    _print_version(version)
    _print_table(table)


def diff_command(folder: Path, before: int, after: int, *, as_json: bool) -> None:
    """Show what changed between two versions."""
    dataset = Dataset(folder)
    first, second = (_version(dataset, number) for number in (before, after))
    old, new = (dataset.read(version) for version in (first, second))
    labels, labels_now = (dataset.labels(version) for version in (first, second))
    table = {}
    for split in new:
        ids, ids_now = ({row.id for row in rows[split]} for rows in (old, new))
        table[split] = {
            "added": len(ids_now - ids),
            "removed": len(ids - ids_now),
            "labels changed": sum(
                labels.newest(row) != labels_now.newest(row) for row in ids & ids_now
            ),
        }
    if as_json:
        print_document({"before": before, "after": after, "splits": table})
    else:
        _print_table(table)


def check_dataset_command(folder: Path, *, as_json: bool) -> None:
    """Check every version: bytes, and leaks of the newest.

    Raises:
        ContentChangedError: A file was changed.
        LeakageError: A split knows another's rows.
    """
    dataset = Dataset(folder)
    versions = dataset.versions()
    for version in versions:
        dataset.read(version)
        dataset.labels(version)
    leaks = dataset.leaks(versions[-1]) if versions else []
    if as_json:
        print_document({"versions": len(versions), "leaks": [asdict(leak) for leak in leaks]})
    if leaks:
        raise LeakageError(
            f"{len(leaks)} rows of version {versions[-1].number} are known in another split",
            got=", ".join(f"{leak.row} ~ {leak.known} ({leak.kind})" for leak in leaks[:3]),
            fix="Files of the data set were edited: take the copy that was not.",
        )
    if not as_json:
        plain_console().print(f"{len(versions)} versions are as they were made; no leaks")


@dataclass(frozen=True)
class RowsWanted:
    """Which rows are written, and how.

    Attributes:
        split: Name of the split.
        unlabelled: Whether those without a label are meant; else those with one.
        label_studio: Whether they become tasks for Label Studio; else stimuli.
    """

    split: str
    unlabelled: bool
    label_studio: bool


def export_command(
    folder: Path, wanted: RowsWanted, output: Path, *, number: int | None, as_json: bool
) -> None:
    """Write a split.

    Raises:
        StimuliError: There is no such split, or it has no such rows.
    """
    dataset = Dataset(folder)
    version = _version(dataset, number)
    split = wanted.split
    stimuli = dataset.stimuli(version, split)  # names the splits where there is no such one
    labelled = {stimulus.id: stimulus.expected for stimulus in stimuli}
    rows = [
        row for row in dataset.read(version)[split] if (row.id in labelled) != wanted.unlabelled
    ]
    if not rows:
        kind = "unlabelled" if wanted.unlabelled else "labelled"
        raise StimuliError(f"{split} of version {version.number} has no {kind} rows")
    if wanted.label_studio:
        text = json.dumps(tasks(rows), ensure_ascii=False, indent=1) + "\n"
    else:
        text = "".join(f"{json.dumps(_record(row, labelled), ensure_ascii=False)}\n"
                       for row in rows)  # fmt: skip
    write_document(output, text)
    if as_json:
        print_document({"output": str(output), "rows": len(rows), "version": version.number})
    else:
        plain_console().print(f"{output}: {len(rows)} rows of {split}, version {version.number}")


def label_command(folder: Path, *, source: str, split: str | None, most: int) -> None:
    """Ask for labels on the terminal; each is kept at once.

    Raises:
        StimuliError: There is no such split, or nothing to label.
    """
    dataset = Dataset(folder)
    version = _version(dataset, None)
    if split is not None:
        dataset.stimuli(version, split)
    history = dataset.labels(version)
    rows = [
        row
        for name, members in dataset.read(version).items()
        for row in members
        if split in (None, name) and history.newest(row.id) is None
    ][:most]
    if not rows:
        raise StimuliError(f"version {version.number} has no rows without a label to ask about")
    count = 0
    for place, row in enumerate(rows, start=1):
        text = prompt_text(row.stimulus().prompt)
        plain_console().print(f"\n{place} of {len(rows)}\n{text}\nlabel:", end=" ")
        answer = sys.stdin.readline()
        if not answer:
            break
        if answer.strip():
            time = datetime.now(UTC)
            count += dataset.add_labels(
                [Label(row=row.id, label=answer.strip(), source=source, time=time)]
            )
    plain_console().print(f"\n{count} labels; make a version: ztom data version {folder}")


def _record(row: Row, labelled: dict[str, str]) -> dict[str, object]:
    """A record that `ztom search` reads."""
    key = "prompt" if isinstance(row.prompt, str) else "messages"
    if isinstance(row.prompt, tuple) and not any(isinstance(part, dict) for part in row.prompt):
        key = "features"
    record: dict[str, object] = {"id": row.id, key: row.prompt, "group": row.group}
    if row.id in labelled:
        record["expected"] = labelled[row.id]
    return {**record, **({"metadata": row.metadata} if row.metadata else {})}


def _version(dataset: Dataset, number: int | None) -> DatasetVersion:
    versions = dataset.versions()
    if not versions:
        raise StimuliError(
            f"{dataset.folder} has no version yet",
            fix=f"Make one: ztom data version {dataset.folder}",
        )
    wanted = versions[-1].number if number is None else number
    chosen = next((version for version in versions if version.number == wanted), None)
    if chosen is None:
        raise StimuliError(
            f"{dataset.folder} has no such version", got=number, expected=f"1 to {len(versions)}"
        )
    return chosen


def _json(file: Path) -> object:
    try:
        return json.loads(file.read_bytes())
    except OSError as error:
        raise StimuliError(f"{file} cannot be read", reason=error.strerror) from error
    except ValueError as error:
        raise StimuliError(f"{file} is not JSON", reason=error) from error


def _print_version(version: DatasetVersion) -> None:
    splits = ", ".join(f"{name} {count}" for name, count in version.splits.items())
    left_out = f"; {len(version.left_out)} left out as leaks" if version.left_out else ""
    plain_console().print(f"version {version.number}, {version.digest[:12]}: {splits}{left_out}")


def _print_table(table: dict[str, dict[str, int]]) -> None:
    names = list(next(iter(table.values())))
    rich_table = Table(box=None)
    for name in ("split", *names):
        rich_table.add_column(name, justify="left" if name == "split" else "right")
    for split, numbers in table.items():
        rich_table.add_row(split, *(str(numbers[name]) for name in names))
    plain_console().print(rich_table)
