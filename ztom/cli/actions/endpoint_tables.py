"""How endpoints, deployments and releases are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from ztom.wire.deployments import DeploymentStatus
    from ztom.wire.endpoints import Endpoint
    from ztom.wire.releases import Release


def endpoints_table(endpoints: Sequence[Endpoint]) -> Table:
    """A row for each endpoint, and below it one for each of its rules."""
    traffic = Table("endpoint", "stable", "canary", "shadow", "previous", "release", box=None)
    for endpoint in endpoints:
        traffic.add_row(
            endpoint.alias,
            endpoint.stable,
            _share(endpoint.canary, endpoint.canary_percent),
            _share(endpoint.shadow, endpoint.shadow_percent),
            endpoint.previous or "",
            endpoint.release or "",
        )
        for rule in endpoint.rules:
            whom = f"{rule.header}: {rule.value}" if rule.header else ""
            key = f"key {rule.key}" if rule.key else ""
            traffic.add_row(f"  {whom} {key}".rstrip(), rule.variant)
    return traffic


def deployments_table(deployments: Sequence[DeploymentStatus]) -> Table:
    """A row for each deployment."""
    table = Table("deployment", "state", "project", "insisted", "reason", box=None)
    for deployment in deployments:
        table.add_row(
            deployment.id,
            deployment.state,
            deployment.project_id or "",
            "yes" if deployment.insisted else "",
            deployment.reason or "",
        )
    return table


def release_picture(release: Release) -> Group:
    """A release with its steps, and what each check of a step says."""
    head = Text(
        f"release {release.id} of {release.alias}: {release.status}"
        + (f", {release.state.reason}" if release.state.reason else "")
    )
    whole = (Column(name, no_wrap=True) for name in ("step", "status"))
    table = Table(*whole, "check", "says", "candidate", "stable", "answers", box=None)
    for step in release.steps:
        name = f"{step.number} {step.kind} {step.percent:g} %"
        seconds = "" if step.seconds is None else f" {step.seconds:.0f} s"
        table.add_row(name, step.status + seconds)
        for check in step.checks:
            table.add_row(
                "",
                "",
                check.check,
                check.outcome,
                _number(check.candidate),
                _number(check.stable),
                f"{check.candidate_n} / {check.stable_n}",
            )
    left_out = release.state.left_out
    uncounted = f"; {left_out:,} answers beyond that were not counted" if left_out else ""
    return Group(head, Text(f"{release.callers}{uncounted}"), table)


def traffic_line(endpoint: Endpoint) -> str:
    """Where an endpoint's traffic goes, in one line."""
    alias = endpoint.alias
    parts = [f"stable {endpoint.stable}"]
    for role, variant, percent in (
        ("canary", endpoint.canary, endpoint.canary_percent),
        ("shadow", endpoint.shadow, endpoint.shadow_percent),
    ):
        if percent:
            parts.append(f"{role} {variant} at {percent:g} %")
    if endpoint.release:
        parts.append(f"release {endpoint.release} moves it (ztom release watch {alias})")
    return f"{alias}: {', '.join(parts)}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _share(name: str | None, percent: float) -> str:
    return "" if name is None else f"{name} {percent:g} %"
