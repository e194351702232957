"""What a look at the deployments asks for: a list of steps, each a plain value.

`plan_steps` is a pure function of what is wanted, what the table says and what runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from serve_apps.controller.apps import AppState, AppStatus
from serve_apps.controller.outages import LOST, UNSTARTABLE, is_lost
from serve_apps.endpoints.specs import AppSpec, app_spec
from ztom.errors import (
    ConfigError,
    ZtomError,
)
from ztom.ledger.deployments import DeploymentRecord, DeploymentState
from ztom.rollout.routing import RoutingTable


@dataclass(frozen=True, slots=True)
class Start:
    """Start an application."""

    spec: AppSpec
    digests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Admit:
    """The application of a deployment runs: check it, then let traffic in."""

    digest: str
    spec: AppSpec


@dataclass(frozen=True, slots=True)
class Wait:
    """A deployment has no place in the cluster yet, or could not be started again."""

    digest: str
    reason: str


@dataclass(frozen=True, slots=True)
class Fail:
    """A deployment will not run."""

    digest: str
    reason: str


@dataclass(frozen=True, slots=True)
class LetGo:
    """A deployment that failed has nothing to go on with any more: no route names it."""

    digest: str


@dataclass(frozen=True, slots=True)
class Retire:
    """No route names a deployment any more."""

    digest: str


@dataclass(frozen=True, slots=True)
class Intend:
    """A deployment that runs already is to get its traffic."""

    digest: str
    spec: AppSpec


@dataclass(frozen=True, slots=True)
class Revive:
    """An application that deployments are served by has lost every replica."""

    app: str
    digests: tuple[str, ...]
    message: str


@dataclass(frozen=True, slots=True)
class Recover:
    """What was wrong with a deployment that serves is over: its application runs."""

    digest: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove an application that no deployment needs."""

    app: str


Step = Start | Admit | Wait | Fail | LetGo | Retire | Intend | Revive | Recover | Remove


def plan_steps(
    records: Sequence[DeploymentRecord], table: RoutingTable, running: Mapping[str, AppStatus]
) -> list[Step]:
    """What to do next.

    Args:
        records: Deployments that are not retired.
        table: The routing table.
        running: Applications by name.
    """
    steps: list[Step] = []
    needed: dict[str, tuple[AppSpec, list[str]]] = {}
    serving: dict[str, list[str]] = {}
    for record in [*records, *_kept_deployments(records, table)]:
        if record.state is DeploymentState.FAILED:
            if record.kept is not None and record.digest not in table.used:
                steps.append(LetGo(record.digest))
            continue
        if record.state is DeploymentState.READY and _is_unused(record, table, records):
            steps.append(Retire(record.digest))
            continue
        try:
            spec = _spec(record, records)
        except ZtomError as error:
            if record.state is DeploymentState.READY:
                steps.append(Wait(record.digest, f"{UNSTARTABLE}: {error}"))
            else:
                steps.append(Fail(record.digest, str(error)))
            continue
        needed.setdefault(spec.name, (spec, []))[1].append(record.digest)
        if record.state is DeploymentState.READY:
            serving.setdefault(spec.name, []).append(record.digest)
        steps += _steps_of(record, spec, running.get(spec.name))
    for name, (spec, digests) in needed.items():
        if name not in running:
            steps.append(Start(spec, tuple(digests)))
        elif is_lost(running[name]) and name in serving:
            steps.append(Revive(name, tuple(serving[name]), running[name].message))
    placed = {where.app for where in table.placements.values()}
    steps += [Remove(name) for name in running if name not in needed and name not in placed]
    return steps


def _kept_deployments(
    records: Sequence[DeploymentRecord], table: RoutingTable
) -> list[DeploymentRecord]:
    """Deployments that serve as they were while they are deployed anew, or when that failed."""
    return [
        replace(
            record,
            state=DeploymentState.READY,
            intent=None,
            name=record.kept.name,
            address=record.kept.address,
            options=record.kept.options,
        )
        for record in records
        if record.kept is not None and record.digest in table.used
    ]


def _is_unused(
    record: DeploymentRecord, table: RoutingTable, records: Sequence[DeploymentRecord]
) -> bool:
    hosts = {other.options.swap_into for other in records}
    return record.intent is None and record.digest not in table.used and record.digest not in hosts


def _spec(record: DeploymentRecord, records: Sequence[DeploymentRecord]) -> AppSpec:
    host = record.options.swap_into
    if host is None:
        return app_spec(record)
    for other in records:
        # one step only: whoever is swapped in names the application's own variant
        if other.digest == host and other.options.swap_into is None:
            return app_spec(other)
    raise ConfigError("the variant that this one is swapped into does not run", got=host[:12])


def _steps_of(record: DeploymentRecord, spec: AppSpec, status: AppStatus | None) -> list[Step]:
    if status is None:
        return []
    if record.state is DeploymentState.READY:
        if status.state is not AppState.RUNNING:
            return []
        steps: list[Step] = [Intend(record.digest, spec)] if record.intent is not None else []
        recovered = status.replicas and (record.reason or "").startswith((LOST, UNSTARTABLE))
        return [*steps, Recover(record.digest)] if recovered else steps
    if status.state is AppState.FAILED:
        return [Fail(record.digest, status.message)]
    if status.state is AppState.RUNNING:
        return [Admit(record.digest, spec)]
    return [Wait(record.digest, status.missing)] if status.missing else []
