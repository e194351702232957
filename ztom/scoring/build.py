"""Builds the error function that a configuration names.

A name (``cross_entropy``, or an entry point ``ztom.error_functions``, called with the class
labels), the user's own function (``package.module:function``), or a list of terms whose weighted
sum is the error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ztom.errors import ConfigError
from ztom.plugins import Group, build_plugin, check_name, is_import_path
from ztom.scoring.labels import ClassError
from ztom.scoring.likelihood import LabelCrossEntropy, TokenCrossEntropy
from ztom.scoring.protocol import ErrorFunction, Need, WarmsUp
from ztom.scoring.regression import SquaredError
from ztom.scoring.similarity import SentenceSimilarity
from ztom.scoring.text import TextError, exact_match_error, rouge_l_error, token_f1_error
from ztom.scoring.user_function import UserFunction
from ztom.scoring.user_process import Limits
from ztom.settings import Settings
from ztom.statistics.scores import Scores, WeightedScores
from ztom.stimuli.records import Output, Stimulus

Source = Literal["text", "tokens", "labels", "values"]

#: Where each built-in error function can read the model's answer; the first is the default, except
#: that ``labels`` is preferred where labels are given.
SOURCES: dict[str, tuple[Source, ...]] = {
    "accuracy": ("text", "labels"),
    "cross_entropy": ("tokens", "labels"),
    "exact_match": ("text",),
    "macro_f1": ("text", "labels"),
    "mse": ("values", "text"),
    "rouge_l": ("text",),
    "sentence_similarity": ("text",),
    "token_f1": ("text",),
}


class ErrorTerm(BaseModel):
    """One error function in a weighted sum.

    Options that do not apply to the function are refused, not ignored.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    function: str = Field(description="a name, or package.module:function for your own")
    weight: float = Field(default=1.0, gt=0.0, description="factor of this term in the sum")
    source: Source | None = Field(
        default=None, description="what of the model's answer is read; None takes the natural one"
    )
    device: str | None = Field(
        default=None, description="sentence_similarity: torch device of the embeddings (cpu)"
    )
    deadline_s: float = Field(
        default=60.0, gt=0.0, le=86_400.0, description="your own: seconds one call may take"
    )
    memory_gib: float = Field(
        default=8.0, gt=0.0, description="your own: memory it may allocate, in GiB"
    )
    pass_environment: tuple[str, ...] = Field(
        default=(), description="your own: environment variables it may see, e.g. an API key's"
    )
    network: bool | None = Field(
        default=None,
        description="your own: whether it may use the network; as a rule only where "
        "pass_environment names something",
    )
    reads: tuple[str, ...] = Field(
        default=(),
        description="your own: files and folders it may read besides what it is imported from",
    )


ErrorSpec = str | ErrorTerm | Sequence[str | ErrorTerm]


@dataclass(frozen=True)
class WeightedError:
    """A weighted sum of error functions.

    Attributes:
        parts: The error functions.
        weights: One positive weight per function.
    """

    parts: tuple[ErrorFunction, ...]
    weights: tuple[float, ...]

    @property
    def name(self) -> str:
        """The sum as it would be written."""
        terms = zip(self.weights, self.parts, strict=True)
        return " + ".join(f"{weight:g}*{part.name}" for weight, part in terms)

    @property
    def needs(self) -> frozenset[Need]:
        """Everything that any of the parts needs."""
        return frozenset().union(*(part.needs for part in self.parts))

    def warm_up(self) -> None:
        """Load what the parts need."""
        for part in self.parts:
            if isinstance(part, WarmsUp):
                part.warm_up()

    def score(self, stimuli: Sequence[Stimulus], outputs: Sequence[Output]) -> Scores:
        """Score with each part and add up.

        Raises:
            ScoringError: A part failed.
        """
        return WeightedScores(
            tuple(part.score(stimuli, outputs) for part in self.parts), self.weights
        )


def build_error(spec: ErrorSpec, *, labels: Sequence[str] = ()) -> ErrorFunction:
    """Build the error function that a configuration describes.

    A user's own function is imported once, in a process of its own, to see that it can be.

    Args:
        spec: A name, a term, or a list of them to be summed.
        labels: The class labels, where the task has them.

    Raises:
        ConfigError: Unknown name, an option that does not apply, or a function that cannot be
            imported.
    """
    terms = _terms_of(spec)
    check_error(terms, labels=labels)
    parts = tuple(_build_term(term, tuple(labels)) for term in terms)
    if len(terms) == 1 and terms[0].weight == 1.0:
        return parts[0]
    return WeightedError(parts, tuple(term.weight for term in terms))


def check_error(spec: ErrorSpec, *, labels: Sequence[str] = ()) -> None:
    """Check all of an error function that can be checked without importing anything.

    Args:
        spec: A name, a term, or a list of them to be summed.
        labels: The class labels, where the task has them.

    Raises:
        ConfigError: Unknown name, an option that does not apply, or labels that do not fit.
    """
    terms = _terms_of(spec)
    if not terms:
        raise ConfigError("no error function is named", expected="at least one")
    if len(set(labels)) != len(labels):
        raise ConfigError("a class label is given twice", got=len(labels), expected="all different")
    for term in terms:
        _check_term(term, tuple(labels))


def source_of(term: ErrorTerm, labels: Sequence[str]) -> Source | None:
    """What of the model's answer a built-in error function reads; None for any other function.

    Args:
        term: Term of an error that was checked.
        labels: Class labels, where the task has them.
    """
    return _source(term, tuple(labels)) if term.function in SOURCES else None


def check_own_functions(terms: Sequence[ErrorTerm]) -> None:
    """Import the user's own functions among the terms, each in a process that is ended again.

    Raises:
        ConfigError: One cannot be imported.
    """
    for term in terms:
        if is_import_path(term.function):
            _build_users_own(term)


def _terms_of(spec: ErrorSpec) -> list[ErrorTerm]:
    if isinstance(spec, (str, ErrorTerm)):
        spec = [spec]
    return [ErrorTerm(function=term) if isinstance(term, str) else term for term in spec]


def _check_term(term: ErrorTerm, labels: tuple[str, ...]) -> None:
    if is_import_path(term.function):
        _refuse(term, {"source", "device"})
        return
    check_name(Group.ERROR_FUNCTIONS, term.function, SOURCES)
    _refuse(term, {"deadline_s", "memory_gib", "pass_environment", "network", "reads"})
    if term.function not in SOURCES:
        _refuse(term, {"source", "device"})
        return
    if term.function != "sentence_similarity":
        _refuse(term, {"device"})
    _source(term, labels)


def _build_term(term: ErrorTerm, labels: tuple[str, ...]) -> ErrorFunction:
    if is_import_path(term.function):
        return _build_users_own(term)
    if term.function not in SOURCES:
        added: ErrorFunction = build_plugin(
            Group.ERROR_FUNCTIONS, term.function, labels, protocol=ErrorFunction
        )
        return added
    return _BUILDERS[term.function](term, _source(term, labels), labels)


def _source(term: ErrorTerm, labels: tuple[str, ...]) -> Source:
    possible = SOURCES[term.function]
    if term.source is None:
        return "labels" if labels and "labels" in possible else possible[0]
    if term.source not in possible:
        raise ConfigError(
            f"error function {term.function}: source", got=term.source, expected=", ".join(possible)
        )
    if term.source == "labels" and not labels:
        raise ConfigError(
            f"error function {term.function} reads labels, and none are given",
            fix="Name the class labels (labels: [...]).",
        )
    return term.source


def _build_users_own(term: ErrorTerm) -> ErrorFunction:
    settings = Settings()
    may_call = bool(term.pass_environment) if term.network is None else term.network
    function = UserFunction(
        term.function,
        deadline_s=term.deadline_s,
        limits=Limits(
            memory_bytes=int(term.memory_gib * 2**30),
            network=settings.function_network or may_call,
            reads=(*settings.function_reads, *term.reads),
        ),
        pass_environment=term.pass_environment,
    )
    function.check()
    return function


def _refuse(term: ErrorTerm, options: set[str]) -> None:
    given = sorted(options & term.model_fields_set)
    if given:
        raise ConfigError(
            f"error function {term.function} does not take {', '.join(given)}", fix="Remove it."
        )


_Builder = Callable[[ErrorTerm, Source, tuple[str, ...]], ErrorFunction]
_BUILDERS: dict[str, _Builder] = {
    "accuracy": lambda term, source, labels: ClassError("accuracy", labels, source == "text"),
    "cross_entropy": lambda term, source, labels: (
        LabelCrossEntropy(labels) if source == "labels" else TokenCrossEntropy()
    ),
    "exact_match": lambda term, source, labels: TextError("exact_match", exact_match_error),
    "macro_f1": lambda term, source, labels: ClassError("macro_f1", labels, source == "text"),
    "mse": lambda term, source, labels: SquaredError(from_text=source == "text"),
    "rouge_l": lambda term, source, labels: TextError("rouge_l", rouge_l_error),
    "sentence_similarity": lambda term, source, labels: SentenceSimilarity(
        device=term.device or "cpu"
    ),
    "token_f1": lambda term, source, labels: TextError("token_f1", token_f1_error),
}
