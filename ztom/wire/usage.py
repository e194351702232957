"""Who used how much of what a server serves, and what that costs at given prices."""

from __future__ import annotations

from enum import StrEnum

from ztom.wire import examples
from ztom.wire.base import WireAnswer
from ztom.wire.examples import example


class UsageBy(StrEnum):
    """What rows of usage are told apart by."""

    KEY = "key"
    PROJECT = "project"
    VARIANT = "variant"
    DAY = "day"


class UsageLine(WireAnswer):
    """What was used; a field that rows are not told apart by is null.

    Attributes:
        day: Day (UTC), as ``2026-03-02``.
        key_id: Id of the API key, or of the user who was logged in; empty for what an engine did
            for nobody's key.
        key: Name of that key or user; null where it is no more.
        project_id: Id of the project whose endpoint it was; empty for the operator's own.
        project: Name of that project; null where it is no more.
        digest: Digest of the variant.
        variant: Model name of the variant.
        requests: Number of requests.
        failed: Number of requests that the server did not answer (status 500 and above).
        prompt_tokens: Tokens of prompts.
        completion_tokens: Tokens that were generated.
        busy_seconds: Seconds for which engines worked, shared out among the requests in work.
        idle_seconds: Seconds for which engines with traffic had nothing to do.
        held_seconds: Seconds for which engines were held without traffic: they loaded, or were kept
            for a rollback.
        cost: What that costs at the given prices; null where no price is known.
    """

    model_config = example(
        day="2026-03-02",
        keyId=examples.KEY,
        key="ci",
        projectId=examples.PROJECT,
        project="support",
        digest=examples.DIGEST,
        variant="support",
        requests=1200,
        failed=1,
        promptTokens=96000,
        completionTokens=31000,
        busySeconds=840.5,
        idleSeconds=0.0,
        heldSeconds=0.0,
        cost=0.23,
    )

    day: str | None = None
    key_id: str | None = None
    key: str | None = None
    project_id: str | None = None
    project: str | None = None
    digest: str | None = None
    variant: str | None = None
    requests: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    busy_seconds: float
    idle_seconds: float
    held_seconds: float
    cost: float | None = None


class UsageReport(WireAnswer):
    """Usage of some days.

    Attributes:
        first: First day, as ``2026-03-01``.
        last: Last day, included.
        by: What the lines are told apart by.
        lines: What was used, the most engine seconds first; by day, the days in order.
        total: All lines together.
        not_counted: What is missing, in sentences: a process that was killed takes what it had
            counted in its last seconds with it.
    """

    model_config = example(
        first="2026-03-01",
        last="2026-03-31",
        by=["project"],
        lines=[],
        total={
            "requests": 0,
            "failed": 0,
            "promptTokens": 0,
            "completionTokens": 0,
            "busySeconds": 0.0,
            "idleSeconds": 0.0,
            "heldSeconds": 0.0,
        },
        notCounted=[],
    )

    first: str
    last: str
    by: tuple[UsageBy, ...]
    lines: tuple[UsageLine, ...]
    total: UsageLine
    not_counted: tuple[str, ...] = ()
