"""Making what runs what the ledger says: one look, a list of steps, and carrying them out.

`plan_steps` is a pure function of what is wanted, what the table says and what runs; each round
works on a new look, so a step that fails, or a controller that dies in between, costs a round.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from serve_apps.controller.apps import Apps, AppState, AppStatus
from serve_apps.controller.specs import AppSpec, app_spec, parse_options, placement
from serve_apps.controller.traffic import apply_intent, change_table
from ztom.errors import ConfigError, NotOnRecordError, ZtomError
from ztom.ledger.endpoints import DeploymentRecord, DeploymentState, Endpoints
from ztom.rollout.routing import Placement, RoutingTable, read_table

logger = logging.getLogger(__name__)

ACTOR = "controller"
#: Rounds for which an application is kept that nobody needs: gateways stop calling it meanwhile.
LINGER_ROUNDS = 10
#: Seconds for which a live swap waits until running requests have ended.
SWAP_WAIT_S = 30.0


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
class Fail:
    """A deployment will not run."""

    digest: str
    reason: str


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
class Remove:
    """Remove an application that no deployment needs."""

    app: str


Step = Start | Admit | Fail | Retire | Intend | Remove


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
    for record in records:
        if record.state is DeploymentState.FAILED:
            continue
        if record.state is DeploymentState.READY and _is_unused(record, table, records):
            steps.append(Retire(record.digest))
            continue
        try:
            spec = _spec(record, records)
        except ZtomError as error:
            steps.append(Fail(record.digest, str(error)))
            continue
        needed.setdefault(spec.name, (spec, []))[1].append(record.digest)
        steps += _steps_of(record, spec, running.get(spec.name))
    for name, (spec, digests) in needed.items():
        if name not in running:
            steps.append(Start(spec, tuple(digests)))
    placed = {where.app for where in table.placements.values()}
    steps += [Remove(name) for name in running if name not in needed and name not in placed]
    return steps


def _is_unused(
    record: DeploymentRecord, table: RoutingTable, records: Sequence[DeploymentRecord]
) -> bool:
    hosts = {parse_options(other.options).swap_into for other in records}
    return record.intent is None and record.digest not in table.used and record.digest not in hosts


def _spec(record: DeploymentRecord, records: Sequence[DeploymentRecord]) -> AppSpec:
    host = parse_options(record.options).swap_into
    if host is None:
        return app_spec(record)
    for other in records:
        if other.digest == host:
            return _spec(other, records)
    raise ConfigError("the variant that this one is swapped into does not run", got=host[:12])


def _steps_of(record: DeploymentRecord, spec: AppSpec, status: AppStatus | None) -> list[Step]:
    if record.state is DeploymentState.READY:
        return [Intend(record.digest, spec)] if record.intent is not None else []
    if status is None:
        return []
    if status.state is AppState.FAILED:
        return [Fail(record.digest, status.message)]
    return [Admit(record.digest, spec)] if status.state is AppState.RUNNING else []


class Reconciler:
    """Carries steps out.

    Args:
        endpoints: The ledger's part.
        apps: What runs.
    """

    def __init__(self, endpoints: Endpoints, apps: Apps) -> None:
        self._endpoints = endpoints
        self._apps = apps
        self._unneeded: dict[str, int] = {}

    def round(self) -> None:
        """One look, and every step that follows from it.

        Raises:
            LedgerError: The ledger cannot be read or written.
        """
        records = self._endpoints.deployments()
        table = read_table(self._endpoints.routing()[1])
        steps = plan_steps(records, table, self._apps.status())
        removals = {step.app for step in steps if isinstance(step, Remove)}
        self._unneeded = {app: self._unneeded.get(app, 0) + 1 for app in removals}
        by_digest = {record.digest: record for record in records}
        for step in steps:
            self._carry_out(step, by_digest)
        self._keep_swapped(by_digest)

    def _keep_swapped(self, records: Mapping[str, DeploymentRecord]) -> None:
        """Replicas that another variant was swapped into answer with the one that should be there.

        A replica that was started since, and a rollback, show here.
        """
        table = read_table(self._endpoints.routing()[1])
        wanted = {
            (where.app, where.deployment): where.current
            for where in table.placements.values()
            if where.current is not None
        }
        for (app, deployment), digest in wanted.items():
            there = self._apps.replicas(app, deployment)
            if all(digest in replica.digests for replica in there):
                continue
            where = table.placements[digest]
            spec = _spec(records[digest], list(records.values()))
            try:
                self._apps.swap(spec, where.folder, where.name, SWAP_WAIT_S)
            except ZtomError as error:
                logger.error("%s does not take on %s: %s", app, digest[:12], error)

    def _carry_out(self, step: Step, records: Mapping[str, DeploymentRecord]) -> None:
        match step:
            case Start(spec, digests):
                self._or_fail(digests, lambda: self._apps.start(spec))
            case Admit(digest, spec):
                self._or_fail((digest,), lambda: self._admit(records[digest], spec))
            case Intend(digest, spec):
                self._or_fail((digest,), lambda: self._intend(records[digest], spec))
            case Fail(digest, reason):
                self._fail(digest, reason)
            case Retire(digest):
                self._retire(digest)
            case Remove(app):
                if self._unneeded.get(app, 0) >= LINGER_ROUNDS:
                    self._apps.delete(app)

    def _admit(self, record: DeploymentRecord, spec: AppSpec) -> None:
        if parse_options(record.options).swap_into is not None:
            self._apps.swap(spec, record.address, record.name, SWAP_WAIT_S)
        elif record.base is not None:
            self._apps.load(spec, record.digest, record.address, record.name)
        self._apps.prove(spec, record.digest)
        if self._intend(record, spec):
            self._endpoints.set_state(record.digest, DeploymentState.READY, actor=ACTOR)

    def _intend(self, record: DeploymentRecord, spec: AppSpec) -> bool:
        """Put a deployment into the table, with the traffic that it was deployed for."""
        where = placement(record, spec)
        change_table(
            self._endpoints,
            lambda table: _placed(table, record, where),
            actor=ACTOR,
            action="route.deploy",
            subject=f"variant:{record.digest}",
        )
        if not apply_intent(self._endpoints, record, actor=ACTOR):
            return False
        self._endpoints.clear_intent(record.digest)
        return True

    def _retire(self, digest: str) -> None:
        def without(table: RoutingTable) -> RoutingTable:
            return table if digest in table.used else table.with_placement(digest, None)

        change_table(
            self._endpoints,
            without,
            actor=ACTOR,
            action="route.retire",
            subject=f"variant:{digest}",
        )
        table = read_table(self._endpoints.routing()[1])
        if digest not in table.placements:
            self._endpoints.set_state(
                digest, DeploymentState.RETIRED, actor=ACTOR, only_from=DeploymentState.READY
            )

    def _or_fail(self, digests: Sequence[str], work: Callable[[], object]) -> None:
        try:
            work()
        except ZtomError as error:
            for digest in digests:
                self._fail(digest, str(error))

    def _fail(self, digest: str, reason: str) -> None:
        """Say so. What is in the table already stays there: something else may be wrong."""
        logger.error("the deployment of %s failed: %s", digest[:12], reason)
        try:
            self._endpoints.set_state(
                digest,
                DeploymentState.FAILED,
                actor=ACTOR,
                reason=reason,
                only_from=DeploymentState.STARTING,
            )
        except NotOnRecordError:
            logger.warning("the deployment of %s is not on record any more", digest[:12])


def _placed(table: RoutingTable, record: DeploymentRecord, where: Placement) -> RoutingTable:
    """The table with the variant in its place, and everyone else who is there told of it."""
    swapped = parse_options(record.options).swap_into is not None
    for digest, other in table.placements.items():
        if swapped and other.app == where.app:
            table = table.with_placement(
                digest, other.model_copy(update={"current": record.digest})
            )
    if swapped:
        where = where.model_copy(update={"current": record.digest})
    return table.with_placement(record.digest, where)
