"""What the loop decides: ways through a run, what starts one, and that nothing is done twice."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from ztom.loop.config import LoopConfig
from ztom.loop.decide import JobOutcome, Notify, StartJob, decide, due, why_not
from ztom.loop.state import LoopStage, LoopState, Reason, RunEnd, Trigger

_NOW = datetime(2026, 3, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
_CONFIG = LoopConfig(name="support")


def _trigger(key: str = "alarm 7", reason: Reason = Reason.SIGNAL) -> Trigger:
    return Trigger(key=key, reason=reason, time=_NOW, evidence="14 of 100 wrong, 9 before")


class Loop:
    """A loop that is told outcomes; it is restarted from its document at every step."""

    def __init__(self, config: LoopConfig = _CONFIG) -> None:
        self.config, self.now = config, _NOW
        self.document = LoopState().model_dump_json()
        self.jobs: list[str] = []
        self.notes: list[tuple[str, str]] = []

    @property
    def state(self) -> LoopState:
        return LoopState.model_validate_json(self.document)

    def tick(self, *triggers: Trigger, outcome: JobOutcome | None = None) -> None:
        actions, after = decide(
            self.config, self.state, now=self.now, triggers=triggers, outcome=outcome
        )
        self.document = after.model_dump_json()
        for action in actions:
            if isinstance(action, StartJob):
                self.jobs.append(action.job)
            elif isinstance(action, Notify):
                self.notes.append((action.kind, action.text))

    def ends(self, stage: LoopStage, is_good: bool, **more: object) -> None:
        """The job of a stage comes to something."""
        current = self.state.current
        assert current is not None
        assert current.stage is stage
        candidate = f"variants/{current.job}" if is_good and "blend" in stage else None
        given = {"note": "said so", "candidate": candidate, **more}
        self.tick(outcome=JobOutcome(current.job, is_good, **given))

    def end(self) -> RunEnd:
        assert self.state.current is None
        return self.state.history[-1].end


_B, _G, _T = LoopStage.BLEND, LoopStage.GATE, LoopStage.TRAIN
_BT, _GT, _S = LoopStage.BLEND_TRAINED, LoopStage.GATE_TRAINED, LoopStage.SHIP


@pytest.mark.parametrize(
    ("path", "end"),
    [
        ([(_B, 1), (_G, 1), (_S, 1)], RunEnd.SHIPPED),
        ([(_B, 1), (_G, 1), (_S, 0)], RunEnd.NOT_SHIPPED),
        ([(_B, 1), (_G, 0), (_T, 1), (_BT, 1), (_GT, 1), (_S, 1)], RunEnd.SHIPPED),
        ([(_B, 0), (_T, 1), (_BT, 1), (_GT, 1), (_S, 1)], RunEnd.SHIPPED),
        ([(_B, 1), (_G, 0), (_T, 1), (_BT, 1), (_GT, 0)], RunEnd.NOT_PASSED),
        ([(_B, 0), (_T, 1), (_BT, 0)], RunEnd.NOT_PASSED),
        ([(_B, 0), (_T, 0)], RunEnd.NOT_PASSED),
    ],
)
def test_every_way_through_a_run(path, end):
    loop = Loop()
    loop.tick(_trigger())
    for stage, is_good in path:
        loop.ends(stage, bool(is_good))
    assert loop.end() is end
    assert loop.jobs == [f"run-1-{stage}" for stage, _ in path]
    assert [kind for kind, _ in loop.notes] == ["shipped" if end is RunEnd.SHIPPED else "alarm"]
    ended = loop.state.history[-1].run
    assert [note.partition(":")[0] for note in ended.notes] == [str(stage) for stage, _ in path]
    shipped = ended.candidate if end is RunEnd.SHIPPED else None
    blended = [stage for stage, good in path if "blend" in stage and good]
    assert shipped == (f"variants/run-1-{blended[-1]}" if end is RunEnd.SHIPPED else None)


@pytest.mark.parametrize("stage", [_B, _G, _T, _BT, _GT, _S])
def test_an_error_in_any_stage_ends_the_run_and_the_old_version_stays(stage):
    loop = Loop()
    loop.tick(_trigger())
    for other in itertools.takewhile(lambda s: s is not stage, [_B, _G, _T, _BT, _GT, _S]):
        if stage is _G or other is not _G:
            loop.ends(other, True)
        else:
            loop.ends(other, False)
    loop.ends(stage, False, has_failed=True, note="no GPU came")
    assert loop.end() is RunEnd.FAILED
    assert loop.notes == [("alarm", "failed: no GPU came")]


def test_nothing_is_started_before_the_state_that_knows_of_it_is_kept():
    actions, after = decide(_CONFIG, LoopState(), now=_NOW, triggers=[_trigger()])
    assert [action.job for action in actions] == ["run-1-blend"]
    assert after.current.stage is LoopStage.BLEND
    # killed before the action: the next tick asks for the same job again
    again, same = decide(_CONFIG, after, now=_NOW + _DAY, triggers=[_trigger()])
    assert again == actions
    assert same == after


def test_an_answer_to_an_earlier_stage_is_passed_over():
    loop = Loop()
    loop.tick(_trigger())
    loop.ends(_B, True)
    before = loop.document
    loop.tick(outcome=JobOutcome("run-1-blend", True, "told twice", candidate="other"))
    assert loop.document == before
    assert loop.jobs == ["run-1-blend", "run-1-gate", "run-1-gate"]


def test_one_run_at_a_time_and_what_arose_meanwhile_is_its_own():
    loop = Loop()
    loop.tick(_trigger("alarm 7"), _trigger("suite 2", Reason.CHANGE))
    loop.tick(_trigger("alarm 8"))
    assert loop.jobs == ["run-1-blend", "run-1-blend"]
    assert loop.state.seen == {"alarm 7", "suite 2"}


def test_a_person_comes_first():
    loop = Loop()
    loop.tick(_trigger("suite 2", Reason.CHANGE), _trigger("ann", Reason.PERSON), _trigger())
    assert loop.state.current.trigger.key == "ann"


def _one_run(loop: Loop, trigger: Trigger) -> None:
    loop.tick(trigger)
    loop.ends(_B, False)
    loop.ends(_T, False)


def test_a_trigger_runs_once_and_alarms_cool_down():
    loop = Loop()
    _one_run(loop, _trigger())
    assert why_not(loop.config, loop.state, _trigger(), loop.now) == "it has run"
    other = _trigger("alarm 8")
    assert "it cools down until" in why_not(loop.config, loop.state, other, loop.now)
    assert why_not(loop.config, loop.state, _trigger("ann", Reason.PERSON), loop.now) is None
    assert why_not(loop.config, loop.state, other, loop.now + 7 * _DAY) is None
    loop.tick(other)
    assert loop.state.current is None


def test_a_month_has_a_budget():
    loop = Loop(LoopConfig(name="support", runs_a_month=2, cool_down=timedelta(0)))
    for number in range(2):
        _one_run(loop, _trigger(f"alarm {number}"))
    assert "2 runs began within 30 days" in why_not(
        loop.config, loop.state, _trigger("ann", Reason.PERSON), loop.now
    )
    assert why_not(loop.config, loop.state, _trigger("x"), loop.now + 30 * _DAY) is None


def test_signals_and_changes_can_be_off():
    config = LoopConfig(name="support", signals=False, changes=False)
    for reason in (Reason.SIGNAL, Reason.CHANGE):
        assert "starts no runs" in why_not(config, LoopState(), _trigger(reason=reason), _NOW)


def test_a_schedule_that_fires_twice_is_one_run():
    loop = Loop(LoopConfig(name="support", cadence=timedelta(days=42)))
    began = _NOW - 41 * _DAY
    assert due(loop.config, loop.state, began=began, now=_NOW) is None
    first = due(loop.config, loop.state, began=began, now=_NOW + _DAY)
    assert first == due(loop.config, loop.state, began=began, now=_NOW + 2 * _DAY)
    _one_run(loop, first)
    assert why_not(loop.config, loop.state, first, loop.now) == "it has run"
    assert due(loop.config, loop.state, began=began, now=_NOW + _DAY) is None
    later = due(loop.config, loop.state, began=began, now=_NOW + 42 * _DAY)
    assert later.key != first.key


def test_a_person_approves():
    loop = Loop(LoopConfig(name="support", approve="human"))
    loop.tick(_trigger())
    loop.ends(_B, True)
    loop.ends(_G, True)
    assert loop.notes == [("approve", "variants/run-1-blend waits for approval")]
    loop.tick()
    assert len(loop.notes) == 1
    assert loop.jobs == ["run-1-blend", "run-1-gate"]
    loop.ends(LoopStage.APPROVAL, True)
    assert loop.jobs[-1] == "run-1-ship"
    loop.ends(_S, True)
    assert loop.end() is RunEnd.SHIPPED


@pytest.mark.parametrize("refuses", [True, False])
def test_without_approval_nothing_ships(refuses):
    loop = Loop(LoopConfig(name="support", approve="human"))
    loop.tick(_trigger())
    loop.ends(_B, True)
    loop.ends(_G, True)
    if refuses:
        loop.ends(LoopStage.APPROVAL, False, note="the tone is wrong")
    else:
        loop.now += 7 * _DAY
        loop.tick()
    assert loop.end() is RunEnd.NOT_APPROVED
    assert "run-1-ship" not in loop.jobs


def test_without_training_a_blend_that_does_not_pass_ends_the_run():
    loop = Loop(LoopConfig(name="support", train=False))
    loop.tick(_trigger())
    loop.ends(_B, True)
    loop.ends(_G, False)
    assert loop.end() is RunEnd.NOT_PASSED
