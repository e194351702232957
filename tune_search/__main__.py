"""``python -m tune_search search.yaml``: what a Ray job runs.

Ends with 0 when there is a result, 130 when it was interrupted, 2 when something went wrong. The
options are those of ``ztom search`` on this machine; what is done is `tune_search.command`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tune_search.command import INTERRUPTED, exit_status, ledger_override, run_command
from ztom.errors import ConfigError, ZtomError
from ztom.search.config_files import load_config
from ztom.search.example import example


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
        config = load_config(options.config, overrides)
        return exit_status(run_command(config, resume=options.resume, console=console))
    except ZtomError as error:
        console.print(f"{type(error).__name__}: {error}", style="red", markup=False)
        return 2
    except KeyboardInterrupt:
        console.print("interrupted; --resume goes on", style="red")
        return INTERRUPTED


def argument_parser() -> argparse.ArgumentParser:
    """The options; a test compares them with those of ``ztom search``."""
    parser = argparse.ArgumentParser(
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
    parser.add_argument("--ledger", help="file or SQLAlchemy address of the ledger")
    return parser


if __name__ == "__main__":
    sys.exit(main())
