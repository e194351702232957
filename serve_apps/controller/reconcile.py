"""Making what runs what the ledger says: one look, a list of steps, and carrying them out.

Each round works on a new look (`serve_apps.controller.steps`), so a step that fails, or a
controller that dies in between, costs a round. What takes long (a start, a proof) has a lane of its
own (`serve_apps.controller.lanes`): a hundred variants start side by side, and get their traffic
one after the other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import Lock

from serve_apps.controller.apps import Apps, AppState
from serve_apps.controller.lanes import Lanes, OneLane
from serve_apps.controller.outages import (
    Outage,
    deployed_again,
    follow_outages,
    reason_of,
)
from serve_apps.controller.steps import (
    Admit,
    Fail,
    Intend,
    LetGo,
    Recover,
    Remove,
    Retire,
    Revive,
    Start,
    Step,
    Wait,
    plan_steps,
)
from serve_apps.endpoints.specs import AppSpec, placement
from serve_apps.endpoints.traffic import apply_intent, require_gate_of
from ztom.errors import (
    AlreadyOnRecordError,
    GateRefusedError,
    LedgerError,
    NotOnRecordError,
    ZtomError,
)
from ztom.ledger.deployments import DeploymentRecord, DeploymentState
from ztom.ledger.endpoints import Endpoints
from ztom.ledger.verdicts import Verdicts
from ztom.rollout.routing import Placement, RoutingTable

logger = logging.getLogger(__name__)

ACTOR = "controller"
#: Rounds for which an application is kept that nobody needs: gateways stop calling it meanwhile.
LINGER_ROUNDS = 10
#: Seconds for which a live swap waits until running requests have ended.
SWAP_WAIT_S = 30.0
#: Seconds between two tries of a swap that fails: each one keeps new requests waiting.
SWAP_AGAIN_S = 10.0
#: Seconds after which a deployment that is not ready is given up: large models load for long.
START_LIMIT_S = 3600.0


class Reconciler:
    """Carries steps out.

    Args:
        endpoints: Endpoints in the ledger.
        verdicts: Verdicts of the gate that are on record.
        apps: Applications that run, to start and to stop them.
        lanes: Lanes in which variants start and are proved, beside the rounds.
        clock: Monotonic clock, seconds.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        verdicts: Verdicts,
        apps: Apps,
        *,
        lanes: Lanes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lanes = lanes or OneLane()
        self._admitting = Lock()
        self._endpoints = endpoints
        self._verdicts = verdicts
        self._apps = apps
        self._clock = clock
        self._unneeded: dict[str, int] = {}
        self._since: dict[str, float] = {}
        self._not_before: dict[str, float] = {}
        self._outages: dict[str, Outage] = {}
        self._swaps: dict[str, Lock] = {}

    def round(self) -> bool:
        """One look, and every step that follows from it.

        Returns:
            Whether something is under way: a step was taken, or a deployment waits for something.

        Raises:
            LedgerError: The ledger cannot be read or written.
        """
        # before the look: work that ends while one looks may not show in it yet
        busy = self._lanes.busy()
        records = self._endpoints.deployments.all()
        table = self._endpoints.table()
        running = self._apps.status()
        steps = plan_steps(records, table, running)
        removals = {step.app for step in steps if isinstance(step, Remove)}
        # one that failed has no requests to be waited for
        self._unneeded = {
            app: LINGER_ROUNDS
            if running[app].state is AppState.FAILED
            else self._unneeded.get(app, 0) + 1
            for app in removals
        }
        self._give_up(records)
        self._outages = follow_outages(self._outages, running, self._clock())
        by_digest = {record.digest: record for record in records}
        for step in steps:
            if _lane_of(step) not in busy:
                self._carry_out(step, by_digest)
        waiting = (r.state is DeploymentState.STARTING or r.intent is not None for r in records)
        return bool(steps) or any(waiting)

    def keep_swapped(self) -> bool:
        """Have replicas of applications that hold a chain answer with the variant that should.

        A replica that was started since, a swap that failed half-way, and a rollback show here.

        Returns:
            Whether there is such an application.

        Raises:
            LedgerError: The ledger cannot be read.
        """
        places = self._endpoints.table().placements.values()
        apps = sorted({where.app for where in places if where.current is not None})
        for app in apps:
            swapping = self._swapping(app)
            # while a deployment is swapped in, the table does not say so yet
            if self._clock() >= self._not_before.get(app, 0.0) and swapping.acquire(blocking=False):
                try:
                    self._keep(app)
                finally:
                    swapping.release()
        return bool(apps)

    def _keep(self, app: str) -> None:
        table = self._endpoints.table()
        digest = _current(table, app)
        if digest is None:
            return
        where = table.placements[digest]
        there = self._apps.replicas(app, where.deployment)
        if all(digest in replica.digests for replica in there):
            return
        try:
            self._apps.swap(app, where.deployment, where.folder, where.name, SWAP_WAIT_S)
        except Exception as error:
            self._not_before[app] = self._clock() + SWAP_AGAIN_S
            logger.error("%s does not take on %s: %s", app, digest[:12], error)

    def _swapping(self, app: str) -> Lock:
        """Held by whoever swaps a variant into an application, until the table says so."""
        return self._swaps.setdefault(app, Lock())

    def _give_up(self, records: Sequence[DeploymentRecord]) -> None:
        """A deployment that does not get ready waits for something that does not come."""
        now = self._clock()
        starting = {r.digest for r in records if r.state is DeploymentState.STARTING}
        self._since = {digest: self._since.get(digest, now) for digest in starting}
        for digest, since in self._since.items():
            if now - since > START_LIMIT_S:
                self._fail(digest, f"it was not ready within {START_LIMIT_S:g} s")

    def _carry_out(self, step: Step, records: Mapping[str, DeploymentRecord]) -> None:
        match step:
            case Start(spec, digests):
                start = partial(self._apps.start, spec)
                self._lanes.run(_lane_of(step), partial(self._or_fail, digests, start))
            case Admit(digest, spec):
                check = partial(self._check, records[digest], spec)
                self._lanes.run(_lane_of(step), partial(self._or_fail, (digest,), check))
            case Wait(digest, reason):
                self._wait(records[digest], reason)
            case Intend(digest, spec):
                self._or_fail(
                    (digest,), lambda: self._intend(records[digest], spec), give_up=self._refuse
                )
            case Fail(digest, reason):
                self._fail(digest, reason)
            case LetGo(digest):
                self._endpoints.deployments.let_go(digest)
            case Retire(digest):
                self._retire(records[digest])
            case Revive(app, digests, message):
                self._revive(app, digests, message)
            case Recover(digest):
                logger.warning("%s: this is over: %s", digest[:12], records[digest].reason)
                self._endpoints.deployments.clear_reason(digest, records[digest].reason)
            case Remove(app):
                if self._unneeded.get(app, 0) >= LINGER_ROUNDS:
                    self._apps.delete(app)

    def _revive(self, app: str, digests: Sequence[str], message: str) -> None:
        """Take an application away that is due; the next look finds it missing and starts it."""
        outage = self._outages[app]
        for digest in digests:
            if self._endpoints.deployments.note(digest, reason_of(outage, message)):
                logger.error("%s: %s", digest[:12], reason_of(outage, message))
        if outage.is_due(self._clock()):
            self._apps.delete(app)
            self._outages[app] = deployed_again(outage)

    def _check(self, record: DeploymentRecord, spec: AppSpec) -> None:
        who = (record.digest, record.address, record.name)
        if record.options.swap_into is not None:
            with self._swapping(spec.name):
                self._swap_in(record, spec)
                self._admit(record, spec)
            return
        if record.base is not None:
            self._apps.prove(spec, *who)  # a base that has left comes back for it
            self._apps.load(spec, *who)
        self._admit(record, spec)

    def _admit(self, record: DeploymentRecord, spec: AppSpec) -> None:
        self._apps.prove(spec, record.digest, record.address, record.name)
        with self._admitting:  # proved side by side, let in one after the other
            if self._intend(record, spec):
                self._endpoints.deployments.set_state(
                    record.digest, DeploymentState.READY, actor=ACTOR
                )

    def _wait(self, record: DeploymentRecord, reason: str) -> None:
        """Say what it waits for; what is kept for a rollback of the same endpoint makes room."""
        if record.reason != reason and self._endpoints.deployments.note(record.digest, reason):
            logger.warning("the deployment of %s waits: %s", record.digest[:12], reason)
        if record.intent is None:
            return
        alias = record.intent.alias
        route = self._endpoints.table().routes.get(alias)
        if route is None or route.previous in (None, record.digest):
            return
        self._endpoints.change_routing(
            lambda table: _without_previous(table, alias),
            actor=ACTOR,
            action="route.make_room",
            subject=f"alias:{alias}",
            note=f"{route.previous} leaves for {record.digest}",
        )

    def _swap_in(self, record: DeploymentRecord, spec: AppSpec) -> None:
        """If it fails, `keep_swapped` takes every replica back to what the table says."""
        self._apps.prove(spec, record.digest, record.address, record.name, exact=False)
        self._apps.swap(spec.name, spec.deployment, record.address, record.name, SWAP_WAIT_S)

    def _intend(self, record: DeploymentRecord, spec: AppSpec) -> bool:
        """Put a deployment into the table, with the traffic that it was deployed for."""
        where = placement(record, spec)
        require_gate_of(self._endpoints, self._verdicts, record)
        self._endpoints.change_routing(
            lambda table: _place(table, record, where),
            actor=ACTOR,
            action="route.deploy",
            subject=f"variant:{record.digest}",
        )
        if not apply_intent(self._endpoints, self._verdicts, record, actor=ACTOR):
            if self._endpoints.deployments.get(record.digest).intent != record.intent:
                self._unplace(record.digest, action="route.cancel")
            return False
        self._endpoints.deployments.clear_intent(record.digest, record.intent)
        return True

    def _refuse(self, digest: str, reason: str) -> None:
        """Have a deployment wait no more for traffic that it cannot get; what it has, it keeps."""
        logger.error("%s does not get its traffic: %s", digest[:12], reason)
        self._endpoints.deployments.cancel(actor=ACTOR, reason=reason, digest=digest)
        self._unplace(digest, action="route.refuse")

    def _retire(self, record: DeploymentRecord) -> None:
        digest = record.digest
        where = self._endpoints.table().placements.get(digest)

        def without(table: RoutingTable) -> RoutingTable:
            return table if digest in table.used else table.with_placement(digest, None)

        self._endpoints.change_routing(
            without,
            actor=ACTOR,
            action="route.retire",
            subject=f"variant:{digest}",
        )
        table = self._endpoints.table()
        if digest not in table.placements:
            self._endpoints.deployments.retire(digest, actor=ACTOR)
            if record.base is not None and where is not None:
                self._apps.forget(where.app, where.deployment, digest)

    def _or_fail(
        self,
        digests: Sequence[str],
        work: Callable[[], object],
        *,
        give_up: Callable[[str, str], None] | None = None,
    ) -> None:
        give_up = give_up or self._fail
        try:
            work()
            return
        except GateRefusedError as error:
            give_up, reason = self._refuse, str(error)
        except LedgerError as error:
            if not isinstance(error, AlreadyOnRecordError):
                raise  # not this deployment's fault: the next round tries again
            reason = str(error)
        except ZtomError as error:
            reason = str(error)
        except Exception as error:  # whatever Ray finds wrong must not keep others waiting
            reason = f"{type(error).__name__}: {error}"
        for digest in digests:
            give_up(digest, reason)

    def _fail(self, digest: str, reason: str) -> None:
        """Say so. What is in the table already stays there: something else may be wrong."""
        logger.error("the deployment of %s failed: %s", digest[:12], reason)
        try:
            self._endpoints.deployments.set_state(
                digest,
                DeploymentState.FAILED,
                actor=ACTOR,
                reason=reason,
                only_from=DeploymentState.STARTING,
            )
        except NotOnRecordError:
            logger.warning("the deployment of %s is not on record any more", digest[:12])
            return
        self._unplace(digest, action="route.fail")

    def _unplace(self, digest: str, *, action: str) -> None:
        """Take a deployment out of the table, unless a route names it."""
        self._endpoints.change_routing(
            lambda table: table if digest in table.used else table.with_placement(digest, None),
            actor=ACTOR,
            action=action,
            subject=f"variant:{digest}",
        )


def _lane_of(step: Step) -> str:
    """Name of the lane in which a step is carried out; empty for what is done at once."""
    match step:
        case Start(spec, _):
            return f"start {spec.name}"
        case Admit(digest, _):
            return f"admit {digest}"
        case _:
            return ""


def _without_previous(table: RoutingTable, alias: str) -> RoutingTable:
    route = table.routes.get(alias)
    if route is None:
        return table
    return table.with_route(alias, route.model_copy(update={"previous": None}))


def _place(table: RoutingTable, record: DeploymentRecord, where: Placement) -> RoutingTable:
    """The table with the variant in its place; who answers there changes with the traffic."""
    if record.options.live_swap or record.options.swap_into is not None:
        where = where.model_copy(update={"current": _current(table, where.app) or record.digest})
    return table.with_placement(record.digest, where)


def _current(table: RoutingTable, app: str) -> str | None:
    """Digest of the variant that answers in an application into which variants are swapped."""
    known = (where.current for where in table.placements.values() if where.app == app)
    return next((digest for digest in known if digest in table.placements), None)
