"""The plan of a release: which share of the traffic a candidate gets, in which steps, and what it
has to show before the next one.

In a shadow step the candidate answers copies of requests and its answers go to the comparison only;
in a canary step it answers users. Plans are written in short:

    steps: [{shadow: 100}, {canary: 5}, {canary: 25, min_requests: 200}, {canary: 100}]
    checks: {error_rate: 0.01, feedback: {required: true}}

``checks``, ``min_requests``, ``min_seconds`` and ``max_seconds`` beside ``steps`` hold for all
steps that do not say otherwise; a check set to null is off.

**How alpha is shared out.** A candidate is rolled back when *any* test of the release fails, so the
risk of a rollback without cause adds up over the tests: each may fail with ``alpha / tests``, a
test being one check in one step. A candidate is promoted only when *every* test passes, so one that
is worse than allowed in a test has to get past that one, whose risk is ``alpha``: nothing adds up,
and each may pass with alpha whole (an intersection-union test: Berger 1982, "Multiparameter
hypothesis testing and acceptance sampling"). Hence both for the release as a whole, whenever one
looks:

    P(rolled back | within every margin)          <= alpha
    P(promoted | beyond a margin in any test)     <= alpha
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ztom.io.problems import check_model

#: Shares of the traffic in percent when a plan names no steps.
DEFAULT_STEPS: Final = ({"shadow": 100}, *({"canary": percent} for percent in (5, 25, 50, 100)))
#: What a plan may say once for all its steps.
_SHARED: Final = ("min_requests", "min_seconds", "max_seconds")

Margin = Annotated[float, Field(ge=0.0, lt=1.0, allow_inf_nan=False, strict=True)]
Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False, strict=True)]
Percent = Annotated[float, Field(gt=0.0, le=100.0, allow_inf_nan=False, strict=True)]


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StepKind(StrEnum):
    """What the candidate's answers are used for."""

    SHADOW = "shadow"
    CANARY = "canary"


class ReleaseCheck(StrEnum):
    """What a candidate is tested on."""

    ERROR_RATE = "error_rate"
    EMPTY = "empty"
    LATENCY = "latency"
    DISAGREEMENT = "disagreement"
    FEEDBACK = "feedback"


class LatencyCheck(_Config):
    """How much slower a candidate may be.

    Attributes:
        max_ratio: An answer is slow when it takes longer than this many times stable's p95, rounded
            up to a boundary of the histogram (by at most a factor of 1.26).
        margin: Largest excess of the candidate's share of slow answers over stable's.
    """

    max_ratio: Annotated[float, Field(ge=1.0, allow_inf_nan=False, strict=True)] = 1.5
    margin: Margin = 0.05


class FeedbackCheck(_Config):
    """How much worse users may judge a candidate.

    Attributes:
        margin: Largest excess of the candidate's mean error in feedback over stable's.
        required: Whether the step waits for feedback on the candidate; otherwise the check
            counts once there is some.
    """

    margin: Margin = 0.1
    required: Annotated[bool, Field(strict=True)] = False


class ReleaseChecks(_Config):
    """The checks of a step; None is off.

    A margin is the excess over stable that is allowed, in the rate's own units: 0.03 is three
    requests of a hundred. It also sets the number of requests it takes to show that the candidate
    keeps it: at a rate of 1 % on both sides about 500 for 0.03, 1,200 for 0.02, 200 for 0.05.

    Attributes:
        error_rate: Margin of the share of requests that fail.
        empty: Margin of the share of empty or malformed answers.
        latency: Limits on slow answers; see `LatencyCheck`.
        disagreement: Margin of the candidate's disagreement with stable over stable's with
            itself, in shadow steps. Generous unless given: a mastered variant is meant to differ.
        feedback: Limits on users' feedback, in canary steps, since nobody sees the answers of a
            shadow.
    """

    error_rate: Margin | None = 0.03
    empty: Margin | None = 0.03
    latency: LatencyCheck | None = LatencyCheck()
    disagreement: Margin | None = 0.5
    feedback: FeedbackCheck | None = FeedbackCheck()

    def margin_of(self, check: ReleaseCheck) -> float | None:
        """The excess over stable that a check allows; None when it is off."""
        limit = getattr(self, check.value)
        margin: float | None = getattr(limit, "margin", limit)
        return margin

    def needs_data(self, check: ReleaseCheck) -> bool:
        """Whether a check that is on counts although there is no data of the candidate."""
        return check is not ReleaseCheck.FEEDBACK or (
            self.feedback is not None and self.feedback.required
        )


class ReleaseStep(_Config):
    """One step.

    Attributes:
        kind: Shadow or canary.
        percent: Percent of the requests that are copied to the candidate, or answered by it.
        min_requests: Number of the candidate's requests before the step may pass.
        min_seconds: Seconds before the step may pass, counted while the traffic is as the step
            wants it.
        max_seconds: Seconds after which a step that is not decided holds.
        checks: Checks that have to pass.
    """

    kind: StepKind
    percent: Percent
    min_requests: Annotated[int, Field(ge=1, strict=True)] = 100
    min_seconds: Seconds = 60.0
    max_seconds: Seconds = 3600.0
    checks: ReleaseChecks = ReleaseChecks()

    @model_validator(mode="before")
    @classmethod
    def _from_short(cls, value: Any) -> Any:
        """``{"canary": 5}`` is ``{"kind": "canary", "percent": 5}``."""
        if not isinstance(value, Mapping) or "kind" in value:
            return value
        named = [kind for kind in StepKind if kind in value]
        if len(named) != 1:
            raise ValueError('a step is one of {"shadow": PERCENT} and {"canary": PERCENT}')
        rest = {key: setting for key, setting in value.items() if key != named[0]}
        return {"kind": named[0], "percent": value[named[0]], **rest}

    @model_validator(mode="after")
    def _decidable(self) -> Self:
        if self.min_seconds > self.max_seconds:
            raise ValueError(
                f"min_seconds {self.min_seconds:g} is more than max_seconds {self.max_seconds:g}"
            )
        if not self.tests:
            raise ValueError(f"no check that is on can be made in a {self.kind} step")
        return self

    def __str__(self) -> str:
        return f"{self.kind} at {self.percent:g} %"

    @property
    def tests(self) -> tuple[ReleaseCheck, ...]:
        """The checks that are on and can be made in a step of this kind."""
        unseen = (
            ReleaseCheck.FEEDBACK if self.kind is StepKind.SHADOW else ReleaseCheck.DISAGREEMENT
        )
        return tuple(
            check
            for check in ReleaseCheck
            if check is not unseen and self.checks.margin_of(check) is not None
        )

    @property
    def has_stable_beside_it(self) -> bool:
        """Whether stable answers users in this step."""
        return self.kind is StepKind.SHADOW or self.percent < 100.0


class ReleaseGate(StrEnum):
    """What has to be on record of the candidate before the release begins.

    ``pass``: that the gate has passed it. ``champion``: the same, compared with the variant that is
    stable when the release begins; where nothing is stable yet, there is nothing to compare with.
    """

    NONE = "none"
    PASS = "pass"
    CHAMPION = "champion"


class ReleasePlan(_Config):
    """A release from its first step to the promotion.

    Attributes:
        gate: What has to be on record before it begins.
        steps: Shadow steps, then canary steps, percents rising; the last a canary at 100 %, after a
            step in which stable was measured: at 100 % there is no stable traffic to compare with,
            and stable's counts of the earlier steps stand in for it.
        alpha: The risk of a rollback without cause, and that of a promotion of a candidate that is
            worse than allowed, each over the whole release; see the module.
    """

    gate: ReleaseGate = ReleaseGate.NONE
    steps: Annotated[tuple[ReleaseStep, ...], Field(min_length=1, max_length=100)]
    alpha: Annotated[float, Field(gt=0.0, le=0.5, allow_inf_nan=False, strict=True)] = 0.05

    @model_validator(mode="before")
    @classmethod
    def _share_out(cls, value: Any) -> Any:
        """Give each step what is said once for all."""
        if not isinstance(value, Mapping):
            return value
        rest = {key: setting for key, setting in value.items() if key not in (*_SHARED, "checks")}
        shared = {key: value[key] for key in _SHARED if key in value}
        checks = value.get("checks", {})
        if isinstance(checks, ReleaseChecks):
            checks = checks.model_dump()
        if not isinstance(checks, Mapping):
            raise ValueError("checks are not a mapping of a check's name to what is allowed")
        steps = value.get("steps", DEFAULT_STEPS)
        if isinstance(steps, list | tuple):
            steps = [_completed(step, shared, checks) for step in steps]
        return {**rest, "steps": steps}

    @model_validator(mode="after")
    def _rises(self) -> Self:
        kinds = [step.kind for step in self.steps]
        if StepKind.SHADOW in kinds[kinds.count(StepKind.SHADOW) :]:
            raise ValueError("a shadow step comes after a canary step; shadow steps come first")
        for before, after in pairwise(self.steps):
            if after.kind is before.kind and after.percent <= before.percent:
                raise ValueError(f"{after} comes after {before}; the percents have to rise")
        last = self.steps[-1]
        if last.kind is not StepKind.CANARY or last.percent != 100.0:
            raise ValueError(f"the last step is {last}; a release ends with a canary at 100 %")
        if len(self.steps) == 1:
            raise ValueError("a canary at 100 % alone has no stable traffic to compare with")
        return self

    @property
    def tests(self) -> int:
        """Number of tests of the whole release: checks by steps."""
        return sum(len(step.tests) for step in self.steps)

    @property
    def pass_alpha(self) -> float:
        """Risk of each test to pass without cause."""
        return self.alpha

    @property
    def fail_alpha(self) -> float:
        """Risk of each test to fail without cause."""
        return self.alpha / self.tests


def parse_plan(value: object = None) -> ReleasePlan:
    """A plan as users write it; see the module.

    Args:
        value: Value of a YAML or JSON file; None is the default plan.

    Raises:
        ConfigError: It is not a plan; names the mistakes and their places.
    """
    return check_model(
        ReleasePlan,
        {} if value is None else value,
        wrong="the release plan is wrong",
        expected="shadow steps, then canary steps, percents rising to a canary at 100",
        fix='A step reads {"shadow": 100} or {"canary": 5, "min_requests": 200}.',
        whole="the plan",
        first_index=1,
    )


#: A plan in a document; what its schema says is loose, for a plan may be written in short.
Plan = Annotated[ReleasePlan, BeforeValidator(parse_plan, json_schema_input_type=dict[str, Any])]


def _completed(step: object, shared: Mapping[str, object], checks: Mapping[str, object]) -> object:
    """A step with what the plan says for all steps where it says nothing itself."""
    if not isinstance(step, Mapping):
        return step
    own = step.get("checks", {})
    return {**shared, **step, "checks": {**checks, **own} if isinstance(own, Mapping) else own}
