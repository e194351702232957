"""What tests of releases start from: observations, and a caller that may be killed."""

from hypothesis import strategies as st

from ztom.rollout.observations import (
    BOUNDARIES_S,
    ArmCounts,
    Comparison,
    LatencyHistogram,
    StepObservations,
    bucket_of,
)
from ztom.rollout.plan import parse_plan
from ztom.rollout.release import decide, wanted_traffic
from ztom.rollout.state import (
    Promote,
    Record,
    ReleaseContext,
    ReleaseState,
    RollBack,
    SetTraffic,
    Traffic,
)

NOTHING = StepObservations()
ONLY_ERRORS = {"empty": None, "latency": None, "disagreement": None, "feedback": None}
SHORT = parse_plan(
    {
        "steps": [{"shadow": 100}, {"canary": 25}, {"canary": 100}],
        "min_seconds": 30,
        "max_seconds": 300,
    }
)


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


CANARY_100 = {"canary": 100}
