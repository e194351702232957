"""A release from plan to end: every branch, and kills at every moment."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from release_world import CANARY_100, GOOD, NOTHING, ONLY_ERRORS, SHORT, World, arm, rows, seen

from ztom.errors import ConfigError
from ztom.rollout.checks import ENOUGH_FOR_P95
from ztom.rollout.observations import (
    ArmCounts,
    StepObservations,
)
from ztom.rollout.plan import ReleaseCheck, StepKind, parse_plan
from ztom.rollout.release import decide, describe, wanted_traffic
from ztom.rollout.state import (
    Command,
    Deployment,
    Record,
    ReleaseContext,
    ReleaseEvent,
    ReleaseState,
    ReleaseStatus,
    RollBack,
    SetTraffic,
    Traffic,
)
from ztom.statistics.sequential import SequentialOutcome

# The course of a release


def test_a_good_candidate_goes_all_the_way():
    world = World(SHORT)
    first = world.tick()
    assert [type(each) for each in first] == [Record, SetTraffic]
    assert world.traffic == Traffic(shadow_percent=100)
    world.at_step(1)
    assert world.traffic == Traffic(canary_percent=25)
    world.at_step(2)
    for _ in range(5):
        world.tick(seen(arm(1000), arm(0)))
    assert world.state.status is ReleaseStatus.PROMOTED
    assert world.traffic == Traffic(promoted=True)
    assert world.state.settled
    assert world.events() == [
        ReleaseEvent.STARTED,
        ReleaseEvent.STEP,
        ReleaseEvent.STEP,
        ReleaseEvent.PROMOTED,
    ]
    assert world.tick(GOOD) == ()


def test_a_step_needs_its_requests_its_seconds_and_data_of_every_check():
    enough = GOOD + GOOD
    for observations, seconds, moves in (
        (enough, 29.0, False),
        (enough, 30.0, True),
        (NOTHING, 30.0, False),
        (seen(arm(2000), arm(2000), n=0), 30.0, False),
    ):
        world = World(SHORT)
        world.tick()
        world.tick(observations and seen(arm(200), arm(200), n=0), seconds=0)
        world.tick(observations, seconds=seconds)
        assert (world.state.step == 1) == moves
    strict = parse_plan({"steps": [{"canary": 5, "min_requests": 5000}, CANARY_100]})
    world = World(strict)
    world.tick()
    for requests in (4000, 999, 1):
        assert world.state.step == 0
        world.tick(seen(arm(requests), arm(requests)), seconds=60)
    assert world.state.step == 1


@pytest.mark.parametrize(
    ("bad", "check"),
    [
        (seen(arm(1000, errors=200), arm(1000)), ReleaseCheck.ERROR_RATE),
        (seen(arm(1000, empty=200), arm(1000)), ReleaseCheck.EMPTY),
        (seen(arm(1000, latency_s=0.5), arm(1000)), ReleaseCheck.LATENCY),
        (seen(arm(1000), arm(1000), disagreement=0.9), ReleaseCheck.DISAGREEMENT),
    ],
)
def test_each_failed_check_rolls_back_at_once(bad, check):
    world = World(SHORT)
    world.tick()
    world.tick(seen(arm(100), arm(100)))
    actions = world.tick(bad, seconds=0)
    assert [type(each) for each in actions] == [Record, RollBack]
    assert check.value in actions[1].reason
    assert world.state.findings[check].outcome is SequentialOutcome.FAIL
    assert world.events()[-1] is ReleaseEvent.ROLLED_BACK
    assert world.traffic == Traffic()
    assert world.tick(GOOD) == ()
    assert world.state.settled


def test_a_fail_is_tested_at_its_share_of_alpha_and_a_pass_at_the_whole():
    world = World(SHORT)
    world.tick()
    world.tick(GOOD)
    for finding in world.state.findings.values():
        assert finding.pass_alpha == SHORT.alpha
        assert finding.fail_alpha == SHORT.alpha / (4 + 4 + 4)


def test_a_latency_that_is_a_little_higher_passes():
    world = World(SHORT)
    world.tick()
    for _ in range(5):
        world.tick(seen(arm(1000, latency_s=0.3), arm(1000)))
    assert world.state.step == 1


def test_only_answers_after_the_p95_is_settled_count():
    world = World(SHORT)
    world.tick()
    world.tick(seen(arm(90, latency_s=9.0), arm(ENOUGH_FOR_P95 - 1)))
    assert world.state.p95 is None
    world.tick(seen(arm(90, latency_s=9.0), arm(1)))
    assert world.state.p95.p95_s == pytest.approx(0.2, rel=0.26)
    assert world.state.findings[ReleaseCheck.LATENCY].candidate.n == 0
    world.tick(seen(arm(80), arm(70)))
    latency = world.state.findings[ReleaseCheck.LATENCY]
    assert (latency.candidate.n, latency.candidate.total, latency.baseline.n) == (80, 0.0, 70)
    settled = world.state.p95
    world.at_step(1)
    world.tick(seen(arm(30), arm(90, latency_s=7.0)))
    latency = world.state.findings[ReleaseCheck.LATENCY]
    assert (latency.candidate.n, latency.baseline.n, latency.baseline.total) == (30, 90, 90.0)
    assert world.state.p95 == settled


def test_at_canary_100_stable_of_the_earlier_steps_is_the_baseline():
    world = World(SHORT).at_step(1)
    shadowed = world.state.earlier.requests
    world.at_step(2)
    stable = world.state.earlier
    assert stable.requests - shadowed >= 1000
    assert shadowed >= 1000
    world.tick(seen(arm(50), arm(7, errors=7)))
    findings = world.state.findings
    assert findings[ReleaseCheck.ERROR_RATE].baseline == stable.error_sums
    before = world.state.p95.stable.n
    assert findings[ReleaseCheck.LATENCY].baseline.n == stable.latency.n - before
    assert not findings[ReleaseCheck.ERROR_RATE].baseline_grows
    world.tick(seen(arm(400, errors=150), arm(0)))
    assert world.state.status is ReleaseStatus.ROLLED_BACK


def test_feedback_counts_once_there_is_some_or_when_it_is_required():
    def at_canary(required, candidate, stable):
        checks = {"feedback": {"required": required}}
        plan = parse_plan({"steps": [{"canary": 25}, CANARY_100], "checks": checks})
        world = World(plan)
        world.tick()
        world.tick(seen(arm(200), arm(200)))
        world.tick(
            seen(arm(2000), arm(2000)) + StepObservations(candidate=candidate, stable=stable),
            seconds=60,
        )
        return world.state

    none, some = ArmCounts(), ArmCounts.of_feedback(0.25)
    much = ArmCounts(feedback=4000, feedback_error=1000.0)
    bad = ArmCounts(feedback=4000, feedback_error=3000.0)
    assert at_canary(False, none, much).step == 1
    assert at_canary(False, some, much).step == 0
    assert at_canary(False, much, none).step == 0
    assert at_canary(True, none, much).step == 0
    assert at_canary(True, much, much).step == 1
    assert at_canary(False, bad, much).status is ReleaseStatus.ROLLED_BACK


def test_an_undecided_step_holds_and_keeps_watching():
    def held():
        world = World(SHORT)
        world.tick()
        for _ in range(31):
            world.tick()
        assert world.state.status is ReleaseStatus.HELD
        assert "no data of" in world.state.reason
        assert "0 of at least 100 requests" in world.state.reason
        assert world.traffic == Traffic(shadow_percent=100)
        assert world.events() == [ReleaseEvent.STARTED, ReleaseEvent.HELD]
        assert world.tick() == ()
        return world

    passed = held()
    passed.at_step(1)
    assert passed.state.status is ReleaseStatus.RUNNING
    assert passed.state.reason == ""
    failed = held()
    failed.tick(seen(arm(500, errors=400), arm(500)))
    assert failed.state.status is ReleaseStatus.ROLLED_BACK
    resumed = held()
    resumed.tick(command=Command.RESUME)
    assert (resumed.state.status, resumed.state.seconds) == (ReleaseStatus.RUNNING, 0.0)
    assert resumed.events()[-1] is ReleaseEvent.RESUMED
    assert resumed.tick(command=Command.RESUME) == ()
    for _ in range(30):
        resumed.tick()
    assert resumed.events()[-2:] == [ReleaseEvent.RESUMED, ReleaseEvent.HELD]


def test_time_counts_only_while_the_step_is_on():
    world = World(SHORT)
    for _ in range(50):
        assert world.tick(deployment=Deployment.STARTING) == ()
    assert world.state == ReleaseState(findings=world.state.findings)
    world.tick(applies=False)
    world.tick(applies=False)
    assert world.state.seconds == 0.0
    assert world.events() == [ReleaseEvent.STARTED]
    world.tick()
    world.tick()
    assert world.state.seconds == 10.0
    world.tick(GOOD + GOOD, deployment=Deployment.STARTING, seconds=100)
    assert (world.state.step, world.state.seconds) == (0, 10.0)
    world.tick(seen(arm(9000, errors=9000), arm(0)), deployment=Deployment.STARTING)
    assert world.state.status is ReleaseStatus.ROLLED_BACK


def test_a_failed_deployment_rolls_back():
    world = World(SHORT).at_step(1)
    world.tick(deployment=Deployment.FAILED, deployment_note="out of memory")
    assert world.state.status is ReleaseStatus.ROLLED_BACK
    assert "out of memory" in world.state.reason
    assert world.traffic == Traffic()
    never = World(SHORT)
    actions = never.tick(deployment=Deployment.FAILED)
    assert [each.kind for each in actions] == ["record"]
    assert never.state.settled


@pytest.mark.parametrize(
    ("command", "status", "traffic"),
    [
        (Command.PROMOTE, ReleaseStatus.PROMOTED, Traffic(promoted=True)),
        (Command.ROLLBACK, ReleaseStatus.ROLLED_BACK, Traffic()),
        (Command.ABORT, ReleaseStatus.ABORTED, Traffic()),
    ],
)
def test_commands(command, status, traffic):
    world = World(SHORT).at_step(1)
    world.tick(command=command)
    assert (world.state.status, world.traffic) == (status, traffic)
    assert "by the operator, in step 2 of 3" in world.records[-1].note
    for later in Command:
        assert world.tick(command=later) == ()
    assert world.state.status is status


def test_a_candidate_that_is_not_ready_is_not_promoted():
    world = World(SHORT).at_step(1)
    world.tick(command=Command.PROMOTE, deployment=Deployment.STARTING)
    world.tick(command=Command.PROMOTE, deployment=Deployment.STARTING)
    assert world.events()[-2:] == [ReleaseEvent.STEP, ReleaseEvent.REFUSED]
    assert world.state.status is ReleaseStatus.RUNNING
    assert world.traffic == Traffic(canary_percent=25)
    world.tick(command=Command.PROMOTE, applies=False)
    assert world.tick(deployment=Deployment.STARTING) == ()
    assert not world.state.settled
    world.tick(deployment=Deployment.FAILED)
    assert world.state.status is ReleaseStatus.ROLLED_BACK
    assert world.traffic == Traffic()


def test_a_lost_action_is_given_again_and_an_applied_one_is_not():
    world = World(SHORT)
    for _ in range(3):
        actions = world.tick(applies=False)
        assert SetTraffic(shadow_percent=100, canary_percent=0) in actions
    world.tick()
    assert world.tick() == ()
    bad = seen(arm(500, errors=400), arm(500))
    for more in (bad, NOTHING, NOTHING):
        assert any(isinstance(each, RollBack) for each in world.tick(more, applies=False))
    assert [type(each) for each in world.tick()] == [RollBack]
    assert world.tick() == ()
    assert world.events() == [ReleaseEvent.STARTED, ReleaseEvent.ROLLED_BACK]


def test_a_settled_release_leaves_the_table_to_the_next_one():
    world = World(SHORT)
    world.tick(command=Command.ABORT)
    world.traffic = Traffic(canary_percent=5)
    assert world.tick(GOOD) == ()
    taken = World(SHORT).at_step(1)
    taken.traffic = Traffic(promoted=True)
    taken.tick()
    assert taken.state.status is ReleaseStatus.PROMOTED
    assert taken.state.settled


def test_a_state_of_another_plan_is_refused():
    with pytest.raises(ConfigError, match="not of this plan"):
        decide(ReleaseContext(plan=SHORT), ReleaseState(step=3))


def test_the_display_has_a_row_for_each_step():
    world = World(SHORT).at_step(1)
    world.tick(seen(arm(60), arm(180, errors=3)))
    done, present, waiting = describe(SHORT, world.state)
    assert [row.status for row in (done, present, waiting)] == ["done", "running", "waiting"]
    assert (present.number, present.kind, present.percent) == (2, StepKind.CANARY, 25.0)
    errors = present.checks[0]
    assert (errors.check, errors.candidate, errors.candidate_n) == (
        ReleaseCheck.ERROR_RATE,
        0.0,
        60,
    )
    assert (errors.stable, errors.stable_n) == (pytest.approx(3 / 180), 180)
    assert errors.outcome is SequentialOutcome.INCONCLUSIVE
    assert errors.low < 0 < errors.margin < errors.high
    assert "not decided" in errors.reason
    world.tick(command=Command.ROLLBACK)
    rows_ = describe(SHORT, world.state)
    assert [row.status for row in rows_] == ["done", "rolled_back", "skipped"]
    assert all(json.loads(row.model_dump_json()) for row in rows_)


# Whatever happens

EVENTS = st.fixed_dictionaries(
    {
        "more": st.one_of(rows(), st.just(GOOD), st.just(NOTHING)),
        "seconds": st.sampled_from([0.0, 10.0, 1000.0]),
        "applies": st.booleans(),
        "deployment": st.sampled_from([*Deployment, *[Deployment.READY] * 6]),
        "command": st.sampled_from([None] * 12 + list(Command)),
    }
)


@given(st.lists(EVENTS, max_size=12))
@settings(max_examples=60, deadline=None)
def test_whatever_happens_it_goes_on_from_its_json_and_says_nothing_twice(events):
    world = World(SHORT)
    for event in events:
        before = world.state
        world.tick(**event)
        assert world.state.step - before.step in (0, 1)
        if before.finished and before.status is not ReleaseStatus.PROMOTED:
            assert world.state.status is before.status
        again = decide(world.context, ReleaseState.model_validate_json(before.model_dump_json()))
        assert again.state == world.state
    promoted = world.state.status is ReleaseStatus.PROMOTED
    ends = [each for each in world.events() if each in set(map(str, ReleaseStatus))]
    assert len([each for each in ends if each is not ReleaseEvent.HELD]) in (
        (1, 2) if world.state.finished else (0,)
    )
    # Now nothing more happens: the table converges, even where the last change of it was lost, and
    # nothing more is said.
    for _ in range(2):
        world.tick(seconds=0)
    assert not (promoted and world.traffic.canary_percent)
    assert wanted_traffic(SHORT, world.state).is_like(world.traffic)
    assert world.tick(seconds=0) == ()


@given(
    st.lists(
        st.fixed_dictionaries({"seconds": st.sampled_from([1.0, 1e4]), "applies": st.booleans()}),
        max_size=30,
    ),
    st.sampled_from(["neither", "candidate", "stable"]),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_without_data_of_both_nothing_is_ever_passed(events, side, feedback_only):
    checks = {**ONLY_ERRORS, "error_rate": None, "feedback": {}} if feedback_only else {}
    plan = parse_plan({"steps": [{"canary": 25}, CANARY_100], "checks": checks, "min_seconds": 0})
    more = NOTHING if side == "neither" else StepObservations(**{side: arm(5000)})
    world = World(plan)
    for event in events:
        world.tick(more, **event)
    assert world.state.step == 0
    assert not world.state.finished
