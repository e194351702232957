"""What a model did on a suite: answers and scores, item by item.

Nothing is scored as 0 or 1 because it is missing: an item that could not be scored says why in
``problem``, has no value, and the gate never passes on it.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ztom.evaluation.suites.suite import AnyMetric, Layer, Name, SemanticVersion, Suite

_FROZEN = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SuiteRef(BaseModel):
    """The suite that results are of.

    Attributes:
        digest: Digest of the suite; see `ztom.evaluation.suites.suite.Suite.digest`.
    """

    model_config = _FROZEN

    name: Name
    version: SemanticVersion
    layer: Layer
    metric: AnyMetric
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")


class ModelRef(BaseModel):
    """The model that results are of.

    Attributes:
        name: Name of the model for people.
        digest: Digest of its content: the variant's manifest, or the checkpoint's files; lower-case
            hex.
    """

    model_config = _FROZEN

    name: str
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")


class Conditions(BaseModel):
    """How answers were obtained, as far as they depend on it: what both sides must have in common.

    What a model brings along is no part of it: its tokenizer, its chat template, and the dtype it
    is stored in where it is run in that.

    Attributes:
        engine: Name of the engine.
        version: Version of the library underneath.
        device: Kind of the device, ``cpu`` or ``cuda``.
        setup: Digest of how it is set up (`ztom.evaluation.runs.models.setup_digest`): dtype as
            asked for, whether the chat template is applied, maximal length and the like.
    """

    model_config = _FROZEN

    engine: str
    version: str
    device: str
    setup: str


class ItemResult(BaseModel):
    """What a model did on one item.

    Attributes:
        id: Id of the item.
        answers: Generated answers, one per repeat; long ones are cut for keeping, never for
            scoring.
        value: Value from 0 to 1, higher is better; None when it could not be scored. For probes it
            is the share of the repeats that passed.
        parts: Numbers that the metric's aggregate is computed from, where it is no mean:
            (numerator, denominator) for ``span_f1``, (expected class, predicted class or -1) for
            ``macro_f1``.
        repeats: Number of times that a probe was asked.
        failed_checks: Kinds of the checks that repeats did not pass; of each repeat the first one.
        problem: Reason why it could not be scored.
    """

    model_config = _FROZEN

    id: str
    answers: tuple[str, ...] = ()
    value: float | None = Field(default=None, ge=0.0, le=1.0)
    parts: tuple[float, ...] = ()
    repeats: int = Field(default=1, ge=1)
    failed_checks: tuple[str, ...] = ()
    problem: str | None = None


class SuiteRun(BaseModel):
    """A model's results on a suite, in the order of the suite's items.

    Attributes:
        key: Key of the cache, over everything that the answers depend on.
        conditions: Part of the key that is neither model nor suite.
        seconds: Seconds that the run took; 0 when every answer was known already.
    """

    model_config = _FROZEN

    suite: SuiteRef
    model: ModelRef
    key: str
    conditions: Conditions
    items: tuple[ItemResult, ...]
    seconds: float = Field(default=0.0, ge=0.0)


def ref_of(suite: Suite) -> SuiteRef:
    """The suite as results name it."""
    config = suite.config
    return SuiteRef(
        name=config.name,
        version=config.version,
        layer=config.layer,
        metric=config.metric,
        digest=suite.digest,
    )
