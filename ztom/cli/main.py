"""The ``ztom`` command: its groups put together, and how errors reach the user."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ztom.cli.accounts import key, member, user
from ztom.cli.analyses import analysis
from ztom.cli.chains import chain_commands
from ztom.cli.cluster import cluster
from ztom.cli.data import data
from ztom.cli.demo import demo_commands
from ztom.cli.doctor import doctor_commands
from ztom.cli.drift import drift
from ztom.cli.endpoints import endpoint_commands, release
from ztom.cli.evaluation import evaluation_commands
from ztom.cli.failures import leave, leave_unread, report
from ztom.cli.gate.options import gate
from ztom.cli.options import HelpPanel, examples
from ztom.cli.plan import plan_commands
from ztom.cli.records import audit, record_commands
from ztom.cli.remote import project, remote_commands
from ztom.cli.search import search_commands
from ztom.cli.searches import searches
from ztom.cli.server import admin, server_commands
from ztom.cli.serving import serving_commands
from ztom.cli.signing_keys import signing_key
from ztom.cli.submit import submit_commands
from ztom.cli.suites import suite
from ztom.cli.traffic import deployment, endpoint, feedback_commands, verdict
from ztom.io.heartbeat import command_heartbeat
from ztom.version import __version__


class _Root(TyperGroup):
    """Nobody who reads the output is no error; typer would end with a status that means another."""

    def invoke(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().invoke(*args, **kwargs)
        except BrokenPipeError as error:
            raise typer.Exit(leave_unread()) from error


#: Clients of stores that log tracebacks of what they then raise.
_NOISY = ("gcsfs", "s3fs", "aiobotocore", "botocore")

app = typer.Typer(
    name="ztom",
    cls=_Root,
    help="Find, prove, write and serve the best blend of a chain of checkpoints.",
    epilog=examples("ztom demo", "ztom search --example > search.yaml", "ztom search search.yaml"),
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(search_commands)
app.add_typer(submit_commands)
app.add_typer(demo_commands)
app.add_typer(chain_commands)
app.add_typer(plan_commands)
app.add_typer(data, rich_help_panel=HelpPanel.MASTER)
app.add_typer(evaluation_commands)
app.add_typer(gate, rich_help_panel=HelpPanel.JUDGE)
app.add_typer(suite, rich_help_panel=HelpPanel.JUDGE)
app.add_typer(serving_commands)
app.add_typer(endpoint_commands)
for group in (release, endpoint, deployment, verdict):
    app.add_typer(group, rich_help_panel=HelpPanel.SERVE)
app.add_typer(feedback_commands)
app.add_typer(record_commands)
app.add_typer(audit, rich_help_panel=HelpPanel.RECORD)
app.add_typer(drift, rich_help_panel=HelpPanel.JUDGE)
app.add_typer(signing_key, rich_help_panel=HelpPanel.RECORD)
app.add_typer(server_commands)
app.add_typer(doctor_commands)
app.add_typer(cluster, rich_help_panel=HelpPanel.SERVER)
app.add_typer(admin, rich_help_panel=HelpPanel.SERVER)
app.add_typer(remote_commands)
for group in (project, analysis, searches, member, key, user):
    app.add_typer(group, rich_help_panel=HelpPanel.SERVER)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ztom {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Say the version."),
    ] = False,
) -> None:
    """Find, prove, write and serve the best blend of a chain of checkpoints."""
    context.with_resource(command_heartbeat(f"ztom {context.invoked_subcommand}"))


def main() -> None:
    """Run the command line; errors become one message and a status."""
    # Waiting threads that spin take the cores that the working ones need; set before torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for name in _NOISY:  # what they say comes as an error, with what to do
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        status = app(prog_name="ztom", standalone_mode=False)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        status = report(error)
    leave(status if isinstance(status, int) else 0)
