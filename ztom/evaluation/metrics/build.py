"""How answers are scored, from 0 to 1, higher is better; what targets may be is in
`ztom.evaluation.suites.targets`.

==============  ==================================================================================
exact_match     1 when the answer is the target, or one of them, white space and Unicode form aside
accuracy        1 when the right label is read from the answer: the answer is a label, case,
                punctuation and white space aside, or else its first line holds exactly one label.
                Where one label is part of another ("urgent", "not urgent") the longer one counts.
macro_f1        the same for one item; its parts are the classes, by position, -1 for no label
span_f1         2 * found / (given + wanted). The answer is a JSON list of spans, in a code fence or
                not, or else one span a line. Spans compare without regard to case and white space,
                each as often as it occurs; its parts are numerator and denominator
rouge_l         F1 of the longest common subsequence of words
similarity      cosine of sentence embeddings to six digits, 0 where it is negative
pass_at_1       the user's function says 1 or True (passed), or 0 or False
user            the user's function says a number from 0 to 1
checks          share of the repeats that pass every check (`ztom.evaluation.metrics.checks`)
another name    an entry point ``ztom.metrics``, called with the suite
==============  ==================================================================================

An answer that is empty or holds no label is an answer, and a wrong one, unless there are no spans
to find; checks and the user's function judge it themselves. What cannot be scored (a
target of the wrong form, a function that raises, a check that does not end) has no value but a
problem.

The user's function is called as error functions are (``function(prompts, answers, targets)``, one
item at a time, in a process of its own), but returns values: higher is better. A target that is no
text arrives as JSON.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from ztom.errors import EvaluationError
from ztom.evaluation.metrics.checks import check_forms
from ztom.evaluation.metrics.contained import OwnFunction, ProbeChecks
from ztom.evaluation.metrics.protocol import Case, Metric, Scored, stimulus_of
from ztom.evaluation.suites.suite import MetricName, Suite
from ztom.plugins import Group, build_plugin
from ztom.scoring.embedding_model import find_embedding_model
from ztom.scoring.similarity import SentenceSimilarity
from ztom.scoring.text import exact_match_error, rouge_l_error
from ztom.stimuli.prompts import fold, words
from ztom.stimuli.records import Output

_BULLET = re.compile(r"^\s*(?:[-*•]|\d{1,3}[.)])\s+")


def build_metric(suite: Suite, *, import_paths: Sequence[str] | None = None) -> Metric:
    """The metric of a suite, ready to score; what is wrong with it shows now, not after hours.

    Args:
        suite: Whole, for the labels.
        import_paths: Where the user's function is looked for; by default the working folder, then
            PYTHONPATH.

    Raises:
        ConfigError: The user's function cannot be imported, or the embedding model is missing.
        EvaluationError: A JSON schema is none, or targets are not labels.
    """
    config = suite.config
    match config.metric:
        case MetricName.EXACT_MATCH:
            return EachAlone(_exact_match)
        case MetricName.ROUGE_L:
            return EachAlone(_rouge_l)
        case MetricName.SPAN_F1:
            return EachAlone(_span_f1)
        case MetricName.ACCURACY | MetricName.MACRO_F1:
            return LabelMetric(suite)
        case MetricName.SIMILARITY:
            find_embedding_model()
            return Similarity()
        case MetricName.CHECKS:
            check_forms(config.checks)
            return ProbeChecks(config)
        case MetricName.PASS_AT_1 | MetricName.USER:
            return OwnFunction(config, import_paths=import_paths)
    metric: Metric = build_plugin(Group.METRICS, config.metric, suite, protocol=Metric)
    return metric


class _Plain:
    """A metric that starts nothing."""

    def close(self) -> None:
        """End nothing: there is no process."""


class EachAlone(_Plain):
    """A metric that needs nothing but the one item and its answer."""

    def __init__(self, score_one: Callable[[object, str], Scored]) -> None:
        self._score_one = score_one

    def score(self, cases: Sequence[Case]) -> list[Scored]:
        """One after the other."""
        return [self._score_one(case.item.target, case.answers[0]) for case in cases]


def _exact_match(target: object, answer: str) -> Scored:
    given: list[object] = target if isinstance(target, list) else [target]
    texts = [text for text in given if isinstance(text, str)]
    if not given or texts != given:
        return Scored(problem="the target is not text")
    return Scored(value=float(any(exact_match_error(answer, text) == 0.0 for text in texts)))


def _rouge_l(target: object, answer: str) -> Scored:
    if not isinstance(target, str):
        return Scored(problem="the target is not text")
    # It is symmetric, but its cost is quadratic in the length of the first.
    short, long = sorted((target, answer), key=len)
    return Scored(value=1.0 - rouge_l_error(short, long))


def _span_f1(target: object, answer: str) -> Scored:
    wanted = _spans(target)
    if wanted is None:
        return Scored(problem='the target is not a list of {"text": ..., "label": ...} or of texts')
    given = _given_spans(answer)
    twice_shared = 2 * sum((given & wanted).values())
    size = given.total() + wanted.total()
    return Scored(
        value=twice_shared / size if size else 1.0, parts=(float(twice_shared), float(size))
    )


def _spans(value: object) -> Counter[tuple[str, str]] | None:
    """Spans as (label, text), or None where ``value`` is not a list of them."""
    spans: Counter[tuple[str, str]] = Counter()
    if not isinstance(value, list):
        return None
    for span in value:
        text, label = (
            (span.get("text"), span.get("label")) if isinstance(span, dict) else (span, "")
        )
        if not isinstance(text, str) or not isinstance(label, str):
            return None
        spans[fold(label), fold(text)] += 1
    return spans


def _given_spans(answer: str) -> Counter[tuple[str, str]]:
    try:
        spans = _spans(json.loads(_unfenced(answer)))
    except (ValueError, RecursionError):
        spans = None
    if spans is not None:
        return spans
    lines = (fold(_BULLET.sub("", line)) for line in answer.splitlines())
    return Counter(("", line) for line in lines if line)


def _unfenced(answer: str) -> str:
    """What stands in the first code fence; the answer itself where there is none."""
    _, _, fenced = answer.partition("```")
    _, _, body = fenced.partition("\n")
    inside, fence, _ = body.partition("```")
    return inside if fence else answer


class LabelMetric(_Plain):
    """Accuracy and macro F1: the label is read from the answer; see the module.

    Raises:
        EvaluationError: There are no labels, or two read the same.
    """

    def __init__(self, suite: Suite) -> None:
        labels = suite.config.labels or tuple(sorted({str(item.target) for item in suite.items}))
        self._with_parts = suite.config.metric is MetricName.MACRO_F1
        self._places = {_key(label): place for place, label in enumerate(labels)}
        if not labels or len(self._places) != len(labels) or "" in self._places:
            raise EvaluationError(
                f"the labels of {suite.config.name} cannot be told apart in an answer",
                got=", ".join(labels) or "none",
            )
        longest_first = sorted(self._places, key=len, reverse=True)
        names = "|".join(re.escape(key) for key in longest_first)
        self._any_label = re.compile(rf"(?<!\S)(?:{names})(?!\S)")

    def score(self, cases: Sequence[Case]) -> list[Scored]:
        """1 for the right class, 0 for another or none."""
        return [self._score_one(case.item.target, case.answers[0]) for case in cases]

    def _score_one(self, target: object, answer: str) -> Scored:
        expected = self._places.get(_key(target)) if isinstance(target, str) else None
        if expected is None:
            return Scored(problem="the target is none of the labels")
        predicted = self._read(answer)
        parts = (float(expected), float(predicted)) if self._with_parts else ()
        return Scored(value=float(predicted == expected), parts=parts)

    def _read(self, answer: str) -> int:
        """Position of the label that the answer gives, -1 for none."""
        lines = answer.strip().splitlines() or [""]
        whole = self._places.get(_key(answer))
        if whole is not None:
            return whole
        labels = set(self._any_label.findall(_key(lines[0])))
        return self._places[labels.pop()] if len(labels) == 1 else -1


def _key(text: str) -> str:
    return " ".join(words(text))


class Similarity(_Plain):
    """Cosine similarity of sentence embeddings."""

    def __init__(self) -> None:
        self._error = SentenceSimilarity()

    def score(self, cases: Sequence[Case]) -> list[Scored]:
        """All in one go: an embedding differs in its last bits with what it is batched with."""
        texts = [case for case in cases if isinstance(case.item.target, str)]
        values = {}
        if texts:
            errors = self._error.score(
                [stimulus_of(case, str(case.item.target)) for case in texts],
                [Output(text=case.answers[0]) for case in texts],
            ).per_stimulus
            # The digits beyond differ with what a text is embedded beside.
            likeness = np.round(np.clip(1.0 - errors, 0.0, 1.0), 6).tolist()
            values = {
                case.item.id: value if case.answers[0].strip() else 0.0
                for case, value in zip(texts, likeness, strict=True)
            }
        return [
            Scored(value=values[case.item.id])
            if case.item.id in values
            else Scored(problem="the target is not text")
            for case in cases
        ]
