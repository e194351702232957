"""Joining a Ray that is there already: what has to be right before a server starts on it.

On a Ray of its own a server sets everything up itself. On a cluster Ray and Serve have read their
settings long ago, on every node; other applications may be served; and a local data folder is on
one node alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx

from cluster.examination import NodeQuestions, NodeReport, examine
from cluster.serve import delete_application, serve_is_running, stop_serve
from serve_apps.endpoints.specs import PREFIXES
from ztom.errors import ConfigError, EngineError

#: Settings without which doors promise nothing, and the word of a note about it.
_DEADLINES = ("RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_HAPROXY_BINARY_PATH")
_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Joined:
    """What a server finds on a cluster.

    Attributes:
        served: Route of each application that Serve runs, by name; None for those without one.
        listens: Address and port at which Serve listens already; None where it does not run.
        notes: What whoever starts the server should know.
        node: Address of the node that the control plane has to stay on, which alone has the data
            folder; None where all nodes have it.
    """

    served: Mapping[str, str | None]
    listens: tuple[str, int] | None
    notes: tuple[str, ...]
    node: str | None


def join(
    data: str,
    *,
    app: str,
    ledger: str | None,
    dashboard: str,
    node: str,
    without_deadlines: bool,
) -> Joined:
    """Look at the Ray that this process is connected to.

    Args:
        data: The data folder.
        app: Name of the server's application.
        ledger: SQLAlchemy address of the ledger; None for a file in the data folder.
        dashboard: Address of the cluster's dashboard.
        node: Address of the node that this process is on.
        without_deadlines: Whether to go on where doors keep no deadlines.

    Raises:
        ConfigError: Something has to be mended first; the message names it, and the node.
        EngineError: The dashboard does not answer.
    """
    served, listens = served_applications(dashboard) if serve_is_running() else ({}, None)
    require_free_route(served, app=app)
    reports = examine(NodeQuestions(ledger=ledger, shared=data))
    notes = settings_notes(reports, without_deadlines=without_deadlines)
    alone = any(report.shared for report in reports)
    require_reachable_ledger(reports, ledger=ledger, alone=alone)
    if alone:
        notes = [*notes, f"{data} is on node {node} alone: the control plane stays there"]
    return Joined(served, listens, tuple(notes), node if alone else None)


def served_applications(dashboard: str) -> tuple[dict[str, str | None], tuple[str, int] | None]:
    """Route of each application that Serve runs, and where it listens.

    Args:
        dashboard: Address of the cluster's dashboard.

    Raises:
        EngineError: The dashboard does not answer.
    """
    token = os.environ.get("RAY_AUTH_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else _token_headers()
    try:
        answer = httpx.get(
            f"{dashboard}/api/serve/applications/", headers=headers, timeout=_LIMIT_S
        )
        answer.raise_for_status()
        details = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise EngineError(
            "Ray's dashboard does not say what is served", reason=type(error).__name__
        ) from error
    served = {
        name: application.get("route_prefix")
        for name, application in details.get("applications", {}).items()
    }
    options = details.get("http_options") or {}
    host, port = options.get("host"), options.get("port")
    return served, (str(host), int(port)) if host and port else None


def require_free_route(served: Mapping[str, str | None], *, app: str) -> None:
    """See that nothing else is served at ``/``.

    Raises:
        ConfigError: Something is; says what.
    """
    for name, route in served.items():
        if route == "/" and name != app:
            raise ConfigError(
                "another application is served at /",
                got=name,
                expected="nothing, or an earlier server of Z-TOM",
                fix="Give it another route_prefix, or the server a Ray of its own.",
            )


def settings_notes(reports: Sequence[NodeReport], *, without_deadlines: bool) -> list[str]:
    """What nodes lack that a server goes on without.

    Raises:
        ConfigError: Doors would keep no deadlines, and nobody said that they need not.
    """
    notes = []
    for report in reports:
        for name, harm in report.missing.items():
            if name in _DEADLINES and not without_deadlines:
                raise ConfigError(
                    f"node {report.address} lacks a setting: {harm}",
                    got=f"{name} is not set",
                    fix="Start its Ray with `ztom cluster`, or with what `ztom cluster settings` "
                    "prints; --without-deadlines goes on without.",
                )
            notes.append(f"node {report.address}: {name} is not set: {harm}")
    return notes


def require_reachable_ledger(
    reports: Sequence[NodeReport], *, ledger: str | None, alone: bool
) -> None:
    """See that all processes of a server have one ledger.

    Raises:
        ConfigError: A node does not reach it.
    """
    for report in reports:
        if ledger is not None and report.ledger and not alone:
            raise ConfigError(f"node {report.address} does not reach the ledger", got=report.ledger)


def leave(app: str, *, started_serve: bool) -> None:
    """Take down what a server has started, and nothing else.

    Args:
        app: Name of the server's application.
        started_serve: Whether Serve did not run before.
    """
    from ray import serve

    names = list(serve.status().applications)
    ours = [name for name in names if name == app or name.startswith(PREFIXES)]
    if started_serve and len(ours) == len(names):
        stop_serve()
        return
    # the control plane first: its controller would start its variants anew
    for name in sorted(ours, key=lambda name: name != app):
        delete_application(name)


def _token_headers() -> dict[str, str]:
    from cluster.token import token_file

    try:
        token = token_file().read_text(encoding="utf-8").strip()
    except OSError:
        return {}
    return {"Authorization": f"Bearer {token}"} if token else {}
