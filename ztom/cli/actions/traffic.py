"""What ``ztom endpoint``, ``deployment``, ``verdict`` and ``feedback`` do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ztom.cli.actions.answers import print_answer, print_table
from ztom.cli.actions.endpoint_tables import deployments_table, endpoints_table, traffic_line
from ztom.cli.actions.remote import connect
from ztom.cli.console import moment, plain_console, print_document
from ztom.errors import ConfigError
from ztom.io.signatures import fingerprint

if TYPE_CHECKING:
    from ztom.wire.verdicts import VerdictSummary


def list_endpoints(server: str | None, *, as_json: bool) -> None:
    """List endpoints."""
    with connect(server) as client:
        endpoints = client.endpoints.all()
    if as_json:
        print_document(endpoints)
    else:
        plain_console().print(endpoints_table(endpoints))


def show_endpoint(alias: str, server: str | None, *, as_json: bool) -> None:
    """Show one endpoint."""
    with connect(server) as client:
        endpoint = client.endpoints.get(alias)
    print_answer(endpoint, traffic_line(endpoint), as_json=as_json)


def change_traffic(
    alias: str, canary: float | None, shadow: float | None, server: str | None, *, as_json: bool
) -> None:
    """Give the candidate other shares.

    Raises:
        ConfigError: No share is named.
    """
    if canary is None and shadow is None:
        raise ConfigError("no share is named", fix="Give --canary or --shadow.")
    with connect(server) as client:
        endpoint = client.endpoints.traffic(alias, canary=canary, shadow=shadow)
    print_answer(endpoint, traffic_line(endpoint), as_json=as_json)


def remove_rule(
    alias: str,
    header: str | None,
    value: str | None,
    key: str | None,
    server: str | None,
    *,
    as_json: bool,
) -> None:
    """Take a rule away."""
    with connect(server) as client:
        endpoint = client.endpoints.remove_rule(alias, header=header, value=value, key=key)
    print_answer(endpoint, traffic_line(endpoint), as_json=as_json)


def remove_endpoint(alias: str, server: str | None, *, as_json: bool) -> None:
    """Take an endpoint away."""
    with connect(server) as client:
        client.endpoints.remove(alias)
    print_answer({"removed": alias}, f"{alias} is removed", as_json=as_json)


def list_deployments(server: str | None, *, as_json: bool) -> None:
    """List deployments."""
    with connect(server) as client:
        deployments = client.endpoints.deployments()
    if as_json:
        print_document(deployments)
    else:
        plain_console().print(deployments_table(deployments))


def show_deployment(variant: str, server: str | None, *, as_json: bool) -> None:
    """Show one deployment."""
    with connect(server) as client:
        deployment = client.endpoints.deployment(variant)
    if as_json:
        print_document(deployment)
    else:
        plain_console().print(deployments_table([deployment]))


def cancel_deployment(variant: str, server: str | None, *, as_json: bool) -> None:
    """Have a deployment wait no more."""
    with connect(server) as client:
        client.endpoints.cancel(variant)
    print_answer({"cancelled": variant}, f"{variant} waits no more", as_json=as_json)


def record_verdict(file: Path, project: str | None, server: str | None, *, as_json: bool) -> None:
    """Put a verdict on record."""
    with connect(server) as client:
        verdict = client.verdicts.record(file, project_id=project)
    line = f"{verdict.sha256}  {verdict.outcome} for {verdict.candidate[:12]}, {_signer(verdict)}"
    print_answer(verdict, line, as_json=as_json)


def list_verdicts(candidate: str | None, server: str | None, *, as_json: bool) -> None:
    """List verdicts."""
    with connect(server) as client:
        verdicts = client.verdicts.all(candidate)
    rows = [
        (
            verdict.sha256,
            verdict.outcome,
            verdict.candidate,
            _signer(verdict),
            moment(verdict.created_at),
        )
        for verdict in verdicts
    ]
    headers = ("verdict", "outcome", "candidate", "whose word", "recorded")
    print_table(verdicts, headers, rows, as_json=as_json)


def _signer(verdict: VerdictSummary) -> str:
    if verdict.signed_by is not None:
        return f"signed by {verdict.signed_by}"
    if verdict.public_key is None:
        return "unsigned claim"
    return f"signed by key {fingerprint(verdict.public_key)}, which is not registered"


def show_verdict(sha256: str, server: str | None) -> None:
    """Print a verdict with its document."""
    with connect(server) as client:
        print_document(client.verdicts.get(sha256))


def judge(
    response: str, score: float | None, label: str | None, server: str | None, *, as_json: bool
) -> None:
    """Judge an answer.

    Raises:
        ConfigError: Neither a score nor a label is given.
    """
    if score is None and label is None:
        raise ConfigError("there is no judgement", fix="Give --score or --label.")
    with connect(server) as client:
        receipt = client.endpoints.feedback(response, score=score, label=label)
    print_answer(receipt, f"{response}: taken", as_json=as_json)
