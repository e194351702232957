"""What a loop does next: a pure function of its rules, its state, and what it is told.

A run goes through blend -> gate -> ship. A blend of the checkpoints that are there is the cheap
answer, so it is tried first; where it does not pass, an adapter is trained, blended and judged; and
where that does not pass either, the old version stays and a person is told. A blend that is what is
served counts as not passed, and so does a pass of the gate while the measure that started the run
has not come back over its line.

A stage's work is a job with a key. Whoever was killed asks for the same key again, and gets the
same job: nothing is trained, judged or shipped twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from ztom.loop.config import LoopConfig
from ztom.loop.state import EndedRun, LoopRun, LoopStage, LoopState, Reason, RunEnd, Trigger

_MONTH = timedelta(days=30)
#: The reason that is taken where there are several, the first of these.
_ORDER = (Reason.PERSON, Reason.SIGNAL, Reason.CHANGE, Reason.CADENCE)


@dataclass(frozen=True)
class JobOutcome:
    """What a job came to.

    Attributes:
        job: Key of the job.
        is_good: A blend or training gave something new; a gate passed with its measure back over
            its line; a person approved; a release was promoted.
        note: What it came to, in words with its numbers.
        candidate: Address of the variant that a blend wrote; None otherwise.
        has_failed: Whether it ended without an answer: an error, and no verdict.
    """

    job: str
    is_good: bool
    note: str
    candidate: str | None = None
    has_failed: bool = False


@dataclass(frozen=True)
class StartJob:
    """Start the job of a stage, unless one of its key was started.

    Attributes:
        job: Key of the job.
        stage: What is to be done.
        run: The run.
    """

    job: str
    stage: LoopStage
    run: LoopRun


@dataclass(frozen=True)
class Notify:
    """Tell people.

    Attributes:
        kind: ``approve``: somebody has to decide; ``alarm``: nothing passed, or something failed;
            ``shipped``.
        run: The run.
        text: What to say.
    """

    kind: Literal["approve", "alarm", "shipped"]
    run: LoopRun
    text: str


Action = StartJob | Notify


def decide(
    config: LoopConfig,
    state: LoopState,
    *,
    now: datetime,
    triggers: Sequence[Trigger] = (),
    outcome: JobOutcome | None = None,
) -> tuple[tuple[Action, ...], LoopState]:
    """The actions to take now, and the state to keep before they are taken.

    Args:
        config: Rules of the loop.
        state: State that was kept last.
        now: The time.
        triggers: Reasons that have arisen; those that have run are passed over.
        outcome: What the job of the current stage came to; None while it works.
    """
    run = state.current
    if run is None:
        return _begin(config, state, now, triggers)
    if outcome is None or outcome.job != run.job:
        return _wait(config, state, run, now)
    noted = run.model_copy(update={"notes": (*run.notes, f"{run.stage}: {outcome.note}")})
    if outcome.has_failed:
        return _end(state, noted, RunEnd.FAILED, now, outcome.note)
    return _next(config, state, noted, now, outcome)


def due(config: LoopConfig, state: LoopState, *, began: datetime, now: datetime) -> Trigger | None:
    """The trigger of the cadence; None before it is due.

    A schedule that fires twice gives the same key, so it is one run.

    Args:
        config: Rules of the loop.
        state: State of the loop.
        began: Time at which the loop began; the first run is due a cadence after it.
        now: The time.
    """
    if config.cadence is None:
        return None
    last = state.history[-1].ended if state.history else began
    at = last + config.cadence
    if now < at:
        return None
    return Trigger(
        key=f"cadence {at.isoformat()}",
        reason=Reason.CADENCE,
        time=at,
        evidence=f"{config.cadence} since {last.isoformat()}",
    )


def why_not(config: LoopConfig, state: LoopState, trigger: Trigger, now: datetime) -> str | None:
    """Why a trigger starts no run now; None where it does."""
    if trigger.key in state.seen:
        return "it has run"
    is_off = {Reason.SIGNAL: not config.signals, Reason.CHANGE: not config.changes}
    if is_off.get(trigger.reason, False):
        return f"{trigger.reason} starts no runs here"
    recent = [ended for ended in state.history if now - ended.run.started < _MONTH]
    if len(recent) >= config.runs_a_month:
        return f"{len(recent)} runs began within 30 days, {config.runs_a_month} may"
    last = state.history[-1].ended if state.history else None
    cools = trigger.reason in (Reason.SIGNAL, Reason.CHANGE)
    if cools and last is not None and now - last < config.cool_down:
        return f"it cools down until {(last + config.cool_down).isoformat()}"
    return None


def _begin(
    config: LoopConfig, state: LoopState, now: datetime, triggers: Sequence[Trigger]
) -> tuple[tuple[Action, ...], LoopState]:
    ready = [t for t in triggers if why_not(config, state, t, now) is None]
    if not ready:
        return (), state
    trigger = min(ready, key=lambda t: (_ORDER.index(t.reason), t.time, t.key))
    run = LoopRun(number=len(state.history) + 1, trigger=trigger, started=now, since=now)
    # what else has arisen by now is answered by this run, too
    seen = state.seen | {t.key for t in ready}
    return _start(run), state.model_copy(update={"current": run, "seen": seen})


def _wait(
    config: LoopConfig, state: LoopState, run: LoopRun, now: datetime
) -> tuple[tuple[Action, ...], LoopState]:
    is_late = now - run.since >= timedelta(days=config.approval_days)
    if run.stage is LoopStage.APPROVAL and is_late:
        text = f"nobody approved {run.candidate} within {config.approval_days} days"
        return _end(state, run, RunEnd.NOT_APPROVED, now, text)
    if run.stage is LoopStage.APPROVAL:
        return (), state  # it was asked once
    return _start(run), state


def _next(
    config: LoopConfig, state: LoopState, run: LoopRun, now: datetime, outcome: JobOutcome
) -> tuple[tuple[Action, ...], LoopState]:
    stage, is_good = run.stage, outcome.is_good
    if stage is LoopStage.SHIP:
        end = RunEnd.SHIPPED if is_good else RunEnd.NOT_SHIPPED
        return _end(state, run, end, now, outcome.note)
    if stage is LoopStage.APPROVAL:
        if is_good:
            return _go(state, run, LoopStage.SHIP, now)
        return _end(state, run, RunEnd.NOT_APPROVED, now, outcome.note)
    if stage in (LoopStage.GATE, LoopStage.GATE_TRAINED) and is_good:
        then = LoopStage.APPROVAL if config.approve == "human" else LoopStage.SHIP
        return _go(state, run, then, now)
    if stage in (LoopStage.BLEND, LoopStage.BLEND_TRAINED) and is_good:
        judged = LoopStage.GATE if stage is LoopStage.BLEND else LoopStage.GATE_TRAINED
        run = run.model_copy(update={"candidate": outcome.candidate})
        return _go(state, run, judged, now)
    if stage is LoopStage.TRAIN and is_good:
        return _go(state, run, LoopStage.BLEND_TRAINED, now)
    if stage in (LoopStage.BLEND, LoopStage.GATE) and config.train:
        return _go(state, run.model_copy(update={"candidate": None}), LoopStage.TRAIN, now)
    return _end(state, run, RunEnd.NOT_PASSED, now, outcome.note)


def _go(
    state: LoopState, run: LoopRun, stage: LoopStage, now: datetime
) -> tuple[tuple[Action, ...], LoopState]:
    run = run.model_copy(update={"stage": stage, "since": now})
    after = state.model_copy(update={"current": run})
    if stage is LoopStage.APPROVAL:
        return (Notify("approve", run, f"{run.candidate} waits for approval"),), after
    return _start(run), after


def _start(run: LoopRun) -> tuple[Action, ...]:
    return (StartJob(run.job, run.stage, run),)


def _end(
    state: LoopState, run: LoopRun, end: RunEnd, now: datetime, text: str
) -> tuple[tuple[Action, ...], LoopState]:
    ended = EndedRun(run=run, end=end, ended=now)
    after = state.model_copy(update={"current": None, "history": (*state.history, ended)})
    kind: Literal["alarm", "shipped"] = "shipped" if end is RunEnd.SHIPPED else "alarm"
    return (Notify(kind, run, f"{end}: {text}"),), after
