"""What traffic a deployment is for, from the moment that it is wanted until it has it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ztom.rollout.plan import ReleaseGate, ReleasePlan
from ztom.rollout.routing import ALIAS_PATTERN, Match, Percent


class Intent(BaseModel):
    """The traffic that a deployment is to get once it is ready.

    Exactly one of the following, after the alias. A new alias is given to it at once where it wants
    all of the traffic, or a release; a candidate, or a rule, waits until there is something stable.

    Attributes:
        alias: Alias under which clients ask for it.
        now: Whether it gets all requests at once.
        canary: Percent of the requests that it answers until somebody says otherwise.
        shadow: Percent of the requests that it gets copies of until somebody says otherwise.
        rule: Requests of some callers that it answers.
        plan: Plan of a release that moves the traffic step by step.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    alias: str = Field(pattern=ALIAS_PATTERN)
    now: bool = False
    canary: Percent | None = None
    shadow: Percent | None = None
    rule: Match | None = None
    plan: ReleasePlan | None = None

    @model_validator(mode="after")
    def _one_wish(self) -> Self:
        by_hand = self.canary is not None or self.shadow is not None
        wishes = [self.now, by_hand, self.rule is not None, self.plan is not None]
        if sum(wishes) != 1:
            raise ValueError("say one of: now, canary and/or shadow, rule, plan")
        return self

    @property
    def kind(self) -> Literal["main", "candidate", "rule"]:
        """Part of the traffic that it is about."""
        if self.rule is not None:
            return "rule"
        return "main" if self.now or self.plan is not None else "candidate"

    @property
    def gate(self) -> ReleaseGate:
        """What has to be on record before its release begins."""
        return ReleaseGate.NONE if self.plan is None else self.plan.gate
