"""Endpoints as a declarative file has them, and what there is to change for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from ztom.evaluation.gate.verdict import Verdict
from ztom.rollout.options import DeployOptions
from ztom.rollout.plan import ReleasePlan, parse_plan
from ztom.rollout.routing import ALIAS_PATTERN, Match, Percent
from ztom.wire.base import WireAnswer, WireRequest
from ztom.wire.examples import example
from ztom.wire.fields import Alias


class WantedVariant(WireRequest):
    """A variant, and how it is served; ``verdict`` is the document, which `ztom apply` reads."""

    path: str = Field(max_length=2048)
    name: str | None = Field(default=None, pattern=ALIAS_PATTERN)
    options: DeployOptions = DeployOptions()
    verdict: Verdict | None = None
    insist: bool = False


class WantedCandidate(WantedVariant):
    """A variant with a share of the traffic, in percent."""

    canary: Percent = 0.0
    shadow: Percent = 0.0


class WantedRule(WantedVariant):
    """A variant for some requests."""

    header: str | None = None
    value: str | None = None
    key: str | None = None

    @model_validator(mode="after")
    def _says_whom(self) -> Self:
        _ = self.match
        return self

    @property
    def match(self) -> Match:
        """The requests that the rule matches."""
        return Match(header=self.header, value=self.value, key=self.key)


def _plan_of(value: object) -> object:
    return parse_plan(value) if isinstance(value, Mapping) else value


#: How another stable variant gets in; a plan may be written in short.
StableRollout = Annotated[
    Literal["release", "now"] | ReleasePlan,
    BeforeValidator(_plan_of, json_schema_input_type=Literal["release", "now"] | dict[str, Any]),
]


class WantedEndpoint(WireRequest):
    """An endpoint as it should be."""

    stable: WantedVariant
    rollout: StableRollout = "release"
    candidate: WantedCandidate | None = None
    rules: tuple[WantedRule, ...] = ()
    project: str | None = None


class Apply(WireRequest):
    """Endpoints as a declarative file has them, by alias.

    ``prune`` removes endpoints of the same projects that are not among them; ``dryRun`` changes
    nothing.
    """

    model_config = example(
        endpoints={
            "support": {
                "stable": {"path": "/models/variants/support-4", "options": {"max_replicas": 2}},
                "candidate": {"path": "/models/variants/support-5", "canary": 5, "shadow": 20},
            }
        },
        prune=False,
        dryRun=True,
    )

    endpoints: dict[Alias, WantedEndpoint]
    prune: bool = False
    dry_run: bool = False


class EndpointDifference(WireAnswer):
    """One change that makes an endpoint what a file says.

    Attributes:
        text: The change in a line, for people.
    """

    model_config = example(
        alias="support",
        action="traffic",
        text="~ support: candidate 5f8e2c1d7b6a, canary 5 %, shadow 20 %",
    )

    alias: str
    action: Literal["deploy", "traffic", "withdraw", "unrule", "remove"]
    text: str
