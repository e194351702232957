"""What is to be served: deployments as they are asked for."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ztom.evaluation.gate.verdict import Verdict
from ztom.rollout.options import DeployOptions
from ztom.rollout.plan import Plan
from ztom.rollout.routing import ALIAS_PATTERN, Match, Percent
from ztom.wire.base import WireRequest
from ztom.wire.fields import Id

Alias = Annotated[str, Field(pattern=ALIAS_PATTERN)]


class Deploy(WireRequest):
    """A variant that is to be served.

    Without ``now``, ``canary``, ``shadow``, ``rule``, ``live`` and ``plan``, a release by the
    default plan moves the traffic; a new alias is given to the variant at once. ``live`` swaps it
    into the engine of the stable variant, without a restart. ``verdict`` is what the gate said of
    the variant; it is put on record first.
    """

    alias: Alias
    path: str | None = Field(default=None, max_length=2048)
    file_id: Id | None = None
    project_id: Id | None = None
    name: Alias | None = None
    options: DeployOptions = DeployOptions()
    now: bool = False
    canary: Percent | None = None
    shadow: Percent | None = None
    rule: Match | None = None
    plan: Plan | None = None
    live: bool = False
    verdict: Verdict | None = None
    insist: bool = False
