"""Commands about what a server serves: deploy, promote, rollback, status, apply, release."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ztom.cli.options import (
    HelpPanel,
    Json,
    JsonRows,
    Server,
    Settings,
    command_group,
    examples,
)

endpoint_commands = command_group(None, "Endpoints.")
release = command_group(
    "release", "Releases: how a candidate gets its traffic.", "ztom release watch support"
)

Alias = Annotated[str, typer.Argument(help="Name of the endpoint: what clients write in model.")]


@endpoint_commands.command(
    rich_help_panel=HelpPanel.SERVE,
    epilog=examples(
        "ztom deploy runs/search/variant --alias support",
        "ztom deploy runs/search/variant --alias support --canary 5",
        "ztom deploy runs/search/variant --alias support --verdict gate/verdict.json --now",
    ),
)
def deploy(
    variant: Annotated[str, typer.Argument(help="Folder of the variant, as the server sees it.")],
    alias: Annotated[
        str, typer.Option(help="Serve it under this name, which clients write in model.")
    ],
    canary: Annotated[
        float | None, typer.Option(min=0, max=100, help="Give it this percent of the requests.")
    ] = None,
    shadow: Annotated[
        float | None,
        typer.Option(min=0, max=100, help="Copy this percent of the requests to it, unanswered."),
    ] = None,
    now: Annotated[
        bool, typer.Option("--now", help="Give it all requests at once, without a release.")
    ] = False,
    live: Annotated[
        bool, typer.Option("--live", help="Swap it into the running engine at once (live_swap).")
    ] = False,
    plan: Annotated[
        Path | None,
        typer.Option(help="Read the release's plan from this YAML file; else the default one."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name the model like this; else like the alias.")
    ] = None,
    project_id: Annotated[
        str | None,
        typer.Option(
            "--project",
            help="Deploy for this project, by its id or name; administrators need none.",
        ),
    ] = None,
    verdict: Annotated[
        Path | None, typer.Option(help="Record this verdict.json of `ztom gate` first.")
    ] = None,
    insist: Annotated[
        bool,
        typer.Option("--insist", help="Deploy although neither gate nor search let it; recorded."),
    ] = False,
    set: Settings = None,
    wait: Annotated[
        float, typer.Option(min=0, help="Wait so many seconds for the traffic; 0 does not.")
    ] = 600,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Serve a variant under an alias; by default a release moves the traffic step by step."""
    from ztom.cli.actions.server_options import parse_settings

    options = parse_settings(set or [])
    from ztom.cli.actions.endpoints import deploy_command

    wishes = {
        "canary": canary,
        "shadow": shadow,
        "now": now,
        "live": live,
        "name": name,
        "project_id": project_id,
        "verdict": verdict,
        "insist": insist,
    }
    deploy_command(
        variant,
        alias,
        wishes=wishes,
        plan=plan,
        options=options,
        wait_s=wait,
        server=server,
        as_json=as_json,
    )


@endpoint_commands.command(rich_help_panel=HelpPanel.SERVE, epilog=examples("ztom promote support"))
def promote(alias: Alias, server: Server = None, as_json: Json = False) -> None:
    """Make an endpoint's candidate its stable variant, whatever a release says."""
    from ztom.cli.actions.endpoints import promote_command

    promote_command(alias, server, as_json=as_json)


@endpoint_commands.command(
    rich_help_panel=HelpPanel.SERVE, epilog=examples("ztom rollback support")
)
def rollback(alias: Alias, server: Server = None, as_json: Json = False) -> None:
    """Take an endpoint's candidate away; without one, go back to what was stable before."""
    from ztom.cli.actions.endpoints import rollback_command

    rollback_command(alias, server, as_json=as_json)


@endpoint_commands.command(
    rich_help_panel=HelpPanel.SERVE, epilog=examples("ztom status --server http://127.0.0.1:8000")
)
def status(server: Server = None, as_json: Json = False) -> None:
    """Show endpoints with their traffic, deployments, and releases under way."""
    from ztom.cli.actions.endpoints import status_command

    status_command(server, as_json=as_json)


@endpoint_commands.command(
    rich_help_panel=HelpPanel.SERVE,
    epilog=examples("ztom apply endpoints.yaml", "ztom apply endpoints.yaml --yes --prune"),
)
def apply(
    file: Annotated[Path, typer.Argument(help="YAML file of endpoints.")],
    yes: Annotated[bool, typer.Option("--yes", help="Change them without asking.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove endpoints that the file does not name.")
    ] = False,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Make endpoints what a file says: first the difference, then the change."""
    from ztom.cli.actions.endpoint_files import apply_command

    raise typer.Exit(apply_command(file, yes=yes, prune=prune, server=server, as_json=as_json))


@release.command("list", epilog=examples("ztom release list support"))
def release_list(
    alias: Annotated[
        str | None, typer.Argument(help="Alias of one endpoint; without it, of all.")
    ] = None,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """List releases, newest first."""
    from ztom.cli.actions.releases import releases_command

    releases_command(alias, server, as_json=as_json)


@release.command("show", epilog=examples("ztom release show support"))
def release_show(
    release: Annotated[str, typer.Argument(help="Id of the release, or an endpoint's alias.")],
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Show where a release stands, step by step."""
    from ztom.cli.actions.releases import show_command

    show_command(release, server, as_json=as_json)


@release.command("watch", epilog=examples("ztom release watch support"))
def release_watch(
    release: Annotated[str, typer.Argument(help="Id of the release, or an endpoint's alias.")],
    server: Server = None,
    as_json: JsonRows = False,
) -> None:
    """Show a release live until it has ended; the exit status is 0 if it was promoted."""
    from ztom.cli.actions.releases import watch_command

    raise typer.Exit(watch_command(release, server, as_json=as_json))


@release.command("tell", epilog=examples("ztom release tell RELEASE promote"))
def release_tell(
    release: Annotated[str, typer.Argument(help="Id of the release, or an endpoint's alias.")],
    command: Annotated[str, typer.Argument(help="One of promote, rollback, resume and abort.")],
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Tell a release what to do."""
    from ztom.cli.actions.releases import tell_command

    tell_command(release, command, server, as_json=as_json)
