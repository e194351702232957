"""What the gate decided, why, and on what: the document that is kept, shown and signed.

The same results give the same bytes: no clock, nothing unordered. Another kind of processor, or
other versions of the software, may change the last digits of what was resampled.

A verdict that contradicts itself is none: a pass rests on a finding of each of its suites, and on
items. One that does not may still be made up; who signed it says whether to believe it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ztom.evaluation.runs.results import ModelRef, SuiteRef
from ztom.io.signatures import Signature
from ztom.statistics.proportions import Estimate

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_FROZEN = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Outcome(StrEnum):
    """What a rule, a suite or the gate as a whole says."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


EXIT_CODES = {Outcome.PASS: 0, Outcome.FAIL: 1, Outcome.INCONCLUSIVE: 2}
#: Exit code of a gate that could not be asked at all.
HARNESS_ERROR = 3
#: What the signature of a verdict is over begins with it.
_DOMAIN = b"ztom verdict 1\n"
#: Bounds that are as good as reached.
_ROUNDING = 1e-9


class GateRule(StrEnum):
    """What is looked at.

    ``floor``: the metric is high enough (task). ``difference``: the candidate is not worse than the
    champion by more than the margin (task). ``harm``: nothing broke (frozen). ``must_pass``: the
    items that have to be right. ``rates``: how often each probe passed (behavioural). ``scored``:
    every item has a value. ``enough``: there are enough items. ``champion``: there is one.
    """

    FLOOR = "floor"
    DIFFERENCE = "difference"
    HARM = "harm"
    MUST_PASS = "must_pass"
    RATES = "rates"
    SCORED = "scored"
    ENOUGH = "enough"
    CHAMPION = "champion"


class Finding(BaseModel):
    """What one rule says about one suite.

    Attributes:
        rule: Rule of the gate.
        outcome: Outcome of the rule.
        reason: Reason in words.
        p_value: P-value of the test that can fail the suite, where there is one.
        p_adjusted: P-value after Holm's correction for all such tests of the gate.
        items_needed: Number of items, or of repeats of a probe, that would about decide it.
    """

    model_config = _FROZEN

    rule: GateRule
    outcome: Outcome
    reason: str
    p_value: float | None = Field(default=None, ge=0.0, le=1.0)
    p_adjusted: float | None = Field(default=None, ge=0.0, le=1.0)
    items_needed: int | None = Field(default=None, ge=1)


class Flip(BaseModel):
    """An item on which candidate and champion have different values."""

    model_config = _FROZEN

    id: str
    direction: Literal["worse", "better"]
    champion: float
    candidate: float


class ProbeRate(BaseModel):
    """How often a probe passed.

    Attributes:
        passed: Number of repeats that passed.
        rate: Share of the repeats that passed, with exact bounds.
        champion: Rate of the champion, 0 to 1.
    """

    model_config = _FROZEN

    id: str
    outcome: Outcome
    passed: int = Field(ge=0)
    repeats: int = Field(ge=1)
    rate: Estimate
    champion: float | None = None


class SliceResult(BaseModel):
    """A slice's figures. Reported, never tested: there are too many of them."""

    model_config = _FROZEN

    name: str
    n: int = Field(ge=1)
    candidate: float
    champion: float | None = None
    worse: int | None = None
    better: int | None = None


class SuiteVerdict(BaseModel):
    """What the gate says about one suite.

    Estimates are None where an item of that model could not be scored, and for behavioural suites.

    Attributes:
        suite: Suite that the model's results are of, exactly this one.
        outcome: The worst of the findings.
        findings: Findings of the suite's rules.
        alpha: Level of each one-sided test and bound.
        floor: Floor of the suite, in units of the metric; 0 is none.
        margin: Margin of the suite, in units of the metric.
        n: Number of items.
        clusters: Number of independent clusters of items.
        candidate: The candidate's metric.
        champion: The champion's metric.
        base: The base's metric.
        difference: Candidate minus champion.
        worse: Items on which the candidate has the lower value (McNemar's b for right and wrong).
        better: Items on which it has the higher value (c).
        unscored: Items without a value, by model.
        empty: Items with an empty answer, by model; empty answers are scored like any other.
        must_pass_failures: Ids of items that have to be right and are not.
        rates: Rate of each probe (behavioural).
        flipped: Items that changed, by id.
        slices: Results of the slices, by name.
    """

    model_config = _FROZEN

    suite: SuiteRef
    outcome: Outcome
    findings: tuple[Finding, ...]
    alpha: float
    floor: float
    margin: float
    n: int = Field(ge=0)
    clusters: int = Field(ge=0)
    candidate: Estimate | None = None
    champion: Estimate | None = None
    base: Estimate | None = None
    difference: Estimate | None = None
    worse: int | None = None
    better: int | None = None
    unscored: dict[str, int] = {}
    empty: dict[str, int] = {}
    must_pass_failures: tuple[str, ...] = ()
    rates: tuple[ProbeRate, ...] = ()
    flipped: tuple[Flip, ...] = ()
    slices: tuple[SliceResult, ...] = ()

    @model_validator(mode="after")
    def _outcome_of_its_findings(self) -> Self:
        name, expected = self.suite.name, worst(tuple(item.outcome for item in self.findings))
        if self.outcome is not expected:
            raise ValueError(
                f"suite {name} contradicts itself: it says {self.outcome}, its findings "
                f"{expected if self.findings else 'nothing, as there are none'}"
            )
        return self

    def pass_problem(self, *, compared: bool) -> str | None:
        """What the figures say that no suite has which passed; None where there is nothing.

        Args:
            compared: Whether there is a champion, and it is another model.
        """
        if not 1 <= self.clusters <= self.n:
            return f"of {self.n} items in {self.clusters} clusters"
        if self.unscored or self.must_pass_failures:
            return "and names items that did not"
        rules = {item.rule for item in self.findings}
        low = None if self.candidate is None else self.candidate.low
        if GateRule.FLOOR in rules and low is not None and low < self.floor - _ROUNDING:
            return f"with a lower bound of {low:.4g} below the floor {self.floor:g}"
        tested = compared and GateRule.DIFFERENCE in rules
        low = None if self.difference is None or not tested else self.difference.low
        if low is not None and low < -self.margin - _ROUNDING:
            return f"with a difference of at least {low:.4g} below the margin {self.margin:g}"
        return None

    @property
    def items_needed(self) -> int | None:
        """The most that any rule needs; None where nothing is open, or nothing in sight decides."""
        return max((f.items_needed for f in self.findings if f.items_needed), default=None)


class Verdict(BaseModel):
    """What the gate decided.

    Attributes:
        format: Version of this document.
        outcome: Outcome of the gate, a pass only if every suite passed.
        reasons: Reasons in words, the deciding ones first.
        suites: Verdict on each suite, by name.
        candidate: The model that was judged.
        champion: The model it was compared with.
        base: The model shown for orientation.
        first: Whether the caller said that there is no champion yet.
        seed: Seed of every resampling and sign flip.
        versions: Versions of the software that computed this, by package.
        created: Time of the decision, if the caller says so; ISO 8601.
        signature: Signature over all the rest; None where nobody has signed it.
    """

    model_config = _FROZEN

    format: Literal[1] = 1
    outcome: Outcome
    reasons: tuple[str, ...]
    suites: tuple[SuiteVerdict, ...]
    candidate: ModelRef
    champion: ModelRef | None = None
    base: ModelRef | None = None
    first: bool = False
    seed: int
    versions: dict[str, str]
    created: str | None = None
    signature: Signature | None = None

    @model_validator(mode="after")
    def _outcome_of_its_suites(self) -> Self:
        expected = worst(tuple(suite.outcome for suite in self.suites))
        if self.outcome is not expected:
            raise ValueError(
                f"the verdict contradicts itself: it says {self.outcome}, its suites {expected}"
            )
        champion = self.champion
        compared = champion is not None and champion.digest != self.candidate.digest
        for suite in self.suites:
            problem = suite.pass_problem(compared=compared)
            if suite.outcome is Outcome.PASS and problem is not None:
                raise ValueError(
                    f"suite {suite.suite.name} contradicts itself: it says pass, {problem}"
                )
        return self

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 2 inconclusive; `HARNESS_ERROR` is for those who got no verdict."""
        return EXIT_CODES[self.outcome]

    def to_bytes(self) -> bytes:
        """The document, the same bytes for the same content."""
        content = self.model_dump(mode="json")
        if self.signature is None:
            del content[
                "signature"
            ]  # the bytes, and so the name, that it had before there were any
        return (json.dumps(content, sort_keys=True, indent=1) + "\n").encode()

    def signed_bytes(self) -> bytes:
        """What the signature is over."""
        return _DOMAIN + self.model_copy(update={"signature": None}).to_bytes()

    def signed(self, key: Ed25519PrivateKey) -> Verdict:
        """The verdict with a signature, in place of the one that it may have."""
        return self.model_copy(update={"signature": Signature.of(self.signed_bytes(), key)})

    def signed_by(self) -> str | None:
        """Public key that has signed it, in Base64; None where nobody has.

        Raises:
            SignatureError: The signature is of something else.
        """
        if self.signature is None:
            return None
        self.signature.check(self.signed_bytes(), what="the verdict")
        return self.signature.public_key

    def _repr_html_(self) -> str:
        from ztom.pages.formats import number, signed
        from ztom.pages.notebook import NotebookTable, notebook_panel

        def shown(estimate: Estimate | None, form: Callable[[float], str] = number) -> str:
            return "-" if estimate is None else form(estimate.value)

        facts = {
            "candidate": f"{self.candidate.name}, {self.candidate.digest[:12]}",
            "champion": "-" if self.champion is None else self.champion.name,
            "reasons": "; ".join(self.reasons),
        }
        rows = [
            (
                suite.suite.name,
                str(suite.n),
                shown(suite.candidate),
                shown(suite.champion),
                shown(suite.difference, signed),
                suite.outcome,
            )
            for suite in self.suites
        ]
        columns = ("suite", "items", "candidate", "champion", "difference", "outcome")
        return notebook_panel(f"gate: {self.outcome}", facts, NotebookTable(columns, rows))

    @classmethod
    def from_bytes(cls, raw: bytes) -> Verdict:
        """Read what `to_bytes` wrote."""
        return cls.model_validate_json(raw)


def worst(outcomes: tuple[Outcome, ...]) -> Outcome:
    """Fail if any fails, else inconclusive if any is or there is none, else pass."""
    if Outcome.FAIL in outcomes:
        return Outcome.FAIL
    if Outcome.INCONCLUSIVE in outcomes or not outcomes:
        return Outcome.INCONCLUSIVE
    return Outcome.PASS
