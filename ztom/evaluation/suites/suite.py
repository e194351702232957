"""What a suite is: its settings (``suite.yaml``) and its items (``items.jsonl``).

Reading and locking the files is `ztom.evaluation.suites.read`; running a model on them is
`ztom.evaluation.runs.harness`; deciding on the results is `ztom.evaluation.gate.decide`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from ztom.engines.protocol import GenerationConfig
from ztom.plugins import Group, check_name, is_import_path

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
SemanticVersion = Annotated[
    str, StringConstraints(pattern=r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)$")
]


class Layer(StrEnum):
    """What a suite is for; each layer has its own rule in the gate.

    A ``task`` suite measures how well the domain's task is done. A ``frozen`` suite holds what
    works already and must not break. A ``behavioural`` suite probes, repeatedly, how the model
    behaves.
    """

    TASK = "task"
    FROZEN = "frozen"
    BEHAVIOURAL = "behavioural"


class MetricName(StrEnum):
    """How an answer is scored, from 0 to 1, higher is better."""

    EXACT_MATCH = "exact_match"
    ACCURACY = "accuracy"
    MACRO_F1 = "macro_f1"
    SPAN_F1 = "span_f1"
    ROUGE_L = "rouge_l"
    SIMILARITY = "similarity"
    PASS_AT_1 = "pass_at_1"
    USER = "user"
    CHECKS = "checks"


#: A metric as results name it: built in, or one that was installed where they were made.
AnyMetric = Annotated[
    MetricName | Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.-]{0,99}$")],
    Field(union_mode="left_to_right"),
]
#: A metric that is there now.
KnownMetric = Annotated[
    AnyMetric, AfterValidator(lambda name: check_name(Group.METRICS, name, tuple(MetricName)))
]


class AnswerCheck(BaseModel):
    """One thing that an answer of a probe has to satisfy.

    Attributes:
        kind: ``regex`` (found in the answer), ``not_regex``, ``json_schema`` (the answer is JSON
            of this form), ``forbidden`` (none of the strings or kinds of personal data occurs),
            ``refusal`` (the model declines, or where the item's target is ``answer`` does not).
        pattern: Regular expression of ``regex`` and ``not_regex``.
        form: JSON schema of ``json_schema``.
        strings: Strings of ``forbidden``, compared without regard to case.
        personal_data: Kinds of personal data that ``forbidden`` looks for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["regex", "not_regex", "json_schema", "forbidden", "refusal"]
    pattern: str | None = Field(default=None, max_length=2000)
    form: dict[str, Any] | None = None
    strings: tuple[Annotated[str, StringConstraints(pattern=r"\S")], ...] = ()
    personal_data: tuple[Literal["email", "phone", "credit_card", "iban", "ip_address"], ...] = ()

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> AnswerCheck:
        given = {
            "pattern": self.pattern is not None,
            "form": self.form is not None,
            "strings or personal_data": bool(self.strings or self.personal_data),
        }
        wanted = {
            "regex": "pattern",
            "not_regex": "pattern",
            "json_schema": "form",
            "forbidden": "strings or personal_data",
            "refusal": None,
        }[self.kind]
        for option, present in given.items():
            if present != (option == wanted):
                word = "needs" if option == wanted else "does not take"
                raise ValueError(f"a check of kind {self.kind} {word} {option}")
        return self


class SuiteConfig(BaseModel):
    """``suite.yaml``.

    Attributes:
        name: Name of the suite.
        version: Semantic version; other items or settings take another one.
        layer: Layer, which says what rule of the gate applies.
        metric: Metric that scores answers; ``checks`` for behavioural suites. One's own is the name
            of an entry point ``ztom.metrics``, or ``package.module:function``, which is short for
            the metric ``user`` with that function.
        function: ``package.module:function`` for the metrics ``pass_at_1`` and ``user``, looked for
            beside ``suite.yaml`` first.
        labels: The classes, for ``accuracy`` and ``macro_f1`` only; all targets when empty.
        floor: The metric's value, 0 to 1, that the lower bound has to reach (task).
        margin: Largest loss against the champion that is allowed, in units of the metric.
        alpha: Level of the one-sided tests.
        minimum_n: Number of items below which nothing is decided.
        owner: Owner who answers for it.
        decode: Settings of generating the answers.
        template: Template in Jinja, with ``input`` and the item's other fields except ``target``;
            for messages it is applied to the last turn's content.
        repeats: Number of times that each item is asked (behavioural).
        minimum_rate: Share of repeats that an item has to pass (behavioural): all its repeats do,
            or their number shows at alpha that the rate is no lower.
        checks: Checks that each answer has to satisfy (behavioural).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Name
    version: SemanticVersion
    layer: Layer
    metric: KnownMetric
    function: str | None = Field(default=None, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    labels: tuple[str, ...] = ()
    floor: float = Field(default=0.0, ge=0.0, le=1.0)
    margin: float = Field(default=0.02, ge=0.0, le=1.0)
    alpha: float = Field(default=0.05, gt=0.0, le=0.2)
    minimum_n: int = Field(default=30, ge=1)
    owner: str = Field(min_length=1, max_length=200)
    decode: GenerationConfig = GenerationConfig()
    template: str = "{{ input }}"
    repeats: int = Field(default=1, ge=1, le=1000)
    minimum_rate: float = Field(default=1.0, gt=0.0, le=1.0)
    checks: tuple[AnswerCheck, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _function_as_metric(cls, data: Any) -> Any:
        metric = data.get("metric") if isinstance(data, dict) else None
        if isinstance(metric, str) and is_import_path(metric) and data.get("function") is None:
            return {**data, "metric": MetricName.USER.value, "function": metric}
        return data

    @model_validator(mode="after")
    def _fits_together(self) -> SuiteConfig:
        behavioural = self.layer is Layer.BEHAVIOURAL
        if behavioural != (self.metric is MetricName.CHECKS):
            raise ValueError("the metric checks and the layer behavioural go together")
        if behavioural != bool(self.checks):
            raise ValueError("checks are for behavioural suites, which need at least one")
        if not behavioural and self.repeats != 1:
            raise ValueError("repeats are for behavioural suites")
        own = self.metric in (MetricName.PASS_AT_1, MetricName.USER)
        if own != (self.function is not None):
            raise ValueError("function goes with the metrics pass_at_1 and user")
        if self.labels and self.metric not in (MetricName.ACCURACY, MetricName.MACRO_F1):
            raise ValueError("labels go with the metrics accuracy and macro_f1")
        if self.floor > 0.0 and self.layer is not Layer.TASK:
            raise ValueError("a floor is for task suites")
        if self.minimum_rate < 1.0 and not behavioural:
            raise ValueError("minimum_rate is for behavioural suites")
        if self.repeats > 1 and self.decode.temperature == 0:
            raise ValueError("repeats need a temperature above 0: greedy answers are all the same")
        return self


class Turn(BaseModel):
    """One turn of a chat."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["system", "user", "assistant"]
    content: str


class Item(BaseModel):
    """One line of ``items.jsonl``.

    Attributes:
        id: Id of the item, unique in the suite.
        input: Text of the prompt, or the turns of a chat.
        target: Right answer; its form depends on the metric.
        cluster_id: Id of the item's cluster; items of one cluster are not independent of each
            other.
        slice: Name of the slice, for breaking results down.
        source_ts: Time at which it was seen in traffic; ISO 8601.
        must_pass: Whether the gate fails when the candidate does not get this one right.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1, max_length=200)
    input: str | tuple[Turn, ...]
    target: Any = None
    cluster_id: str | None = None
    slice: str | None = None
    source_ts: str | None = None
    must_pass: bool = False


class Suite(BaseModel):
    """Settings and items, as read and checked.

    Attributes:
        config: Content of ``suite.yaml``.
        items: Items in the order of the file.
        digest: sha256 over settings, items and code, as the lock has it, lower-case hex.
        code: sha256 of the file with its function where that lies in the suite's folder; what it
            imports is not covered.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: SuiteConfig
    items: tuple[Item, ...]
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    code: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
