"""A release from plan to end: every branch, kills at every moment, and how often it errs."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ztom.errors import ConfigError
from ztom.rollout.checks import ENOUGH_FOR_P95
from ztom.rollout.observations import (
    BOUNDARIES_S,
    BOUNDARY_RATIO,
    ArmCounts,
    Comparison,
    LatencyHistogram,
    StepObservations,
    boundary_at_or_above,
    bucket_of,
)
from ztom.rollout.plan import Check, ReleasePlan, StepKind, parse_plan
from ztom.rollout.release import decide, describe, wanted_traffic
from ztom.rollout.state import (
    Command,
    Deployment,
    Event,
    Promote,
    Record,
    ReleaseContext,
    ReleaseState,
    ReleaseStatus,
    RollBack,
    SetTraffic,
    Traffic,
)
from ztom.statistics.sequential import Outcome

NOTHING = StepObservations()
ONLY_ERRORS = {"empty": None, "latency": None, "disagreement": None, "feedback": None}
SHORT = parse_plan(
    {
        "steps": [{"shadow": 100}, {"canary": 25}, {"canary": 100}],
        "min_seconds": 30,
        "max_seconds": 300,
    }
)
ERRORS_FORM = {
    "steps": [{"canary": 25}, {"canary": 100}],
    "checks": ONLY_ERRORS,
    "min_seconds": 0,
}
ERRORS = parse_plan(ERRORS_FORM)


def arm(requests, *, errors=0, empty=0, latency_s=0.2, feedback=0, feedback_error=0.0):
    counts = [0] * (len(BOUNDARIES_S) + 1)
    counts[bucket_of(latency_s)] = requests - errors
    return ArmCounts(
        requests=requests,
        errors=errors,
        empty=empty,
        latency=LatencyHistogram(counts=tuple(counts)),
        feedback=feedback,
        feedback_error=feedback_error,
    )


def seen(candidate, stable, *, disagreement=0.1, n=None):
    n = candidate.requests if n is None else n
    return StepObservations(
        candidate=candidate,
        stable=stable,
        compared=Comparison(n=n, disagreement=n * disagreement),
        floor=Comparison(n=n, disagreement=n * 0.05),
    )


#: As much as every check needs; twice, because the first of it settles what is slow.
GOOD = seen(arm(1000), arm(1000))


class World:
    """A caller: applies actions, keeps the records, and can lose either."""

    def __init__(self, plan, *, killed_at_each_tick=True):
        self.plan = plan
        self.killed_at_each_tick = killed_at_each_tick
        self.state = ReleaseState()
        self.traffic = Traffic()
        self.observations = NOTHING
        self.records = []

    def tick(self, more=NOTHING, *, applies=True, seconds=10.0, **context):
        step = self.state.step
        self.observations = self.observations + more
        self.context = ReleaseContext(
            plan=self.plan,
            observations=self.observations,
            seconds_since_last_tick=seconds,
            traffic=self.traffic,
            **context,
        )
        decision = decide(self.context, self.state)
        self.state = decision.state
        if self.killed_at_each_tick:
            self.state = ReleaseState.model_validate_json(decision.state.model_dump_json())
            assert self.state == decision.state
        self.records += [each for each in decision.actions if isinstance(each, Record)]
        if self.state.step != step:
            self.observations = NOTHING
        for action in decision.actions if applies else ():
            self.apply(action)
        return decision.actions

    def apply(self, action):
        if isinstance(action, SetTraffic):
            self.traffic = Traffic(**action.model_dump(exclude={"kind"}))
        elif isinstance(action, Promote):
            self.traffic = Traffic(promoted=True)
        elif isinstance(action, RollBack):
            self.traffic = Traffic()

    def events(self):
        return [record.action for record in self.records]

    def at_step(self, step):
        """Go on with good observations until a step has its traffic."""
        for _ in range(100):
            if self.state.step == step and wanted_traffic(self.plan, self.state).is_like(
                self.traffic
            ):
                return self
            self.tick(GOOD)
        raise AssertionError("never got there")


# Observations


def test_latencies_fall_into_their_buckets():
    assert BOUNDARIES_S[0] == pytest.approx(0.001)
    assert BOUNDARIES_S[-1] == pytest.approx(1000.0)
    for index, boundary in enumerate(BOUNDARIES_S):
        assert bucket_of(boundary) == index
        assert bucket_of(boundary * 1.0001) == index + 1
        assert boundary_at_or_above(boundary * 0.9999) == index
    assert boundary_at_or_above(1e9) == len(BOUNDARIES_S) - 1
    for wrong in (-0.1, math.nan):
        with pytest.raises(ConfigError, match="latency"):
            bucket_of(wrong)


@given(st.lists(st.floats(0.002, 900.0), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 1]))
def test_quantiles_are_as_exact_as_the_buckets(latencies, share):
    exact = float(np.quantile(latencies, share, method="inverted_cdf"))
    found = LatencyHistogram.of(latencies).quantile_s(share)
    assert exact / BOUNDARY_RATIO * 0.999 <= found <= exact * BOUNDARY_RATIO * 1.001


def test_quantiles_beyond_the_boundaries():
    assert LatencyHistogram().quantile_s(0.95) is None
    assert LatencyHistogram.of([1e-5] * 3).quantile_s(0.5) == BOUNDARIES_S[0]
    assert LatencyHistogram.of([5000.0] * 3).quantile_s(0.5) == BOUNDARIES_S[-1]


def test_the_tail_and_what_came_in_since():
    early, late = LatencyHistogram.of([0.1, 0.3, 2.0]), LatencyHistogram.of([0.3, 5.0])
    both = early + late
    assert both.since(early) == late
    assert early.since(both) == LatencyHistogram()
    above = both.above(boundary_at_or_above(1.0))
    assert (above.n, above.total) == (5, 2.0)
    assert both.above(bucket_of(0.3)).total == 2.0
    assert both.above(bucket_of(0.3) - 1).total == 4.0


def test_counts_that_cannot_be_are_refused():
    for wrong in (
        {"requests": 1, "errors": 1, "empty": 1},
        {"requests": -1},
        {"requests": True},
        {"requests": 1, "errors": 1, "latency": LatencyHistogram.of([1.0])},
        {"feedback": 1, "feedback_error": 1.5},
        {"feedback": 1, "feedback_error": math.nan},
        {"feedback_error": 0.1},
        {"latency": {"counts": [0, 1]}},
        {"retries": 1},
    ):
        with pytest.raises(ValidationError):
            ArmCounts.model_validate(wrong)
    with pytest.raises(ValidationError):
        Comparison(n=2, disagreement=2.5)


@st.composite
def rows(draw):
    def one():
        requests = draw(st.integers(0, 400))
        errors = draw(st.integers(0, requests))
        return arm(
            requests,
            errors=errors,
            empty=draw(st.integers(0, requests - errors)),
            latency_s=draw(st.sampled_from([0.05, 0.3, 2.0])),
            feedback=4 * draw(st.integers(0, 9)),
            feedback_error=0.0,
        ) + ArmCounts(feedback=8, feedback_error=draw(st.integers(0, 8)) / 8)

    # Sums of eighths are exact in any order.
    n = draw(st.integers(0, 400))
    pair = Comparison(n=n, disagreement=draw(st.integers(0, 8 * n)) / 8)
    return StepObservations(candidate=one(), stable=one(), compared=pair, floor=pair)


@given(st.lists(rows(), min_size=1, max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_rows_add_up_to_the_same_decision_in_any_order_and_through_json(parts, shuffler):
    shuffled = list(parts)
    shuffler.shuffle(shuffled)
    stored = [StepObservations.model_validate(json.loads(p.model_dump_json())) for p in shuffled]
    one, other = sum(parts, NOTHING), sum(stored, NOTHING)
    assert one == other
    state, traffic = ReleaseState(step=1, seconds=100.0, started=True), Traffic(canary_percent=25)
    decisions = [
        decide(ReleaseContext(plan=SHORT, observations=each, traffic=traffic), state)
        for each in (one, other)
    ]
    assert decisions[0] == decisions[1]


# Plans


def test_the_default_plan():
    plan = parse_plan()
    assert [str(step) for step in plan.steps] == [
        "shadow at 100 %",
        *(f"canary at {percent} %" for percent in (5, 25, 50, 100)),
    ]
    assert {step.min_requests for step in plan.steps} == {100}
    assert Check.FEEDBACK not in plan.steps[0].tests
    assert Check.DISAGREEMENT in plan.steps[0].tests
    assert Check.DISAGREEMENT not in plan.steps[1].tests
    assert plan.tests == 20
    assert plan.fail_alpha == pytest.approx(plan.alpha / 20)
    assert plan.pass_alpha == plan.alpha


def test_short_forms_and_what_is_said_once_for_all():
    plan = parse_plan(
        {
            "alpha": 0.01,
            "min_requests": 50,
            "checks": {"error_rate": 0.01, "latency": None},
            "steps": [
                {"shadow": 100},
                {"canary": 5.5, "min_requests": 200, "checks": {"empty": 0.2}},
                {"kind": "canary", "percent": 100, "checks": {"feedback": {"required": True}}},
            ],
        }
    )
    assert [step.min_requests for step in plan.steps] == [50, 200, 50]
    assert [step.checks.error_rate for step in plan.steps] == [0.01] * 3
    assert [step.checks.latency for step in plan.steps] == [None] * 3
    assert [step.checks.empty for step in plan.steps] == [0.03, 0.2, 0.03]
    assert plan.steps[1].percent == 5.5
    assert plan.steps[2].checks.feedback.required
    assert ReleasePlan.model_validate_json(plan.model_dump_json()) == plan
    assert parse_plan(plan.model_dump(mode="json")) == plan


CANARY_100 = {"canary": 100}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"steps": []}, "steps: "),
        ({"steps": 5}, "steps: "),
        ("canary", "ReleasePlan"),
        ({"steps": [5, CANARY_100]}, "steps.1: "),
        ({"steps": [{"canary": 5}, {"canary": 50}]}, "ends with a canary at 100 %"),
        ({"steps": [{"shadow": 100}]}, "ends with a canary at 100 %"),
        ({"steps": [CANARY_100]}, "no stable traffic"),
        ({"steps": [{"canary": 25}, {"canary": 5}, CANARY_100]}, "have to rise"),
        ({"steps": [{"canary": 25}, {"canary": 25}, CANARY_100]}, "have to rise"),
        ({"steps": [{"canary": 5}, {"shadow": 100}, CANARY_100]}, "shadow steps come first"),
        ({"steps": [{"canary": math.nan}, CANARY_100]}, "steps.1.percent"),
        ({"steps": [{"canary": 0}, CANARY_100]}, "steps.1.percent"),
        ({"steps": [{"canary": True}, CANARY_100]}, "steps.1.percent"),
        ({"steps": [{"canary": "5 %"}, CANARY_100]}, "steps.1.percent"),
        ({"steps": [{"canary": 5, "shadow": 5}, CANARY_100]}, 'one of {"shadow": PERCENT}'),
        ({"steps": [{"min_requests": 5}, CANARY_100]}, 'one of {"shadow": PERCENT}'),
        ({"steps": [{"canary": 5, "min_request": 5}, CANARY_100]}, "steps.1.min_request: "),
        ({"steps": [{"canary": 5, "min_requests": 0}, CANARY_100]}, "steps.1.min_requests"),
        ({"steps": [{"canary": 5, "min_seconds": 9e9}, CANARY_100]}, "is more than max_seconds"),
        ({"steps": [{"canary": 5, "checks": {"p95": 1}}, CANARY_100]}, "steps.1.checks.p95"),
        ({"steps": [{"canary": 5, "checks": 3}, CANARY_100]}, "steps.1.checks"),
        ({"checks": {"error_rate": 1.0}}, "steps.1.checks.error_rate"),
        ({"checks": {"latency": {"max_ratio": 0.9}}}, "max_ratio"),
        ({"checks": [1]}, "checks are not a mapping"),
        ({"checks": {**ONLY_ERRORS, "error_rate": None}}, "no check that is on"),
        ({"alpha": 0}, "alpha"),
        ({"alpha": math.nan}, "alpha"),
        ({"min_secs": 3}, "min_secs"),
    ],
)
def test_a_wrong_plan_is_refused_with_what_and_where(value, told):
    with pytest.raises(ConfigError) as caught:
        parse_plan(value)
    assert told in caught.value.got
    assert "canary at 100" in caught.value.expected
    assert '{"shadow": 100}' in caught.value.fix


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
    assert world.events() == [Event.STARTED, Event.STEP, Event.STEP, Event.PROMOTED]
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
        (seen(arm(1000, errors=200), arm(1000)), Check.ERROR_RATE),
        (seen(arm(1000, empty=200), arm(1000)), Check.EMPTY),
        (seen(arm(1000, latency_s=0.5), arm(1000)), Check.LATENCY),
        (seen(arm(1000), arm(1000), disagreement=0.9), Check.DISAGREEMENT),
    ],
)
def test_each_failed_check_rolls_back_at_once(bad, check):
    world = World(SHORT)
    world.tick()
    world.tick(seen(arm(100), arm(100)))
    actions = world.tick(bad, seconds=0)
    assert [type(each) for each in actions] == [Record, RollBack]
    assert check.value in actions[1].reason
    assert world.state.findings[check].outcome is Outcome.FAIL
    assert world.events()[-1] is Event.ROLLED_BACK
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
    assert world.state.findings[Check.LATENCY].candidate.n == 0
    world.tick(seen(arm(80), arm(70)))
    latency = world.state.findings[Check.LATENCY]
    assert (latency.candidate.n, latency.candidate.total, latency.baseline.n) == (80, 0.0, 70)
    settled = world.state.p95
    world.at_step(1)
    world.tick(seen(arm(30), arm(90, latency_s=7.0)))
    latency = world.state.findings[Check.LATENCY]
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
    assert findings[Check.ERROR_RATE].baseline == stable.error_sums
    before = world.state.p95.stable.n
    assert findings[Check.LATENCY].baseline.n == stable.latency.n - before
    assert not findings[Check.ERROR_RATE].baseline_grows
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
        assert world.events() == [Event.STARTED, Event.HELD]
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
    assert resumed.events()[-1] is Event.RESUMED
    assert resumed.tick(command=Command.RESUME) == ()
    for _ in range(30):
        resumed.tick()
    assert resumed.events()[-2:] == [Event.RESUMED, Event.HELD]


def test_time_counts_only_while_the_step_is_on():
    world = World(SHORT)
    for _ in range(50):
        assert world.tick(deployment=Deployment.STARTING) == ()
    assert world.state == ReleaseState(findings=world.state.findings)
    world.tick(applies=False)
    world.tick(applies=False)
    assert world.state.seconds == 0.0
    assert world.events() == [Event.STARTED]
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
    assert world.events()[-2:] == [Event.STEP, Event.REFUSED]
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
    assert world.events() == [Event.STARTED, Event.ROLLED_BACK]


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
    assert (errors.check, errors.candidate, errors.candidate_n) == (Check.ERROR_RATE, 0.0, 60)
    assert (errors.stable, errors.stable_n) == (pytest.approx(3 / 180), 180)
    assert errors.outcome is Outcome.INCONCLUSIVE
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
    assert len([each for each in ends if each is not Event.HELD]) in (
        (1, 2) if world.state.finished else (0,)
    )
    assert not (promoted and world.traffic.canary_percent)
    # Now nothing more happens: the table converges and nothing more is said.
    for _ in range(2):
        world.tick(seconds=0)
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


# How often it errs, looked at after every few requests


def simulate(plan, generator, *, candidate, stable, most, every=10):
    """A release of two sides with these error rates; returns its state and candidate's requests."""
    world = World(plan, killed_at_each_tick=False)
    world.tick()
    requests = 0
    while requests < most and not world.state.finished:
        step = plan.steps[world.state.step]
        others = round(every * (100 - step.percent) / step.percent)
        more = StepObservations(
            candidate=arm(every, errors=int(generator.binomial(every, candidate))),
            stable=arm(others, errors=int(generator.binomial(others, stable))),
        )
        requests += every
        world.tick(more)
    return world.state, requests


def test_two_that_are_the_same_are_seldom_rolled_back():
    generator = np.random.default_rng(11)
    tight = parse_plan({**ERRORS_FORM, "checks": {**ONLY_ERRORS, "error_rate": 0.0}})
    runs = [simulate(tight, generator, candidate=0.1, stable=0.1, most=500)[0] for _ in range(80)]
    assert sum(state.status is ReleaseStatus.ROLLED_BACK for state in runs) <= 0.05 * len(runs)


def test_a_worsening_by_ten_points_is_caught_at_a_canary_of_25():
    generator = np.random.default_rng(12)
    runs = [simulate(ERRORS, generator, candidate=0.12, stable=0.02, most=1500) for _ in range(60)]
    caught = [state.status is ReleaseStatus.ROLLED_BACK for state, _ in runs]
    assert sum(caught) >= 0.95 * len(runs)
    assert np.median([requests for _, requests in runs]) < 600


def test_at_the_margin_both_mistakes_stay_within_alpha():
    # A risk of 30 %, so that few runs tell; bounds for a single look err in 40 % of these.
    plan = parse_plan(
        {
            "steps": [{"canary": 5, "min_requests": 1}, CANARY_100],
            "checks": {**ONLY_ERRORS, "error_rate": 0.03},
            "min_seconds": 0,
            "alpha": 0.3,
        }
    )
    generator = np.random.default_rng(3)
    runs = [
        simulate(plan, generator, candidate=0.33, stable=0.3, most=400, every=5)[0]
        for _ in range(60)
    ]
    assert sum(state.status is ReleaseStatus.ROLLED_BACK for state in runs) <= 0.3 * len(runs)
    assert sum(state.step > 0 for state in runs) <= 0.3 * len(runs)


def test_a_bad_candidate_is_seldom_passed_and_a_good_one_mostly():
    generator = np.random.default_rng(13)
    bad = [simulate(ERRORS, generator, candidate=0.1, stable=0.02, most=1000)[0] for _ in range(40)]
    assert sum(state.step > 0 for state in bad) <= 0.05 * len(bad)
    good = [
        simulate(ERRORS, generator, candidate=0.01, stable=0.02, most=3000)[0] for _ in range(20)
    ]
    assert sum(state.status is ReleaseStatus.PROMOTED for state in good) >= 19
