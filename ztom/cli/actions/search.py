"""What ``ztom search`` does on this machine."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from tune_search.command import INTERRUPTED, exit_status, ledger_override, run_command
from ztom.cli.console import print_document, print_error
from ztom.search.config_files import load_config


def search_command(
    file: Path, overrides: list[str], *, ledger: str | None, resume: bool, as_json: bool = False
) -> int:
    """Search, prove and write; returns the exit status.

    Raises:
        ZtomError: Whatever went wrong, with what to do about it.
    """
    if ledger is not None:
        overrides = [*overrides, ledger_override(ledger)]
    config = load_config(file, overrides)
    status: int = INTERRUPTED
    try:
        result = run_command(config, resume=resume, console=Console(stderr=True))
        status = exit_status(result)
    except KeyboardInterrupt:
        print_error("interrupted; --resume goes on")
        return status
    if as_json:
        print_document(result)
    return status
