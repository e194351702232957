"""``python -m tune_search search.yaml``: what a Ray job runs.

Ends with 0 when there is a result, whatever it says, 130 when it was interrupted, 3 when something
went wrong; ``--exit-status`` makes the outcome the status. The options are those of ``ztom search``
on this machine; what is done is `tune_search.command`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from tune_search.command import (
    FAILED,
    INTERRUPTED,
    exit_status,
    ledger_override,
    result_lines,
    run_command,
)
from ztom.errors import ConfigError, ZtomError
from ztom.io.heartbeat import command_heartbeat
from ztom.search.config_files import load_config
from ztom.search.example import example


class _Parser(argparse.ArgumentParser):
    """Wrong options end with the status of every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(FAILED, f"ConfigError: {message}. `python -m tune_search --help` says more.\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = argument_parser().parse_args(arguments)
    if options.example:
        sys.stdout.write(example())
        return 0
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    overrides = list(options.set)
    if options.ledger is not None:
        overrides.append(ledger_override(options.ledger))
    console = Console(stderr=True)
    try:
        if options.config is None:
            raise ConfigError("no configuration is named", fix="Start from --example.")
        with command_heartbeat("python -m tune_search"):
            config = load_config(options.config, overrides)
            result = run_command(config, resume=options.resume, console=console)
    except ZtomError as error:
        console.print(
            f"{type(error).__name__}: {error}",
            style="red",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        return FAILED
    except KeyboardInterrupt:
        console.print("interrupted; --resume goes on", style="red")
        return INTERRUPTED
    for line in result_lines(result, config, options.config):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return exit_status(result, by_outcome=options.exit_status)


def argument_parser() -> argparse.ArgumentParser:
    """The options; a test compares them with those of ``ztom search``."""
    parser = _Parser(
        prog="python -m tune_search", description="Search for the best scaling factors of a chain."
    )
    parser.add_argument("config", type=Path, nargs="?", help="YAML file of the search")
    parser.add_argument("--example", action="store_true", help="print a commented file and end")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the newest study of this name"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the file"
    )
    parser.add_argument(
        "--exit-status",
        action="store_true",
        help="end with 0 if it improved, 1 if not, 2 if that is inconclusive",
    )
    parser.add_argument("--ledger", help="file or SQLAlchemy address of the ledger")
    return parser


if __name__ == "__main__":
    sys.exit(main())
