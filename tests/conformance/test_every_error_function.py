"""What every error function has to do: those that come with the package, and a user's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ztom.scoring.build import SOURCES, ErrorTerm, build_error
from ztom.scoring.protocol import ErrorFunction
from ztom.testing import ErrorFunctionConformance

LABELS = ("yes", "no", "maybe")
_EXAMPLES = ErrorFunctionConformance.examples


def terms() -> list[ErrorTerm]:
    """Every built-in one with every source that it has, the embeddings apart: they need a model."""
    return [
        ErrorTerm(function=name, source=source)
        for name, sources in SOURCES.items()
        if name not in ("sentence_similarity", "mse")
        for source in sources
    ]


def make(term: ErrorTerm) -> ErrorFunction:
    return build_error(term, labels=LABELS)


@pytest.mark.parametrize("term", terms(), ids=lambda term: f"{term.function}-{term.source}")
class TestBuiltIn(ErrorFunctionConformance):
    @pytest.fixture
    def error_function(self, term: ErrorTerm) -> ErrorFunction:
        return make(term)


@pytest.mark.parametrize("source", SOURCES["mse"])
class TestSquaredError(ErrorFunctionConformance):
    examples = tuple(
        (replace(stimulus, expected=f"{place}"), replace(output, text="1.5", values=(1.5,)))
        for place, (stimulus, output) in enumerate(_EXAMPLES)
    )

    @pytest.fixture
    def error_function(self, source: str) -> ErrorFunction:
        return make(ErrorTerm(function="mse", source=source))


class TestWeightedSum(ErrorFunctionConformance):
    @pytest.fixture
    def error_function(self) -> ErrorFunction:
        return build_error(["rouge_l", ErrorTerm(function="cross_entropy", weight=0.5)])


class TestUsersOwn(ErrorFunctionConformance):
    @pytest.fixture
    def error_function(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ErrorFunction:
        (tmp_path / "my_errors.py").write_text(
            "def length(prompts, outputs, expected):\n"
            "    return [abs(len(o) - len(e)) for o, e in zip(outputs, expected)]\n"
        )
        monkeypatch.chdir(tmp_path)
        return build_error("my_errors:length")
