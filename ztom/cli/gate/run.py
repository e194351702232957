"""What ``ztom gate`` does: evaluate or read results, decide, and tell everybody.

What keeps it from a verdict is an error, exit status 3. ``verdict.json`` is written last: where it
is, the documents that were made from it are.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePath

from rich.table import Table

from ztom.cli.console import plain_console
from ztom.cli.gate.request import WHO, GateRequest, Runs
from ztom.errors import EvaluationError, StorageError
from ztom.evaluation.gate.decide import decide
from ztom.evaluation.gate.verdict import Outcome, Verdict
from ztom.evaluation.render.annotations import SuiteFiles, render_annotations
from ztom.evaluation.render.junit import render_junit
from ztom.evaluation.render.markdown import render_markdown
from ztom.evaluation.render.page import render_page
from ztom.evaluation.render.texts import item_texts
from ztom.evaluation.runs.files import read_run, read_runs, write_run
from ztom.evaluation.runs.results import SuiteRun
from ztom.evaluation.suites.discover import FoundSuite, read_suites
from ztom.evaluation.suites.lock import load_locked
from ztom.evaluation.suites.suite import Suite
from ztom.io.files import write_document
from ztom.pages.formats import count, visible

DOCUMENTS = ("verdict.html", "verdict.md", "junit.xml", "verdict.json")
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
        verdict = Verdict.from_bytes(file.read_bytes())
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{file} is no verdict", got=str(error)) from error
    sys.stdout.write(forms[form](verdict))


def gate_command(request: GateRequest) -> int:
    """Decide, write, tell; returns the exit status of the verdict.

    Raises:
        ZtomError: There is no verdict.
    """
    request.check()
    _remove_documents(request.out)
    with _no_commands():
        suites = read_suites(request.suites, read=load_locked)
        runs = _all_runs(request, suites)
        verdict = decide(
            runs["candidate"],
            runs.get("champion"),
            [each.suite for each in suites],
            base=runs.get("base"),
            first=request.first,
            seed=request.seed,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        _write(request.out, verdict, [each.suite for each in suites], runs)
        _show(verdict, request.out)
    if _on_github():
        _tell_github(verdict, suites)
    return verdict.exit_code


def _all_runs(request: GateRequest, suites: Sequence[FoundSuite]) -> Runs:
    """Results of each side that there is."""
    runs: Runs = {who: _read(request.runs[who]) for who in WHO if request.runs[who]}
    if any(request.models.values()):
        # Here and not at the top: it imports torch, which takes seconds.
        from ztom.cli.gate.models import run_models

        runs |= run_models(request, suites)
    for who, found in runs.items():
        for run in found:
            write_run(run, request.out / "runs" / who)
    return runs


def _read(paths: Sequence[Path]) -> list[SuiteRun]:
    return [
        run for path in paths for run in (read_runs(path) if path.is_dir() else [read_run(path)])
    ]


def _remove_documents(folder: Path) -> None:
    """An old verdict is never taken for that of a gate that came to none."""
    try:
        for name in DOCUMENTS:
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written", got=error.strerror) from error


def _write(
    folder: Path,
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


def _show(verdict: Verdict, folder: Path) -> None:
    console = plain_console()
    table = Table("suite", "version", "layer", "items", box=None, pad_edge=False)
    for column in ("candidate", "champion", "difference", "outcome"):
        table.add_column(column)
    for suite in verdict.suites:
        estimates = (suite.candidate, suite.champion, suite.difference)
        values = ["-" if each is None else f"{each.value:.4f}" for each in estimates]
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


def _on_github() -> bool:
    return os.environ.get("GITHUB_ACTIONS") == "true"


@contextmanager
def _no_commands() -> Iterator[None]:
    """On GitHub, lines that look like workflow commands are none until the end of this.

    What is printed holds names and reasons from outside, and what engines say.
    """
    if not _on_github():
        yield
        return
    token = secrets.token_hex(16)
    print(f"::stop-commands::{token}", flush=True)
    try:
        yield
    finally:
        print(f"\n::{token}::", flush=True)


def _tell_github(verdict: Verdict, suites: Sequence[FoundSuite]) -> None:
    """Annotations on lines of the suites, and the summary of the job."""
    root = os.environ.get("GITHUB_WORKSPACE") or "."
    files = {
        each.suite.config.name: SuiteFiles.of(
            each.suite, PurePath(os.path.relpath(each.folder, root))
        )
        for each in suites
    }
    sys.stdout.write(render_annotations(verdict, files))
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with open(summary, "a", encoding="utf-8") as file:
            file.write(render_markdown(verdict))
