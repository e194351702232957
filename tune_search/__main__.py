"""``python -m tune_search search.yaml``: what a Ray job runs.

Ends with 0 when there is a result, 130 when it was interrupted, 2 when something went wrong.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tune_search.display import progress_display, shown
from ztom.errors import ConfigError, ZtomError
from ztom.io.files import write_whole
from ztom.search.config import SearchConfig
from ztom.search.config_files import load_config
from ztom.search.example import example
from ztom.search.result import SearchResult


def main(arguments: Sequence[str] | None = None, *, program: str = "python -m tune_search") -> int:
    """Run the command line; returns the exit status."""
    options = _parser(program).parse_args(arguments)
    if options.example:
        sys.stdout.write(example())
        return 0
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    overrides = list(options.set)
    if options.ledger is not None:
        overrides.append(f"ledger={_absolute(options.ledger)}")
    console = Console(stderr=True)
    try:
        return _run(options.config, overrides, resume=options.resume, console=console)
    except ZtomError as error:
        console.print(f"{type(error).__name__}: {error}", style="red", markup=False)
        return 2
    except KeyboardInterrupt:
        console.print("interrupted; --resume goes on", style="red")
        return 130


def _run(path: Path | None, overrides: list[str], *, resume: bool, console: Console) -> int:
    if path is None:
        raise ConfigError("no configuration is named", fix="Start from --example.")
    config = load_config(path, overrides)
    error_file = config.output / "error.txt"
    error_file.unlink(missing_ok=True)
    try:
        return _search(config, resume=resume, console=console)
    except ZtomError as error:
        write_whole(error_file, f"{type(error).__name__}: {error}\n")
        raise


def _search(config: SearchConfig, *, resume: bool, console: Console) -> int:
    from tune_search.run import result_path, search_and_prove

    with progress_display(console) as on_event:
        result = search_and_prove(config, resume=resume, on_event=on_event)
    for line in summary(result):
        console.print(line, markup=False, highlight=False)
    console.print(f"result: {result_path(config)}", markup=False, highlight=False)
    return 130 if result.stop_reason == "interrupted" else 0


def summary(result: SearchResult) -> list[str]:
    """The result in a few lines."""
    noise = "unknown" if result.noise_floor is None else f"{result.noise_floor:.5f}"
    seconds = result.seconds
    return [
        f"trained_model_error        {result.trained_model_error:.5f}   (noise floor {noise})",
        f"optimized_model_error      {result.optimized_model_error:.5f}",
        f"improvement                {result.improvement:.5f}",
        f"optimized_scaling_factors  {shown(result.optimized_scaling_factors)}",
        f"number_of_inferences       {result.number_of_inferences}"
        f"   ({result.generated_tokens} generated tokens, ended by: {result.stop_reason})",
        "seconds                    "
        + ", ".join(f"{phase} {taken:.1f}" for phase, taken in seconds.items()),
    ]


def _absolute(ledger: str) -> str:
    """On the command line a file is relative to where the command is given."""
    return ledger if "://" in ledger else str(Path(ledger).absolute())


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program, description="Search for the best scaling factors of a chain."
    )
    parser.add_argument("config", type=Path, nargs="?", help="the search's YAML file")
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
