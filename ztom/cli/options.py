"""What the commands have in common: how a group is made, and options that many of them take."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.markup import escape

LEDGER_HELP = "File or SQLAlchemy address of the ledger."


class HelpPanel(StrEnum):
    """Under which heading ``ztom --help`` lists a command."""

    MASTER = "Search and write"
    JUDGE = "Evaluate and decide"
    SERVE = "Serve and release"
    RECORD = "Records"
    SERVER = "The server and its projects"


def examples(*lines: str) -> str:
    """The end of a command's help: lines that can be typed as they stand."""
    heading = "Example:" if len(lines) == 1 else "Examples:"
    return "\n".join([heading, *(f"$ {escape(line)}" for line in lines)])


def command_group(name: str | None, help: str, *lines: str) -> typer.Typer:
    """A group of commands; without a name its commands stand beside the others.

    Args:
        name: What is typed before the group's commands.
        help: What the group is for.
        lines: Examples for the end of its help.
    """
    return typer.Typer(
        name=name,
        help=help,
        epilog=examples(*lines) if lines else None,
        no_args_is_help=True,
        add_completion=False,
    )


Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document on standard output and nothing else."),
]
JsonRows = Annotated[
    bool, typer.Option("--json", help="Print a JSON document per record, each on its own line.")
]
Dtype = Annotated[
    str, typer.Option(help="Compute with these weights: auto, float32, bfloat16 or float16.")
]
NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Ask the model again for answers that are known.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a further option; may be repeated."),
]
Server = Annotated[
    str | None, typer.Option(help="Speak to the server at this address; else to ZTOM_SERVER.")
]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input.")
]
ProjectName = Annotated[str, typer.Argument(help="Id or name of the project.")]
