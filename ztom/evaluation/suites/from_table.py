"""A suite from a table: a CSV file with a column of texts and one of targets.

The draw is stratified by target: of n items from N rows, a target with k rows gets n k / N, rounded
by largest remainder. Which rows these are depends on the seed and the rows' own words, so a row
that is added later moves few items. Rows that occur twice count once; a text with two classes is
refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ztom.errors import EvaluationError
from ztom.evaluation.suites.read import (
    ITEMS_FILE,
    SETTINGS_FILE,
    evaluation_errors,
    load_suite,
)
from ztom.evaluation.suites.scaffold import check_name, publish_suite
from ztom.evaluation.suites.suite import Layer, MetricName, Suite, SuiteConfig
from ztom.evaluation.suites.targets import CLASS_METRICS
from ztom.io.problems import check_model
from ztom.io.text import Place
from ztom.stimuli.csv_files import read_rows

_METRICS = (
    *CLASS_METRICS,
    MetricName.EXACT_MATCH,
    MetricName.ROUGE_L,
    MetricName.SIMILARITY,
)


@dataclass(frozen=True)
class Table:
    """The part of a CSV file that becomes a suite.

    Attributes:
        path: The file; its first row names the columns.
        text: Column of the inputs.
        target: Column of the targets.
        n: Number of items; all when None.
        seed: Seed of the draw of items.
    """

    path: Path
    text: str = "text"
    target: str = "target"
    n: int | None = None
    seed: int = 0


def suite_from_table(
    table: Table,
    folder: Path,
    *,
    name: str,
    owner: str,
    metric: MetricName = MetricName.ACCURACY,
    floor: float = 0.0,
) -> Suite:
    """Make and lock a suite, version 1.0.0.

    For classes the prompt lists all of the table's, also those that the draw missed.

    Args:
        table: Part of a CSV file that the items come from.
        folder: Folder of the suite to be; must not exist.
        name: Name of the suite.
        owner: Owner who answers for it.
        metric: Metric that scores answers; one that takes a text for a target.
        floor: Value that the metric has to reach, 0 to 1.

    Raises:
        EvaluationError: The table cannot be read or is too small, an argument is not usable, or
            the folder exists.
        StorageError: The folder cannot be written.
    """
    check_name(name)
    if metric not in _METRICS:
        raise EvaluationError(f"a table is no suite for {metric}", expected=", ".join(_METRICS))
    classes = metric in CLASS_METRICS
    rows = _read(table, one_target=classes)
    labels = sorted({target for _, target in rows}) if classes else []
    settings = {
        "name": name,
        "version": "1.0.0",
        "layer": str(Layer.TASK),
        "metric": str(metric),
        "labels": labels,
        "floor": floor,
        "owner": owner,
        "decode": {"max_new_tokens": 24 if classes else 128},
        "template": _question(labels),
    }
    files = {
        SETTINGS_FILE: _settings(settings).encode(),
        ITEMS_FILE: _items(draw(rows, table), name).encode(),
    }
    publish_suite(folder, files, lock=True)
    return load_suite(folder)


def draw(rows: Sequence[tuple[str, str]], table: Table) -> list[tuple[str, str]]:
    """``table.n`` of the (text, target) rows, stratified by target, in the order of the file.

    Raises:
        EvaluationError: There are not so many.
    """
    n = len(rows) if table.n is None else table.n
    if not 0 < n <= len(rows):
        raise EvaluationError(
            f"{table.path} cannot give that many items",
            got=n,
            expected=f"1 to {len(rows)}: its rows, those that occur twice counted once",
        )
    strata: dict[str, list[tuple[str, str]]] = {}
    for row in sorted(rows, key=lambda row: _digest(str(table.seed), *row)):
        strata.setdefault(row[1], []).append(row)
    exact = {target: n * len(strata[target]) / len(rows) for target in sorted(strata)}
    takes = {target: int(share) for target, share in exact.items()}
    neediest = sorted(exact, key=lambda target: takes[target] - exact[target])
    for target in neediest[: n - sum(takes.values())]:
        takes[target] += 1
    chosen = {row for target, take in takes.items() for row in strata[target][:take]}
    return [row for row in rows if row in chosen]


def _read(table: Table, *, one_target: bool) -> list[tuple[str, str]]:
    """Different (text, target) pairs, in the order of the file."""
    with evaluation_errors():
        names = (table.text.lower(), table.target.lower())
        rows = read_rows(table.path, names=names, on_blank=lambda place: None)
        place, header = rows[0]
        for column in (table.text, table.target):
            if header.count(column) != 1:
                raise place.error(
                    "a column is not there once", got=column, expected=f"of {', '.join(header)}"
                )
        text, target = header.index(table.text), header.index(table.target)
        targets: dict[tuple[str, str], Place] = {}
        for place, row in rows[1:]:
            if not row[text].strip() or not row[target].strip():
                raise place.error("the text or the target is empty")
            targets.setdefault((row[text], row[target]), place)
        if one_target:
            _require_one_target(targets)
    return list(targets)


def _require_one_target(targets: Mapping[tuple[str, str], Place]) -> None:
    seen: dict[str, int] = {}
    for (text, _), place in targets.items():
        if text in seen:
            raise place.error("a text has two classes", got=f"another one in line {seen[text]}")
        seen[text] = place.line


def _items(rows: Sequence[tuple[str, str]], name: str) -> str:
    """Ids follow from text and target: they stay when n, seed or the table change."""
    items = [
        {"id": f"{name}-{_digest(text, target)[:16]}", "input": text, "target": target}
        for text, target in rows
    ]
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _question(labels: Sequence[str]) -> str:
    if not labels:
        return "{{ input }}"
    # Two braces would begin something in Jinja, and a label may hold them.
    names = "\n".join(f"- {label}" for label in labels).replace("{", "{{ '{' }}")
    return (
        f"Which of these classes is the text below?\n\n{names}\n\n"
        "Text: {{ input }}\n\nAnswer with the class alone."
    )


class _BlockDumper(yaml.SafeDumper):
    """Texts of several lines stay readable."""


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_BlockDumper.add_representer(str, _text_node)


def _settings(settings: Mapping[str, Any]) -> str:
    check_model(
        SuiteConfig, dict(settings), wrong="these are no settings of a suite", kind=EvaluationError
    )
    filled = {key: value for key, value in settings.items() if value != []}
    return yaml.dump(filled, Dumper=_BlockDumper, sort_keys=False, allow_unicode=True, width=100)
