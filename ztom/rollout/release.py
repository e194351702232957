"""What to do next with a release: a pure function ``(context, state) -> (actions, state)``.

`decide` is called again and again with what was counted so far. It knows no clock and keeps
nothing: time comes in through the context, and the state holds all that is needed to go on after
the caller was killed.

    every check passes, enough requests, long enough  ->  next step; after the last, promotion
    a check fails, or the candidate does              ->  rollback at once
    not decided after max_seconds                     ->  held: the traffic stays, and the checks go
                                                          on: a fail still rolls back and a pass
                                                          still goes on

No data is never a pass. The tests are anytime-valid (see `ztom.statistics.sequential`), so calling
often costs nothing.

**How to call it.** Save the new state together with the `Record` actions, in one transaction; then
apply the others. What traffic a release wants follows from its state and is compared with what the
routing table says, so an action that was lost between the two is given again, and one that was
applied is not (nor is a rollback asked for where the candidate has no traffic). A finished release
whose traffic is as it wants it is settled and never asks again: the table may belong to the next
release by then. Removing the candidate of a release that was rolled back or aborted is left to the
caller, once it is settled.
"""

from __future__ import annotations

from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from ztom.errors import ConfigError
from ztom.rollout.checks import CheckEvidence, StableP95, examine
from ztom.rollout.observations import StepObservations
from ztom.rollout.plan import ReleaseCheck, ReleasePlan, ReleaseStep, StepKind
from ztom.rollout.state import (
    Action,
    Command,
    Deployment,
    Promote,
    Record,
    ReleaseContext,
    ReleaseEvent,
    ReleaseState,
    ReleaseStatus,
    RollBack,
    SetTraffic,
    Traffic,
)
from ztom.statistics.sequential import SequentialFinding, SequentialOutcome


class Decision(NamedTuple):
    """What `decide` returns: what to do, records first, and the state to keep."""

    actions: tuple[Action, ...]
    state: ReleaseState


def decide(context: ReleaseContext, state: ReleaseState) -> Decision:
    """Look at a release and say what to do; see the module.

    Raises:
        ConfigError: The state is of another plan.
    """
    if state.settled:
        return Decision((), state)
    if state.step >= len(context.plan.steps):
        raise ConfigError(
            "the release's state is not of this plan",
            got=f"step {state.step + 1}",
            expected=f"1 to {len(context.plan.steps)}",
        )
    records, state = _next_state(context, state)
    traffic = _traffic_actions(context, state)
    if state.finished and wanted_traffic(context.plan, state).is_like(context.traffic):
        state = state.but(settled=True)
    return Decision((*records, *traffic), state)


def wanted_traffic(plan: ReleasePlan, state: ReleaseState) -> Traffic:
    """The traffic that a release wants its candidate to have."""
    if state.finished:
        return Traffic(promoted=state.status is ReleaseStatus.PROMOTED)
    step = plan.steps[state.step]
    if step.kind is StepKind.SHADOW:
        return Traffic(shadow_percent=step.percent)
    return Traffic(canary_percent=step.percent)


def _traffic_actions(context: ReleaseContext, state: ReleaseState) -> tuple[Action, ...]:
    wanted = wanted_traffic(context.plan, state)
    if wanted.is_like(context.traffic):
        return ()
    if state.status is ReleaseStatus.PROMOTED:
        return (Promote(),) if context.deployment is Deployment.READY else ()
    if state.status is ReleaseStatus.ROLLED_BACK:
        return (RollBack(reason=state.reason),)
    if state.finished or context.deployment is Deployment.READY:
        return (
            SetTraffic(shadow_percent=wanted.shadow_percent, canary_percent=wanted.canary_percent),
        )
    return ()


class _Next(NamedTuple):
    """What became of a state, and its records."""

    records: tuple[Record, ...]
    state: ReleaseState


def _next_state(context: ReleaseContext, state: ReleaseState) -> _Next:
    where = _where(context.plan, state)
    if state.finished:
        return _unfinished_promotion(context, state)
    if context.traffic.promoted:
        return _end(state, ReleaseStatus.PROMOTED, "the candidate was made stable by other means")
    if context.command is Command.ABORT:
        return _end(state, ReleaseStatus.ABORTED, f"by the operator, in {where}")
    if context.command is Command.ROLLBACK:
        return _end(state, ReleaseStatus.ROLLED_BACK, f"by the operator, in {where}")
    if context.deployment is Deployment.FAILED:
        return _end(state, ReleaseStatus.ROLLED_BACK, f"{_failure(context)} in {where}")
    if context.command is Command.PROMOTE:
        return _promoted_by_hand(context, state)
    begun = _begin(context, state)
    resumed = _resumed(context, begun.state)
    watched = _watched(context, resumed.state, counts_time=not resumed.records)
    return _Next((*begun.records, *resumed.records, *watched.records), watched.state)


def _unfinished_promotion(context: ReleaseContext, state: ReleaseState) -> _Next:
    """Take a promotion back whose candidate failed before the table was changed."""
    undone = state.status is ReleaseStatus.PROMOTED and not context.traffic.promoted
    if not undone or context.deployment is not Deployment.FAILED:
        return _Next((), state)
    reason = f"{_failure(context)} before it was made stable"
    return _end(state, ReleaseStatus.ROLLED_BACK, reason)


def _failure(context: ReleaseContext) -> str:
    note = f" ({context.deployment_note})" if context.deployment_note else ""
    return f"the candidate's deployment failed{note}"


def _begin(context: ReleaseContext, state: ReleaseState) -> _Next:
    if state.started or context.deployment is not Deployment.READY:
        return _Next((), state)
    note = f"{_where(context.plan, state)}; alpha {context.plan.alpha:g}"
    return _Next((Record(action=ReleaseEvent.STARTED, note=note),), state.but(started=True))


def _resumed(context: ReleaseContext, state: ReleaseState) -> _Next:
    if context.command is not Command.RESUME or state.status is not ReleaseStatus.HELD:
        return _Next((), state)
    note = f"by the operator, in {_where(context.plan, state)}"
    running = state.but(status=ReleaseStatus.RUNNING, seconds=0.0, reason="")
    return _Next((Record(action=ReleaseEvent.RESUMED, note=note),), running)


def _promoted_by_hand(context: ReleaseContext, state: ReleaseState) -> _Next:
    if context.deployment is Deployment.READY:
        reason = f"by the operator, in {_where(context.plan, state)}"
        return _end(state, ReleaseStatus.PROMOTED, reason)
    reason = f"promotion: the candidate is {context.deployment}, and stable goes on"
    if state.reason == reason:
        return _Next((), state)
    return _Next((Record(action=ReleaseEvent.REFUSED, note=reason),), state.but(reason=reason))


def _watched(context: ReleaseContext, state: ReleaseState, *, counts_time: bool) -> _Next:
    """Look at the observations, and go on, hold or roll back."""
    plan, step = context.plan, context.plan.steps[state.step]
    p95 = state.p95 or StableP95.settle(
        context.observations, earlier=state.earlier, step=state.step
    )
    evidence = CheckEvidence(state.step, step, context.observations, state.earlier, p95)
    findings = examine(evidence, pass_alpha=plan.pass_alpha, fail_alpha=plan.fail_alpha)
    left_out = context.observations.left_out
    state = state.but(p95=p95, findings=findings, left_out=left_out)
    if failed := _reasons(findings, SequentialOutcome.FAIL):
        reason = f"{_where(plan, state)}: {'; '.join(failed)}"
        return _end(state, ReleaseStatus.ROLLED_BACK, reason)
    applied = wanted_traffic(plan, state).is_like(context.traffic)
    if not applied or context.deployment is not Deployment.READY:
        return _Next((), state)
    if counts_time:
        state = state.but(seconds=state.seconds + context.seconds_since_last_tick)
    if _may_pass(step, state, context.observations):
        return _passed(context, state)
    if state.status is ReleaseStatus.RUNNING and state.seconds >= step.max_seconds:
        return _hold(context, state)
    return _Next((), state)


def _may_pass(step: ReleaseStep, state: ReleaseState, observations: StepObservations) -> bool:
    findings = state.findings.values()
    return (
        bool(findings)
        and all(finding.outcome is SequentialOutcome.PASS for finding in findings)
        and observations.candidate.requests >= step.min_requests
        and state.seconds >= step.min_seconds
    )


def _hold(context: ReleaseContext, state: ReleaseState) -> _Next:
    step = context.plan.steps[state.step]
    missing = _reasons(state.findings, SequentialOutcome.INCONCLUSIVE)
    requests = context.observations.candidate.requests
    if requests < step.min_requests:
        missing.append(f"{requests:,} of at least {step.min_requests:,} requests")
    if not state.findings:
        missing.append("no check has any data")
    if state.left_out:
        missing.append(f"{state.left_out:,} answers beyond their callers' shares did not count")
    where = _where(context.plan, state)
    reason = f"{where} is not decided after {step.max_seconds:g} s: {'; '.join(missing)}"
    held = state.but(status=ReleaseStatus.HELD, reason=reason)
    return _Next((Record(action=ReleaseEvent.HELD, note=reason),), held)


def _passed(context: ReleaseContext, state: ReleaseState) -> _Next:
    plan = context.plan
    reasons = "; ".join(_reasons(state.findings, SequentialOutcome.PASS))
    note = f"{_where(plan, state)} passed: {reasons}"
    if state.step + 1 == len(plan.steps):
        return _end(state, ReleaseStatus.PROMOTED, note)
    entered = ReleaseState(
        step=state.step + 1,
        started=True,
        earlier=state.earlier + context.observations.stable,
        p95=state.p95,
    )
    note = f"{note}; now {_where(plan, entered)}"
    return _Next((Record(action=ReleaseEvent.STEP, note=note),), entered)


def _end(state: ReleaseState, status: ReleaseStatus, reason: str) -> _Next:
    record = Record(action=ReleaseEvent(status.value), note=reason)
    return _Next((record,), state.but(status=status, reason=reason))


def _reasons(
    findings: dict[ReleaseCheck, SequentialFinding], outcome: SequentialOutcome
) -> list[str]:
    return [
        f"{check}: {finding.reason}"
        for check, finding in findings.items()
        if finding.outcome is outcome
    ]


def _where(plan: ReleasePlan, state: ReleaseState) -> str:
    return f"step {state.step + 1} of {len(plan.steps)} ({plan.steps[state.step]})"


class CheckRow(BaseModel):
    """A check of the present step for a display.

    Attributes:
        check: Name of the check.
        outcome: Outcome so far: pass, fail or inconclusive.
        candidate: Rate of the candidate; None without data.
        stable: Rate of stable that it is compared with; None without data.
        candidate_n: Number of observations behind the candidate's rate.
        stable_n: Number of observations behind stable's rate.
        low: Lower bound of the candidate's excess.
        high: Upper bound of the candidate's excess.
        margin: Excess that is allowed.
        reason: Reason, which says all that in words.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    check: ReleaseCheck
    outcome: SequentialOutcome
    candidate: float | None
    stable: float | None
    candidate_n: int
    stable_n: int
    low: float
    high: float
    margin: float
    reason: str


class StepRow(BaseModel):
    """A step for a display.

    Attributes:
        number: Number of the step, from 1.
        kind: Shadow or canary.
        percent: Percent of the requests.
        status: ``done``, ``waiting`` or ``skipped``; the release's own status at the step where it
            stands or ended.
        seconds: Seconds spent in it, at the present step.
        max_seconds: Seconds after which an undecided step holds.
        checks: Checks of the present step, as last looked at.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    kind: StepKind
    percent: float
    status: str
    seconds: float | None
    max_seconds: float
    checks: tuple[CheckRow, ...]


def describe(plan: ReleasePlan, state: ReleaseState) -> tuple[StepRow, ...]:
    """Rows for a live display, one per step of the plan."""
    return tuple(_step_row(index, step, state) for index, step in enumerate(plan.steps))


def _step_row(index: int, step: ReleaseStep, state: ReleaseState) -> StepRow:
    present = index == state.step
    later = "skipped" if state.finished else "waiting"
    status = state.status.value if present else "done" if index < state.step else later
    return StepRow(
        number=index + 1,
        kind=step.kind,
        percent=step.percent,
        status=status,
        seconds=state.seconds if present else None,
        max_seconds=step.max_seconds,
        checks=tuple(_check_row(*finding) for finding in state.findings.items()) if present else (),
    )


def _check_row(check: ReleaseCheck, finding: SequentialFinding) -> CheckRow:
    return CheckRow(
        check=check,
        outcome=finding.outcome,
        candidate=finding.candidate.mean,
        stable=finding.baseline.mean,
        candidate_n=finding.candidate.n,
        stable_n=finding.baseline.n,
        low=finding.low,
        high=finding.high,
        margin=finding.margin,
        reason=finding.reason,
    )
