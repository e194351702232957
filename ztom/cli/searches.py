"""Commands on a server's searches: ``ztom searches list``, ``show``, ``events``, ``cancel``, ..."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ztom.cli.options import Json, JsonRows, ProjectName, Server, command_group, examples
from ztom.cli.places import local_only

searches = command_group(
    "searches", "Searches that run, or ran, at a server.", "ztom searches list support"
)

Request = Annotated[str, typer.Argument(help="Id of the search's request.")]


@searches.command("list", epilog=examples("ztom searches list", "ztom searches list support"))
def searches_list(
    project: Annotated[
        str | None, typer.Argument(help="Id or name of one project; without it, of all.")
    ] = None,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """List searches, newest first."""
    from ztom.cli.actions.searches import list_searches

    list_searches(project, server, as_json=as_json)


@searches.command("show", epilog=examples("ztom searches show REQUEST"))
def searches_show(request: Request, server: Server = None, as_json: Json = False) -> None:
    """Show where a search stands, and what came of it."""
    from ztom.cli.actions.searches import show_search

    show_search(request, server, as_json=as_json)


@searches.command("events", epilog=examples("ztom searches events REQUEST"))
def searches_events(request: Request, server: Server = None, as_json: JsonRows = False) -> None:
    """Print each trial as it ends, those so far first, until the search is over."""
    from ztom.cli.actions.searches import follow_search

    follow_search(request, server, as_json=as_json)


@searches.command("cancel", epilog=examples("ztom searches cancel REQUEST"))
def searches_cancel(request: Request, server: Server = None, as_json: Json = False) -> None:
    """End a search; its trials stay, and it can be resumed."""
    from ztom.cli.actions.searches import cancel_search

    cancel_search(request, server, as_json=as_json)


@searches.command("resume", epilog=examples("ztom searches resume REQUEST"))
def searches_resume(request: Request, server: Server = None, as_json: Json = False) -> None:
    """Go on with a search that was cancelled or failed, with the trials that it has."""
    from ztom.cli.actions.searches import resume_search

    resume_search(request, server, as_json=as_json)


@searches.command(
    "result", epilog=examples("ztom searches result support REQUEST --output result.json")
)
def searches_result(
    project: ProjectName,
    request: Request,
    output: Annotated[
        Path, typer.Option(callback=local_only, help="Save the whole result as this file.")
    ],
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Save the whole of a search's result."""
    from ztom.cli.actions.searches import save_result

    save_result(project, request, output, server, as_json=as_json)
