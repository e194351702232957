"""What ``ztom gate`` does: evaluate or read results, decide, and tell everybody.

What keeps it from a verdict is an error, exit status 3, and what is wrong with files is one before
anything heavy is imported: deciding and writing is `ztom.cli.gate.report`.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ztom.checkpoints.storage import require_reachable
from ztom.cli.actions.evaluation import engine_config
from ztom.cli.gate.request import DOCUMENTS, WHO, GateRequest, Runs, key_of
from ztom.errors import StorageError
from ztom.evaluation.runs.files import read_run, read_runs, write_run
from ztom.evaluation.runs.results import SuiteRun
from ztom.evaluation.suites.discover import FoundSuite, read_suites
from ztom.evaluation.suites.lock import load_locked
from ztom.io.disk import require_output_place
from ztom.io.files import remove_place
from ztom.io.places import StoragePlace, is_store_address
from ztom.settings import Settings


def gate_command(request: GateRequest) -> int:
    """Decide, write, tell; returns the exit status of the verdict.

    Raises:
        ZtomError: There is no verdict.
    """
    request.check()
    _remove_documents(request.out)
    if request.sign is not None:
        key_of(request.sign)  # a key that cannot be used is known before anything is evaluated
    with _no_commands(to_stderr=request.as_json):
        suites = read_suites(request.suites, read=load_locked)
        runs = _all_runs(request, suites)
        from ztom.cli.gate.report import decide_and_write, show_verdict, tell_github

        verdict = decide_and_write(request, [suite_files.suite for suite_files in suites], runs)
        if not request.as_json:
            show_verdict(verdict, request.out)
    if _on_github():
        tell_github(verdict, suites, sys.stderr if request.as_json else sys.stdout)
    if request.as_json:
        sys.stdout.write(verdict.to_bytes().decode())
    return verdict.exit_code


def _all_runs(request: GateRequest, suites: Sequence[FoundSuite]) -> Runs:
    """Results of each side that there is."""
    runs: Runs = {who: _read(request.runs[who]) for who in WHO if request.runs[who]}
    named = [reference for reference in request.models.values() if reference is not None]
    if named:
        engine_config(request.engine)
        require_output_place(request.out, what="--out")
        for reference in named:
            require_reachable(reference, settings=Settings())
        # Here and not at the top: it imports torch, which takes seconds.
        from ztom.cli.gate.models import run_models

        runs |= run_models(request, suites)
    for who, results in runs.items():
        for run in results:
            write_run(run, request.out / "runs" / who)
    return runs


def _read(paths: Sequence[Path]) -> list[SuiteRun]:
    runs: list[SuiteRun] = []
    for path in paths:
        local = path
        if is_store_address(path):
            from ztom.io.store_fetch import here  # it imports fsspec

            local = here(path)
        runs += read_runs(local) if local.is_dir() else [read_run(local)]
    return runs


def _remove_documents(folder: StoragePlace) -> None:
    """An old verdict is never taken for that of a gate that came to none."""
    try:
        for name in DOCUMENTS:
            remove_place(folder / name)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{folder} cannot be written", reason=error.strerror) from error


def _on_github() -> bool:
    return os.environ.get("GITHUB_ACTIONS") == "true"


@contextmanager
def _no_commands(*, to_stderr: bool) -> Iterator[None]:
    """On GitHub, lines that look like workflow commands are none until the end of this.

    What is printed holds names and reasons from outside, and what engines say.
    """
    if not _on_github():
        yield
        return
    stream = sys.stderr if to_stderr else sys.stdout
    token = secrets.token_hex(16)
    print(f"::stop-commands::{token}", file=stream, flush=True)
    try:
        yield
    finally:
        print(f"\n::{token}::", file=stream, flush=True)
