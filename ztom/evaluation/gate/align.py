"""Results of several models on a suite, item by item side by side, or a refusal.

What does not belong together is never compared: another version of the suite, other items, results
of several models under one name, answers that were obtained in different ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ztom.errors import EvaluationError
from ztom.evaluation.runs.results import ItemResult, ModelRef, SuiteRun, ref_of
from ztom.evaluation.suites.suite import Item, MetricName, Suite, SuiteConfig
from ztom.statistics.proportions import Floats
from ztom.statistics.scores import MacroF1Scores, RatioScores, Scores

Ints = NDArray[np.intp]

WITH_PARTS = (MetricName.MACRO_F1, MetricName.SPAN_F1)


def is_scored(result: ItemResult) -> bool:
    """Whether it has a value and no problem."""
    return result.value is not None and result.problem is None


@dataclass(frozen=True)
class Side:
    """What one model did on a suite.

    Attributes:
        model: Name and digest of the model.
        results: Results in the order of `Aligned.items`.
    """

    model: ModelRef
    results: tuple[ItemResult, ...]

    @cached_property
    def unscored(self) -> tuple[ItemResult, ...]:
        """What has no value, or a problem."""
        return tuple(result for result in self.results if not is_scored(result))

    @cached_property
    def empty(self) -> int:
        """Number of items on which an answer is empty."""
        return sum(any(not text.strip() for text in result.answers) for result in self.results)

    @cached_property
    def values(self) -> Floats:
        """One value per item; NaN for those without."""
        return np.array([r.value for r in self.results], dtype=np.float64)


@dataclass(frozen=True)
class Aligned:
    """A suite and what up to three models did on it.

    Attributes:
        suite: Suite with its settings.
        items: Items by id, so that nothing depends on the order of the file.
        candidate: Results of the model that may be shipped.
        champion: Results of the model that is shipped now.
        base: Results of a model that is shown for orientation and decides nothing.
    """

    suite: Suite
    items: tuple[Item, ...]
    candidate: Side
    champion: Side | None = None
    base: Side | None = None

    @cached_property
    def cluster_of(self) -> Ints:
        """Number of each item's cluster, shape (items,); see `clusters_of`."""
        return clusters_of(self.items)

    @property
    def slices(self) -> dict[str, Ints]:
        """Indices of the items of each slice, by name."""
        places: dict[str, list[int]] = {}
        for index, item in enumerate(self.items):
            if item.slice is not None:
                places.setdefault(item.slice, []).append(index)
        return {name: np.array(places[name], dtype=np.intp) for name in sorted(places)}


def align(
    suites: Sequence[Suite],
    candidate: Sequence[SuiteRun],
    champion: Sequence[SuiteRun] | None,
    base: Sequence[SuiteRun] | None,
) -> tuple[Aligned, ...]:
    """Put results side by side, suites by name.

    Raises:
        EvaluationError: They do not belong together.
    """
    if not suites:
        raise EvaluationError("there are no suites to decide on", expected="at least one")
    by_name = {suite.config.name: suite for suite in suites}
    if len(by_name) != len(suites):
        raise EvaluationError("two suites have the same name", got=sorted(by_name))
    ours = _by_name(candidate, by_name, who="the candidate", all_of_them=True)
    compared = champion is not None
    theirs = _by_name(champion or (), by_name, who="the champion", all_of_them=compared)
    bases = _by_name(base or (), by_name, who="the base", all_of_them=False)
    return tuple(
        _align_suite(by_name[name], ours[name], theirs.get(name), bases.get(name))
        for name in sorted(by_name)
    )


def clusters_of(items: Sequence[Item]) -> Ints:
    """Number of each item's cluster, shape (items,); without one it is its own."""
    names = [
        ("item", item.id) if item.cluster_id is None else ("cluster", item.cluster_id)
        for item in items
    ]
    number = {name: index for index, name in enumerate(sorted(set(names)))}
    return np.array([number[name] for name in names], dtype=np.intp)


def effective_clusters(cluster_of: Ints) -> int:
    """Clusters of equal size that would say as much; see `ztom.statistics.resampling`."""
    return int(cluster_of.size**2 // np.square(np.bincount(cluster_of)).sum())


def scores(config: SuiteConfig, results: Sequence[ItemResult], cluster_of: Ints) -> Scores:
    """Errors of a model, by cluster where the metric allows it; every item has to be scored."""
    if config.metric is MetricName.MACRO_F1:
        expected, predicted = np.array([result.parts for result in results], dtype=np.int64).T
        classes = max(len(config.labels), int(expected.max()) + 1, int(predicted.max()) + 1)
        return MacroF1Scores(expected, predicted, classes)
    if config.metric is MetricName.SPAN_F1:
        part, whole = np.array([result.parts for result in results], dtype=np.float64).T
        missed = whole - part
    else:
        missed = np.array([1.0 - (result.value or 0.0) for result in results], dtype=np.float64)
        whole = np.ones_like(missed)
    return RatioScores(sums(cluster_of, missed), sums(cluster_of, whole))


def sums(cluster_of: Ints, values: Floats) -> Floats:
    """Sum of the values of each cluster, shape (clusters,)."""
    return np.bincount(cluster_of, values).astype(np.float64)


def _by_name(
    runs: Sequence[SuiteRun], suites: dict[str, Suite], *, who: str, all_of_them: bool
) -> dict[str, SuiteRun]:
    by_name = {run.suite.name: run for run in runs}
    if len(by_name) != len(runs):
        raise EvaluationError(f"{who} has several results on one suite", got=sorted(by_name))
    if len({run.model.digest for run in runs}) > 1:
        names = sorted({run.model.name for run in runs})
        raise EvaluationError(f"the results of {who} are of several models", got=names)
    missing = sorted(suites.keys() - by_name) if all_of_them else []
    if missing or by_name.keys() - suites.keys():
        raise EvaluationError(
            f"the results of {who} are not those of the suites",
            got=sorted(by_name),
            expected=sorted(suites),
            fix="Run every model on the same suites.",
        )
    return by_name


def _align_suite(
    suite: Suite, candidate: SuiteRun, champion: SuiteRun | None, base: SuiteRun | None
) -> Aligned:
    items = tuple(sorted(suite.items, key=lambda item: item.id))
    if len({item.id for item in items}) != len(items):
        twice = sorted({one.id for one, other in pairwise(items) if one.id == other.id})
        raise EvaluationError(f"suite {suite.config.name}: ids are not unique", got=twice[:3])
    for who, other in (("the champion", champion), ("the base", base)):
        if other is not None:
            _check_conditions(suite, candidate, other, who)
    return Aligned(
        suite=suite,
        items=items,
        candidate=_side(suite, candidate, "the candidate"),
        champion=None if champion is None else _side(suite, champion, "the champion"),
        base=None if base is None else _side(suite, base, "the base"),
    )


def _side(suite: Suite, run: SuiteRun, who: str) -> Side:
    subject = f"suite {suite.config.name}: the results of {who}"
    if run.suite != ref_of(suite):
        raise EvaluationError(
            f"{subject} are of another version of it",
            got=f"{run.suite.version}, digest {run.suite.digest[:12]}",
            expected=f"{suite.config.version}, digest {suite.digest[:12]}",
            fix="Run every model on the suite as it is now.",
        )
    _check_ids(
        [item.id for item in suite.items], [result.id for result in run.items], subject=subject
    )
    for result in run.items:
        _check_result(suite.config, result, subject=subject)
    return Side(run.model, tuple(sorted(run.items, key=lambda result: result.id)))


def _check_conditions(suite: Suite, candidate: SuiteRun, other: SuiteRun, who: str) -> None:
    """Refuse to compare what two ways of running models may have made."""
    ours, theirs = candidate.conditions.model_dump(), other.conditions.model_dump()
    different = [
        f"{name} {ours[name][:12]} and {theirs[name][:12]}"
        for name in ours
        if ours[name] != theirs[name]
    ]
    if different:
        raise EvaluationError(
            f"suite {suite.config.name}: the results of the candidate and of {who} were obtained "
            "in different ways",
            got="; ".join(different),
            expected="one engine, version, device and setup (dtype, chat template, length)",
            fix="Run both the same way, with the same options of `ztom eval` or `ztom gate`.",
        )


def _check_ids(expected: list[str], got: list[str], *, subject: str) -> None:
    if got == expected:
        return
    missing, unknown = sorted(set(expected) - set(got)), sorted(set(got) - set(expected))
    problem = f"missing {missing[:3]}, unknown {unknown[:3]}" if missing or unknown else "order"
    raise EvaluationError(
        f"{subject} are not of its items",
        got=f"{len(got)} results ({problem})",
        expected=f"{len(expected)}, one per item in the same order",
    )


def _check_result(config: SuiteConfig, result: ItemResult, *, subject: str) -> None:
    if result.repeats != config.repeats:
        raise EvaluationError(
            f"{subject} on item {result.id} have another number of repeats",
            got=result.repeats,
            expected=config.repeats,
        )
    if config.metric in WITH_PARTS and result.value is not None and len(result.parts) != 2:
        raise EvaluationError(
            f"{subject} on item {result.id} lack what {config.metric} is computed from",
            got=f"{len(result.parts)} parts",
            expected="2",
        )
