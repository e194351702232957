"""Deciding, and what is written, shown and rendered of a verdict.

``verdict.json`` is written last: where it is, the documents that were made from it are.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import TextIO

from rich.table import Table

from ztom.cli.console import plain_console
from ztom.cli.gate.request import DOCUMENTS, GateRequest, Runs, key_of
from ztom.errors import EvaluationError
from ztom.evaluation.gate.decide import decide
from ztom.evaluation.gate.verdict import Outcome, Verdict
from ztom.evaluation.render.annotations import SuiteFiles, render_annotations
from ztom.evaluation.render.junit import render_junit
from ztom.evaluation.render.markdown import render_markdown
from ztom.evaluation.render.page import render_page
from ztom.evaluation.render.texts import item_texts
from ztom.evaluation.suites.discover import FoundSuite
from ztom.evaluation.suites.suite import Suite
from ztom.io.files import read_place, write_document
from ztom.io.places import StoragePlace, parse_place
from ztom.pages.formats import count, visible

_STYLES = {Outcome.PASS: "green", Outcome.FAIL: "red", Outcome.INCONCLUSIVE: "yellow"}


def render_command(file: Path, form: str) -> None:
    """Print a verdict in another form.

    Raises:
        EvaluationError: It cannot be read.
    """
    forms: dict[str, Callable[[Verdict], str]] = {
        "html": render_page,
        "junit": render_junit,
        "markdown": render_markdown,
        "annotations": render_annotations,
    }
    try:
        verdict = Verdict.from_bytes(read_place(parse_place(file)))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{file} is no verdict", reason=str(error)) from error
    sys.stdout.write(forms[form](verdict))


def decide_and_write(request: GateRequest, suites: Sequence[Suite], runs: Runs) -> Verdict:
    """The verdict on these results, written in every form.

    Raises:
        ZtomError: There is no verdict.
    """
    verdict = decide(
        runs["candidate"],
        runs.get("champion"),
        suites,
        base=runs.get("base"),
        first=request.first,
        seed=request.seed,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    if request.sign is not None:
        verdict = verdict.signed(key_of(request.sign))
    _write(request.out, verdict, suites, runs)
    return verdict


def _write(
    folder: StoragePlace,
    verdict: Verdict,
    suites: Sequence[Suite],
    runs: Runs,
) -> None:
    texts = item_texts(verdict, suites, runs["candidate"], runs.get("champion"))
    contents = (
        render_page(verdict, texts),
        render_markdown(verdict),
        render_junit(verdict),
        verdict.to_bytes().decode(),
    )
    for name, content in zip(DOCUMENTS, contents, strict=True):
        write_document(folder / name, content)


def show_verdict(verdict: Verdict, folder: StoragePlace) -> None:
    """A row for each suite, the reasons, and where the page is."""
    console = plain_console()
    table = Table("suite", "version", "layer", "items", box=None, pad_edge=False)
    for column in ("candidate", "champion", "difference", "outcome"):
        table.add_column(column)
    for suite in verdict.suites:
        estimates = (suite.candidate, suite.champion, suite.difference)
        values = ["-" if e is None else f"{e.value:.4f}" for e in estimates]
        table.add_row(
            suite.suite.name,
            suite.suite.version,
            suite.suite.layer,
            count(suite.n),
            *values,
            suite.outcome,
            style=_STYLES[suite.outcome],
        )
    console.print(table)
    for reason in verdict.reasons:
        console.print(visible(reason), soft_wrap=True)
    console.print(f"{verdict.outcome}: {folder / 'verdict.html'}", soft_wrap=True)


def tell_github(verdict: Verdict, suites: Sequence[FoundSuite], stream: TextIO) -> None:
    """Annotations on lines of the suites, and the summary of the job."""
    root = os.environ.get("GITHUB_WORKSPACE") or "."
    files = {
        suite_files.suite.config.name: SuiteFiles.of(
            suite_files.suite, PurePath(os.path.relpath(suite_files.folder, root))
        )
        for suite_files in suites
    }
    stream.write(render_annotations(verdict, files))
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with open(summary, "a", encoding="utf-8") as file:
            file.write(render_markdown(verdict))
