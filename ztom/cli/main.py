"""The ``ztom`` command: its groups put together, and how errors reach the user."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from ztom.cli.chains import chain_commands
from ztom.cli.console import print_error
from ztom.cli.data import data
from ztom.cli.demo import demo_commands
from ztom.cli.doctor import doctor_commands
from ztom.cli.endpoints import endpoint_commands, release
from ztom.cli.evaluation import evaluation_commands
from ztom.cli.gate.options import gate
from ztom.cli.options import HelpPanel, examples
from ztom.cli.records import audit, record_commands
from ztom.cli.remote import project, remote_commands
from ztom.cli.search import search_commands
from ztom.cli.server import admin, server_commands
from ztom.cli.serving import serving_commands
from ztom.cli.suites import suite
from ztom.cli.usage import OPTION_ERROR, is_help_request, usage_error
from ztom.errors import ZtomError
from ztom.version import __version__

app = typer.Typer(
    name="ztom",
    help="Find, prove, write and serve the best blend of a chain of checkpoints.",
    epilog=examples("ztom demo", "ztom search --example > search.yaml", "ztom search search.yaml"),
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(search_commands)
app.add_typer(demo_commands)
app.add_typer(chain_commands)
app.add_typer(data, rich_help_panel=HelpPanel.MASTER)
app.add_typer(evaluation_commands)
app.add_typer(gate, rich_help_panel=HelpPanel.JUDGE)
app.add_typer(suite, rich_help_panel=HelpPanel.JUDGE)
app.add_typer(serving_commands)
app.add_typer(endpoint_commands)
app.add_typer(release, rich_help_panel=HelpPanel.SERVE)
app.add_typer(record_commands)
app.add_typer(audit, rich_help_panel=HelpPanel.RECORD)
app.add_typer(server_commands)
app.add_typer(doctor_commands)
app.add_typer(admin, rich_help_panel=HelpPanel.SERVER)
app.add_typer(remote_commands)
app.add_typer(project, rich_help_panel=HelpPanel.SERVER)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ztom {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Say the version."),
    ] = False,
) -> None:
    """Find, prove, write and serve the best blend of a chain of checkpoints."""


def main() -> None:
    """Run the command line; errors become one message and a status."""
    # Waiting threads that spin take the cores that the working ones need; set before torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        status = app(prog_name="ztom", standalone_mode=False)
    except ZtomError as error:
        print_error(f"{type(error).__name__}: {error}")
        sys.exit(2)
    except OPTION_ERROR as error:
        if not is_help_request(error):
            wrong = usage_error(error)
            print_error(f"{type(wrong).__name__}: {wrong}")
        sys.exit(getattr(error, "exit_code", 2))
    except KeyboardInterrupt:
        sys.exit(130)
    except typer.Abort:
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)
