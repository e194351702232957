"""Which errors have derivatives by the model's weights, and what these are made of.

Cross-entropy, of tokens or of classes, and the squared error of output rows are smooth functions of
what the model computes; so is a weighted sum of them. Errors that read generated text, or only
which class is the most probable, change in steps: their derivative is zero nearly everywhere and
says nothing. Taking the derivatives is `ztom.engines.derivatives`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ztom.errors import ConfigError
from ztom.scoring.build import ErrorTerm, source_of

LossKind = Literal["tokens", "labels", "values"]

#: What each error function that has derivatives is called here, by name and source.
_SMOOTH: dict[tuple[str, str], LossKind] = {
    ("cross_entropy", "tokens"): "tokens",
    ("cross_entropy", "labels"): "labels",
    ("mse", "values"): "values",
}


@dataclass(frozen=True, slots=True)
class LossTerm:
    """One differentiable error in a weighted sum.

    Attributes:
        kind: ``tokens`` (negative log-likelihood per token of the expected output), ``labels``
            (that of the true label) or ``values`` (squared difference of the output row).
        weight: Factor of this term in the sum.
        labels: Class labels, for ``labels`` only.
    """

    kind: LossKind
    weight: float = 1.0
    labels: tuple[str, ...] = ()


def loss_terms(error: Sequence[ErrorTerm], labels: Sequence[str]) -> tuple[LossTerm, ...]:
    """The terms of an error as what derivatives are taken of.

    Args:
        error: Terms of the error, checked.
        labels: Class labels, where the task has them.

    Raises:
        ConfigError: A term has no derivative; names it.
    """
    return tuple(_loss_term(term, tuple(labels)) for term in error)


def _loss_term(term: ErrorTerm, labels: tuple[str, ...]) -> LossTerm:
    source = source_of(term, labels)
    kind = None if source is None else _SMOOTH.get((term.function, source))
    if kind is None:
        read = "" if source is None else f", which reads the answer's {source}"
        raise ConfigError(
            "the sampler gradient needs an error that has derivatives",
            got=f"{term.function}{read}",
            expected="cross_entropy, mse of output values (source: values), or a weighted sum of "
            "them",
            fix="Use another sampler (gp, cobyqa, cobyla, cmaes, tpe and random work with every "
            "error), or cross_entropy as the error.",
        )
    return LossTerm(kind, term.weight, labels if kind == "labels" else ())
