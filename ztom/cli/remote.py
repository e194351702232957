"""Commands that speak to a server about projects: ``ztom login`` and ``ztom project``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ztom.cli.options import (
    HelpPanel,
    Json,
    PasswordStdin,
    ProjectName,
    Server,
    command_group,
    examples,
)
from ztom.cli.places import local_only

remote_commands = command_group(None, "Working with a server.")
project = command_group(
    "project", "Projects of a server.", "ztom project list --server http://127.0.0.1:8000"
)


@remote_commands.command(
    rich_help_panel=HelpPanel.SERVER, epilog=examples("ztom login http://127.0.0.1:8000 ada")
)
def login(
    server: Annotated[str, typer.Argument(help="Address of the server.")],
    username: Annotated[str, typer.Argument(help="Name or e-mail address.")],
    password_stdin: PasswordStdin = False,
) -> None:
    """Log in to a server; the token is kept for the commands that speak to it."""
    from ztom.cli.actions.remote import login_command

    login_command(server, username, stdin=password_stdin)


@remote_commands.command(
    rich_help_panel=HelpPanel.SERVER, epilog=examples("ztom logout http://127.0.0.1:8000")
)
def logout(
    server: Annotated[
        str | None, typer.Argument(help="Address of the server; else of ZTOM_SERVER.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Forget the token of a server that was kept on this machine."""
    from ztom.cli.actions.remote import logout_command

    logout_command(server, as_json=as_json)


@remote_commands.command(rich_help_panel=HelpPanel.SERVER, epilog=examples("ztom whoami"))
def whoami(server: Server = None, as_json: Json = False) -> None:
    """Say as whom commands speak to a server."""
    from ztom.cli.actions.remote import whoami_command

    whoami_command(server, as_json=as_json)


@remote_commands.command(rich_help_panel=HelpPanel.SERVER, epilog=examples("ztom limits"))
def limits(server: Server = None, as_json: Json = False) -> None:
    """Show how much of a server your account holds, and may hold."""
    from ztom.cli.actions.remote import limits_command

    limits_command(server, as_json=as_json)


@remote_commands.command(
    rich_help_panel=HelpPanel.SERVER,
    epilog=examples("ztom usage --by project --by day", "ztom usage --price-per-hour 2.5"),
)
def usage(
    first: Annotated[
        str | None, typer.Option("--from", help="Begin with this day (UTC), else with the month.")
    ] = None,
    last: Annotated[str | None, typer.Option("--to", help="End with this day, else today.")] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="Tell apart by key, project, variant or day; may be repeated. By all without it."
        ),
    ] = None,
    project: Annotated[
        str | None, typer.Option(help="Count this project's endpoints alone, by id or name.")
    ] = None,
    price_per_hour: Annotated[
        float | None,
        typer.Option(min=0, help="Take this price of an hour of any replica."),
    ] = None,
    price_per_1000_prompt_tokens: Annotated[
        float | None, typer.Option(min=0, help="Add this price of 1,000 tokens of prompts.")
    ] = None,
    price_per_1000_completion_tokens: Annotated[
        float | None, typer.Option(min=0, help="Add this price of 1,000 generated tokens.")
    ] = None,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Show who used how much of what a server serves, and what it costs."""
    from ztom.cli.actions.served_usage import usage_command

    usage_command(
        server,
        as_json=as_json,
        first=first,
        last=last,
        by=by or [],
        project_id=project,
        price_per_hour=price_per_hour,
        price_per_1000_prompt_tokens=price_per_1000_prompt_tokens,
        price_per_1000_completion_tokens=price_per_1000_completion_tokens,
    )


@project.command("list", epilog=examples("ztom project list"))
def project_list(server: Server = None, as_json: Json = False) -> None:
    """List projects and their files."""
    from ztom.cli.actions.remote import projects_command

    projects_command(server, as_json=as_json)


@project.command(
    "create", epilog=examples('ztom project create support --description "Answers to tickets"')
)
def project_create(
    name: Annotated[str, typer.Argument(help="Name the project like this.")],
    description: Annotated[str, typer.Option(help="Describe it for people.")] = "",
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Make a project and print its id."""
    from ztom.cli.actions.remote import create_project_command

    create_project_command(name, description, server, as_json=as_json)


@project.command(
    "add",
    epilog=examples(
        "ztom project add PROJECT models/base --base",
        "ztom project add PROJECT models/week-1 models/week-2",
    ),
)
def project_add(
    project: ProjectName,
    paths: Annotated[
        list[str], typer.Argument(help="Folders or tars of checkpoints, in training order.")
    ],
    base: Annotated[bool, typer.Option("--base", help="Add it as the base model.")] = False,
    pointer: Annotated[
        bool, typer.Option("--pointer", help="Leave it where it is; the server reads it there.")
    ] = False,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Add checkpoints to a project."""
    from ztom.cli.actions.remote import add_command

    add_command(project, paths, base=base, pointer=pointer, server=server, as_json=as_json)


@project.command(
    "change", epilog=examples('ztom project change support --description "Answers to tickets"')
)
def project_change(
    project: ProjectName,
    name: Annotated[str | None, typer.Option(help="Call it like this from now on.")] = None,
    description: Annotated[str | None, typer.Option(help="Describe it for people.")] = None,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Change what a project is called, or how it is described."""
    from ztom.cli.actions.remote import change_project_command

    change_project_command(project, name, description, server, as_json=as_json)


@project.command("delete", epilog=examples("ztom project delete support --hard"))
def project_delete(
    project: ProjectName,
    hard: Annotated[bool, typer.Option("--hard", help="Delete the bytes as well.")] = False,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Delete a project."""
    from ztom.cli.actions.remote import delete_project_command

    delete_project_command(project, server, hard=hard, as_json=as_json)


@project.command("remove", epilog=examples("ztom project remove support week-2"))
def project_remove(
    project: ProjectName,
    file: Annotated[str, typer.Argument(help="Id, tag or name of the checkpoint.")],
    hard: Annotated[bool, typer.Option("--hard", help="Delete the bytes as well.")] = False,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Take a checkpoint out of a project."""
    from ztom.cli.actions.remote import remove_file_command

    remove_file_command(project, file, server, hard=hard, as_json=as_json)


@project.command("data", epilog=examples("ztom project data support stimuli.jsonl"))
def project_data(
    project: ProjectName,
    file: Annotated[Path, typer.Argument(help="File of stimuli or expected outputs.")],
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Upload a data set and print the reference that searches take."""
    from ztom.cli.actions.remote import add_data_command

    add_data_command(project, file, server, as_json=as_json)


@project.command(
    "download", epilog=examples("ztom project download PROJECT FILE --output models/mastered")
)
def project_download(
    project: ProjectName,
    file: Annotated[str, typer.Argument(help="Id, tag or name of the checkpoint.")],
    output: Annotated[
        Path,
        typer.Option(
            callback=local_only,
            help="Save it in this folder, or under this name that ends in .tar.",
        ),
    ],
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Save a checkpoint of a project."""
    from ztom.cli.actions.remote import download_command

    download_command(project, file, output, server, as_json=as_json)
