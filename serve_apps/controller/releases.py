"""Moving releases: what `ztom.rollout.release.decide` wants, carried out.

Each look starts from the ledger. The new state is saved with its audit rows first, and traffic is
changed after that: a controller that dies in between finds traffic that is not as the state wants
it, and changes it then. A release owns its alias' route as long as the route bears its id; when
somebody has changed the route by hand, the release is over.
"""

from __future__ import annotations

import logging
from functools import reduce

from ztom.errors import NotOnRecordError
from ztom.ledger.deployments import DeploymentState
from ztom.ledger.endpoints import Endpoints
from ztom.ledger.feedback import FeedbackSum
from ztom.ledger.rollouts import RolloutRecord
from ztom.rollout.observations import ArmCounts, StepObservations
from ztom.rollout.release import decide, wanted_traffic
from ztom.rollout.routing import Route, RoutingTable, TrafficRole, promoted, rolled_back
from ztom.rollout.state import (
    Action,
    Command,
    Deployment,
    Promote,
    Record,
    ReleaseContext,
    ReleaseState,
    ReleaseStatus,
    RollBack,
    SetTraffic,
    Traffic,
)

logger = logging.getLogger(__name__)

ACTOR = "controller"


def move_releases(endpoints: Endpoints, *, seconds: float) -> bool:
    """One look at every release that is under way; returns whether there is one.

    Args:
        endpoints: Endpoints in the ledger.
        seconds: Seconds since the last look, on a monotonic clock.
    """
    records = endpoints.rollouts.open()
    for record in records:
        try:
            _move(endpoints, record, seconds)
        except Exception as error:  # one that cannot be moved must not keep the others
            logger.error("release %s of %s: %s", record.id, record.alias, error)
    return bool(records)


def _move(endpoints: Endpoints, record: RolloutRecord, seconds: float) -> None:
    if _is_about_to_begin(endpoints, record):
        return
    decision = decide(_context(endpoints, record, seconds), record.state)
    if decision.state.settled and decision.state.status != ReleaseStatus.PROMOTED:
        _let_go(endpoints, record)
    _save(endpoints, record, decision.state, decision.actions)
    for action in decision.actions:
        if not isinstance(action, Record):
            _carry_out(endpoints, record, decision.state, action)


def _save(
    endpoints: Endpoints, record: RolloutRecord, state: ReleaseState, actions: tuple[Action, ...]
) -> None:
    """Save a release's state; it stays open until its traffic is as the state left it."""
    records = tuple((str(a.action), a.note) for a in actions if isinstance(a, Record))
    status = state.status if state.settled or not state.finished else record.status
    if state == record.state and not records and record.command is None and status.is_open:
        return
    endpoints.rollouts.save(
        record.id, state=state, status=status, done=record.command, records=records
    )


def _context(endpoints: Endpoints, record: RolloutRecord, seconds: float) -> ReleaseContext:
    plan, state, command = record.plan, record.state, record.command
    route = endpoints.table().routes.get(record.alias)
    is_ours = route is not None and route.release == record.id
    if not is_ours and command is None and not state.finished:
        command = Command.ABORT  # somebody changed the route by hand
    state_now, note = _deployment(endpoints, record.candidate)
    return ReleaseContext(
        plan=plan,
        observations=_observations(endpoints, record, state.step),
        seconds_since_last_tick=seconds,
        deployment=state_now,
        deployment_note=note,
        # the route of a release that is over may be somebody else's by now: there is nothing to do
        traffic=wanted_traffic(plan, state)
        if state.finished and not is_ours
        else _traffic(route, record.candidate, is_ours=is_ours),
        command=command,
    )


def _is_about_to_begin(endpoints: Endpoints, record: RolloutRecord) -> bool:
    """The release is written down before the route bears its id."""
    try:
        deployment = endpoints.deployments.get(record.candidate)
    except NotOnRecordError:
        return False
    if deployment.intent is None or deployment.state is DeploymentState.FAILED:
        return False
    return deployment.intent.alias == record.alias and deployment.intent.plan is not None


def _traffic(route: Route | None, candidate: str, *, is_ours: bool) -> Traffic:
    """The traffic that is the release's to change."""
    if route is None or not is_ours:
        return Traffic(promoted=route is not None and route.stable == candidate)
    return Traffic(
        shadow_percent=route.shadow_percent if route.shadow == candidate else 0.0,
        canary_percent=route.canary_percent if route.canary == candidate else 0.0,
        promoted=route.stable == candidate,
    )


def _deployment(endpoints: Endpoints, digest: str) -> tuple[Deployment, str]:
    try:
        record = endpoints.deployments.get(digest)
    except NotOnRecordError:
        return Deployment.FAILED, "it is not on record any more"
    states = {
        DeploymentState.STARTING: Deployment.STARTING,
        DeploymentState.READY: Deployment.READY,
    }
    return states.get(record.state, Deployment.FAILED), record.reason or ""


def _observations(endpoints: Endpoints, record: RolloutRecord, step: int) -> StepObservations:
    rows = endpoints.rollouts.observations(record.id, step)
    total = reduce(StepObservations.__add__, rows, StepObservations())
    feedback = endpoints.rollouts.feedback.sums(record.id, step)
    judged = StepObservations(
        candidate=_feedback_counts(feedback.get(TrafficRole.CANARY)),
        stable=_feedback_counts(feedback.get(TrafficRole.STABLE)),
    )
    return total + judged


def _feedback_counts(feedback: FeedbackSum | None) -> ArmCounts:
    if feedback is None:
        return ArmCounts()
    return ArmCounts(feedback=feedback.count, feedback_error=feedback.error)


def _carry_out(
    endpoints: Endpoints, record: RolloutRecord, state: ReleaseState, action: Action
) -> None:
    def change(table: RoutingTable) -> RoutingTable:
        route = table.routes.get(record.alias)
        if route is None or route.release != record.id:
            return table
        return table.with_route(record.alias, _changed(route, record, state, action))

    endpoints.change_routing(
        change,
        actor=ACTOR,
        action=f"route.{action.kind}",
        subject=f"endpoint:{record.alias}",
        note=f"release {record.id}",
    )


def _let_go(endpoints: Endpoints, record: RolloutRecord) -> None:
    """A candidate that never had any traffic is still named by the route."""
    _carry_out(endpoints, record, ReleaseState(), RollBack(reason="over"))


def _changed(route: Route, record: RolloutRecord, state: ReleaseState, action: Action) -> Route:
    match action:
        case Promote():
            return promoted(route, record.candidate)
        case RollBack():
            return rolled_back(route)
        case SetTraffic() if state.finished:
            return rolled_back(route)
        case SetTraffic(shadow_percent=shadow, canary_percent=canary):
            return Route(
                stable=route.stable,
                previous=route.previous,
                canary=record.candidate,
                canary_percent=canary,
                shadow=record.candidate,
                shadow_percent=shadow,
                rules=route.rules,
                project=route.project,
                release=record.id,
                step=state.step,
            )
        case _:
            return route
