"""What classes of few items may hide, and how low that lets the bounds of a macro-F1 be."""

import itertools
import math

import numpy as np
import pytest
from gate_helpers import make_run, make_suite

from ztom.evaluation.gate.decide import decide
from ztom.evaluation.gate.verdict import Outcome
from ztom.statistics.rare_classes import Unseen
from ztom.statistics.scores import MacroF1Scores

ALPHA = 0.05


def unseen(losses, clusters) -> Unseen:
    return Unseen(0.9, np.array(losses, dtype=float), np.array(clusters, dtype=float))


def test_one_class_is_the_bound_of_a_mean() -> None:
    found = unseen([0.9], [50])
    assert found.low(ALPHA) == pytest.approx(0.9 * ALPHA ** (1 / 50))
    seen = 0.8 / 0.9
    assert found.times(0.8, ALPHA) == pytest.approx(math.log(ALPHA) / math.log(seen) / 50)


def test_classes_of_one_size_are_one_class() -> None:
    assert unseen([0.9 / 77] * 77, [13] * 77).low(ALPHA) == pytest.approx(
        unseen([0.9], [1001]).low(ALPHA)
    )


def test_a_class_of_one_item_may_be_lost_alone() -> None:
    found = unseen([0.225] * 4, [33, 33, 33, 1])
    assert found.low(ALPHA) == pytest.approx(0.9 - 0.95 * 0.225)


def test_no_truth_with_the_same_chance_is_lower() -> None:
    losses, clusters = np.array([0.3, 0.2, 0.4]), np.array([20.0, 2.0, 7.0])
    low = unseen(losses, clusters).low(ALPHA)
    lowest = math.inf
    for shares in itertools.product(np.linspace(0.0, 1.0, 201), repeat=2):
        # how the chance of alpha is divided among the three
        parts = np.array([shares[0], (1 - shares[0]) * shares[1], 0.0])
        parts[2] = 1.0 - parts.sum()
        seen = ALPHA ** (parts / clusters)
        lowest = min(lowest, 0.9 - float(losses @ (1.0 - seen)))
    assert low <= lowest + 1e-12
    assert low == pytest.approx(lowest, abs=1e-4)


@pytest.mark.parametrize("threshold", [0.85, 0.5, 0.1])
def test_so_many_times_the_clusters_reach_the_threshold(threshold: float) -> None:
    losses, clusters = np.array([0.3, 0.0, 0.2, 0.4]), np.array([20.0, 5.0, 2.0, 7.0])
    times = unseen(losses, clusters).times(threshold, ALPHA)
    assert unseen(losses, times * clusters).low(ALPHA) == pytest.approx(threshold)


def test_what_cannot_be_lost_needs_no_clusters() -> None:
    assert unseen([0.1, 0.2], [1, 1]).times(0.5, ALPHA) == 0.0
    assert unseen([0.0], [3]).low(ALPHA) == 0.9


@pytest.mark.parametrize("sizes", [(33, 33, 33, 1), (40, 5, 5), (10, 10), (60, 2, 2, 2)])
def test_items_given_to_a_rare_class_wrongly_are_covered(sizes: tuple[int, ...]) -> None:
    """Whatever class unseen items come from, and whatever class they are taken for."""
    n, classes = np.array(sizes, dtype=float), len(sizes)
    low = Unseen(1.0, np.full(classes, 1 / classes), n).low(ALPHA)
    for source, taken in itertools.permutations(range(classes), 2):
        hidden = n[source] * (1.0 - ALPHA ** (1.0 / n[source]))
        right = n.copy()
        right[source] -= hidden
        predicted = right.copy()
        predicted[taken] += hidden
        assert low <= (2.0 * right / (n + predicted)).mean() + 1e-12


def parts_of(sizes: list[int], wrong: list[int]) -> list[tuple[int, int]]:
    """Expected and predicted class of each item."""
    return [
        (label, -1 if i < missed else label)
        for label, (size, missed) in enumerate(zip(sizes, wrong, strict=True))
        for i in range(size)
    ]


def macro_f1(parts, champion=None, **settings):
    suite = make_suite(len(parts), layer="task", metric="macro_f1", **settings)

    def run(those, who):
        return make_run(suite, [float(a == b) for a, b in those], who, parts=those)

    theirs = None if champion is None else [run(champion, "champion")]
    return decide([run(parts, "candidate")], theirs, [suite], first=champion is None)


def test_a_class_of_one_right_item_proves_no_floor() -> None:
    found = macro_f1(parts_of([33, 33, 33, 1], [1, 1, 1, 0]), floor=0.9)
    assert found.outcome is Outcome.INCONCLUSIVE
    (suite,) = found.suites
    assert suite.candidate.value == pytest.approx(0.98846, abs=1e-5)
    assert suite.candidate.low < 0.8
    assert suite.findings[-1].items_needed > 500


def test_a_class_of_one_right_item_proves_no_difference() -> None:
    same = parts_of([33, 33, 33, 1], [0, 0, 0, 0])
    found = macro_f1(same, same, margin=0.1)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.suites[0].difference.low == pytest.approx(-0.95 / 4)
    assert found.suites[0].findings[-1].items_needed > 200


def test_many_classes_of_some_items_each_are_decided() -> None:
    same = parts_of([5] * 20, [0, 1] * 10)
    found = macro_f1(same, same, margin=0.05)
    assert found.outcome is Outcome.PASS
    assert found.suites[0].difference.low == pytest.approx(ALPHA ** (1 / 100) - 1.0)


def test_a_class_that_is_only_predicted_takes_nothing() -> None:
    parts = [(label % 3, 3 if label == 0 else label % 3) for label in range(90)]
    champion = [(label % 3, label % 3) for label in range(90)]
    found = macro_f1(parts, champion, margin=0.9, labels=["a", "b", "c", "d"])
    assert found.outcome is Outcome.PASS


def test_items_of_clusters_count_as_their_clusters_do() -> None:
    same = parts_of([30, 30], [0, 0])
    clusters = [f"c{i // 5}" for i in range(60)]
    found = macro_f1(same, same, margin=0.5, clusters=clusters)
    assert found.suites[0].difference.low == pytest.approx(ALPHA ** (1 / 12) - 1.0)


def test_parts_of_the_classes_add_up() -> None:
    generator = np.random.default_rng(0)
    scores = MacroF1Scores(generator.integers(4, size=50), generator.integers(-1, 4, size=50), 6)
    parts, most = scores.by_class()
    assert most == 1 / 4
    assert float(parts.sum()) == pytest.approx(1.0 - scores.aggregate()[0])
