"""What ``ztom search`` does on this machine."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from tune_search.command import (
    INTERRUPTED,
    exit_status,
    ledger_override,
    result_lines,
    run_command,
)
from ztom.cli.console import plain_console, print_document, print_error
from ztom.search.config_files import load_config


def search_command(
    file: Path,
    overrides: list[str],
    *,
    ledger: str | None,
    resume: bool,
    by_outcome: bool = False,
    as_json: bool = False,
) -> int:
    """Search, prove and write; returns the exit status.

    Progress goes to standard error; what it came to to standard output, as lines or as JSON.

    Raises:
        ZtomError: Whatever went wrong, with what to do about it.
    """
    if ledger is not None:
        overrides = [*overrides, ledger_override(ledger)]
    config = load_config(file, overrides)
    try:
        result = run_command(config, resume=resume, console=Console(stderr=True))
    except KeyboardInterrupt:
        print_error("interrupted; --resume goes on")
        return INTERRUPTED
    console = plain_console(stderr=as_json)
    for line in result_lines(result, config, file):
        console.print(line)
    if as_json:
        print_document(result)
    status: int = exit_status(result, by_outcome=by_outcome)
    return status
