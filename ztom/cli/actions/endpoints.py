"""What ``ztom deploy``, ``promote``, ``rollback`` and ``status`` do."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ztom.cli.actions.endpoint_files import read_mapping, require_sendable
from ztom.cli.actions.endpoint_tables import (
    deployments_table,
    endpoints_table,
    release_picture,
    traffic_line,
)
from ztom.cli.actions.remote import connect
from ztom.cli.console import plain_console, print_document
from ztom.errors import EngineError, EngineTimeoutError
from ztom.io.progress import work_display

if TYPE_CHECKING:
    from ztom.client import Client
    from ztom.wire.deployments import DeploymentStatus
    from ztom.wire.endpoints import Endpoint

_POLL_S = 0.5
_STARTING = "verifying, loading and asking the variant"


def deploy_command(
    variant: str,
    alias: str,
    *,
    wishes: Mapping[str, Any],
    plan: Path | None,
    options: Mapping[str, Any],
    wait_s: float,
    server: str | None,
    as_json: bool = False,
) -> None:
    """Deploy a variant, and wait until it has its traffic.

    Raises:
        ConfigError: The plan's file is none, or an option cannot be sent.
        EngineError: The variant does not run; traffic is as it was.
        EngineTimeoutError: It is not ready in time; it goes on starting.
    """
    fields = {key: wish for key, wish in wishes.items() if wish is not None and wish is not False}
    require_sendable(options, "--set")
    if plan is not None:
        fields["plan"] = read_mapping(plan)
    path = str(Path(variant).absolute()) if Path(variant).exists() else variant
    with connect(server) as client:
        record = client.endpoints.deploy(alias, path=path, options=options, **fields)
        if not as_json:
            print(record.id)
        endpoint = None
        if wait_s > 0:
            _wait(client, record.digest, wait_s)
            endpoint = client.endpoints.get(alias)
        if as_json:
            record = client.endpoints.deployment(record.digest)
            print_document({"deployment": record, "endpoint": endpoint})
        elif endpoint is not None:
            print(traffic_line(endpoint))


def promote_command(alias: str, server: str | None, *, as_json: bool = False) -> None:
    """Make the candidate stable."""
    with connect(server) as client:
        client.endpoints.promote(alias)
        _print_endpoint(client.endpoints.get(alias), as_json=as_json)


def rollback_command(alias: str, server: str | None, *, as_json: bool = False) -> None:
    """Go back."""
    with connect(server) as client:
        client.endpoints.rollback(alias)
        _print_endpoint(client.endpoints.get(alias), as_json=as_json)


def status_command(server: str | None, *, as_json: bool = False) -> None:
    """Print endpoints, deployments and releases under way."""
    with connect(server) as client:
        endpoints, deployments = client.endpoints.all(), client.endpoints.deployments()
        releases = [r for r in client.endpoints.releases() if r.ended_at is None]
    if as_json:
        print_document({"endpoints": endpoints, "deployments": deployments, "releases": releases})
        return
    console = plain_console()
    console.print(endpoints_table(endpoints))
    console.print(deployments_table(deployments))
    for release in releases:
        console.print(release_picture(release))


def _wait(client: Client, digest: str, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    waits = None
    with work_display(_STARTING) as display:
        doing = _STARTING
        while time.monotonic() < deadline:
            deployment = client.endpoints.deployment(digest)
            if deployment.state == "failed":
                raise EngineError("the variant does not run", reason=deployment.reason)
            if deployment.state == "ready" and deployment.intent is None:
                _require_traffic(deployment)
                return
            waits = deployment.reason if deployment.state == "starting" else None
            if (waits or _STARTING) != doing:
                doing = waits or _STARTING
                display.doing(doing)
            time.sleep(_POLL_S)
    raise EngineTimeoutError(
        "the variant is not ready yet",
        got=waits,
        fix="`ztom status` says when it is; --wait is how long.",
    )


def _require_traffic(deployment: DeploymentStatus) -> None:
    if deployment.reason is not None:
        raise EngineError(
            "the variant runs, but not for the traffic that it was deployed for",
            reason=deployment.reason,
        )


def _print_endpoint(endpoint: Endpoint, *, as_json: bool = False) -> None:
    if as_json:
        print_document(endpoint)
    else:
        print(traffic_line(endpoint))
