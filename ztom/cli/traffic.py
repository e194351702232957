"""Commands on single endpoints, deployments and verdicts of a server, and feedback on answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ztom.cli.options import HelpPanel, Json, Server, command_group, examples

endpoint = command_group("endpoint", "Endpoints, one by one.", "ztom endpoint show support")
deployment = command_group("deployment", "Variants that a server runs.", "ztom deployment list")
verdict = command_group(
    "verdict", "Verdicts of the gate on a server's record.", "ztom verdict record verdict.json"
)
feedback_commands = command_group(None, "Feedback.")

Alias = Annotated[str, typer.Argument(help="Name of the endpoint: what clients write in model.")]
Variant = Annotated[
    str, typer.Argument(help="Id or name of the deployment, or the start of its digest.")
]


@endpoint.command("list", epilog=examples("ztom endpoint list"))
def endpoint_list(server: Server = None, as_json: Json = False) -> None:
    """List endpoints with their traffic."""
    from ztom.cli.actions.traffic import list_endpoints

    list_endpoints(server, as_json=as_json)


@endpoint.command("show", epilog=examples("ztom endpoint show support"))
def endpoint_show(alias: Alias, server: Server = None, as_json: Json = False) -> None:
    """Show where an endpoint's traffic goes."""
    from ztom.cli.actions.traffic import show_endpoint

    show_endpoint(alias, server, as_json=as_json)


@endpoint.command("traffic", epilog=examples("ztom endpoint traffic support --canary 10"))
def endpoint_traffic(
    alias: Alias,
    canary: Annotated[
        float | None, typer.Option(min=0, max=100, help="Give the candidate this percent.")
    ] = None,
    shadow: Annotated[
        float | None, typer.Option(min=0, max=100, help="Copy this percent to the candidate.")
    ] = None,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Give an endpoint's candidate other shares of the requests."""
    from ztom.cli.actions.traffic import change_traffic

    change_traffic(alias, canary, shadow, server, as_json=as_json)


@endpoint.command(
    "remove-rule",
    epilog=examples("ztom endpoint remove-rule support --header x-customer --value acme"),
)
def endpoint_remove_rule(
    alias: Alias,
    header: Annotated[
        str | None, typer.Option(help="Take the rule on this header away; with --value.")
    ] = None,
    value: Annotated[str | None, typer.Option(help="Name the value of the rule's header.")] = None,
    key: Annotated[
        str | None, typer.Option(help="Take the rule on this API key, by its id, away.")
    ] = None,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Take a rule of an endpoint away."""
    from ztom.cli.actions.traffic import remove_rule

    remove_rule(alias, header, value, key, server, as_json=as_json)


@endpoint.command("remove", epilog=examples("ztom endpoint remove support"))
def endpoint_remove(alias: Alias, server: Server = None, as_json: Json = False) -> None:
    """Take an endpoint away; clients that name it get 404."""
    from ztom.cli.actions.traffic import remove_endpoint

    remove_endpoint(alias, server, as_json=as_json)


@deployment.command("list", epilog=examples("ztom deployment list"))
def deployment_list(server: Server = None, as_json: Json = False) -> None:
    """List deployments with their state."""
    from ztom.cli.actions.traffic import list_deployments

    list_deployments(server, as_json=as_json)


@deployment.command("show", epilog=examples("ztom deployment show support"))
def deployment_show(variant: Variant, server: Server = None, as_json: Json = False) -> None:
    """Show one deployment, and why it is as it is."""
    from ztom.cli.actions.traffic import show_deployment

    show_deployment(variant, server, as_json=as_json)


@deployment.command("cancel", epilog=examples("ztom deployment cancel support"))
def deployment_cancel(variant: Variant, server: Server = None, as_json: Json = False) -> None:
    """Have a deployment that waits for its traffic, or for a place, wait no more."""
    from ztom.cli.actions.traffic import cancel_deployment

    cancel_deployment(variant, server, as_json=as_json)


@verdict.command("record", epilog=examples("ztom verdict record gate/verdict.json"))
def verdict_record(
    file: Annotated[Path, typer.Argument(help="File of the verdict: verdict.json of the gate.")],
    project: Annotated[
        str | None, typer.Option(help="Count it for this project, by its id or name.")
    ] = None,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Put a verdict of the gate on a server's record."""
    from ztom.cli.actions.traffic import record_verdict

    record_verdict(file, project, server, as_json=as_json)


@verdict.command("list", epilog=examples("ztom verdict list"))
def verdict_list(
    candidate: Annotated[
        str | None, typer.Argument(help="Start of the digest of one candidate; else all.")
    ] = None,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """List verdicts on record, the latest first."""
    from ztom.cli.actions.traffic import list_verdicts

    list_verdicts(candidate, server, as_json=as_json)


@verdict.command("show", epilog=examples("ztom verdict show SHA256"))
def verdict_show(
    sha256: Annotated[
        str, typer.Argument(help="Sha256 of the verdict's document; `verdict list` shows it.")
    ],
    server: Server = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; this command prints nothing else anyway.")
    ] = False,
) -> None:
    """Print a verdict on record with its document, as JSON."""
    from ztom.cli.actions.traffic import show_verdict

    show_verdict(sha256, server)


@feedback_commands.command(
    rich_help_panel=HelpPanel.SERVE,
    epilog=examples("ztom feedback chatcmpl-1 --score 0.2", "ztom feedback cmpl-1 --label wrong"),
)
def feedback(
    response: Annotated[str, typer.Argument(help="Id that the answer came with.")],
    score: Annotated[
        float | None, typer.Option(min=0, max=1, help="Judge it from 0, bad, to 1, good.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Say what it should have been.")] = None,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Judge an answer of an endpoint; releases and drift take that into account."""
    from ztom.cli.actions.traffic import judge

    judge(response, score, label, server, as_json=as_json)
