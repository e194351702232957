"""Results on disk: ``FOLDER/<suite>/run.json``, one per suite, whole or absent."""

from __future__ import annotations

from pathlib import Path

from ztom.errors import EvaluationError
from ztom.evaluation.runs.results import SuiteRun
from ztom.io.files import write_document
from ztom.io.places import StoragePlace
from ztom.io.problems import check_json

RUN_FILE = "run.json"


def write_run(run: SuiteRun, folder: StoragePlace) -> StoragePlace:
    """Write a run below ``folder``, in place of one that is there; returns the file.

    Raises:
        StorageError: The disk refused.
    """
    return write_document(folder / run.suite.name / RUN_FILE, run.model_dump_json(indent=1))


def read_runs(folder: Path) -> tuple[SuiteRun, ...]:
    """Every run below ``folder``, by suite's name.

    Raises:
        EvaluationError: There is none, or one is malformed.
    """
    files = sorted(folder.glob(f"*/{RUN_FILE}"))
    if not files:
        raise EvaluationError(
            f"there are no results in {folder}",
            expected=f"*/{RUN_FILE}",
            fix="`ztom eval MODEL --suite ... --out FOLDER` writes them.",
        )
    return tuple(read_run(file) for file in files)


def read_run(file: Path) -> SuiteRun:
    """One run.

    Raises:
        EvaluationError: It cannot be read, or is malformed.
    """
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise EvaluationError(f"{file} cannot be read", reason=error.strerror) from error
    return check_json(SuiteRun, raw, wrong=f"{file} is no result of a suite", kind=EvaluationError)
