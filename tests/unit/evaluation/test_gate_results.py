"""What the gate takes for results, what it refuses, and the document that it writes."""

import pickle
import re

import pytest
from gate_helpers import make_run, make_suite, right
from gate_judging import judge, only

from ztom.errors import EvaluationError
from ztom.evaluation.gate.decide import decide
from ztom.evaluation.gate.verdict import Outcome, Verdict

# What is refused


def _refused(suite, ours, theirs, match, suites=None):
    with pytest.raises(EvaluationError, match=match) as refused:
        decide(ours, theirs, suites or [suite])
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)


def test_results_that_do_not_belong_together_are_refused():
    suite, changed = make_suite(), make_suite(digest="1")
    other = make_suite(name="other")
    ours, theirs = make_run(suite, right(100)), make_run(suite, right(100), "champion")
    _refused(suite, [ours], [make_run(changed, right(100), "champion")], "another version of it")
    _refused(suite, [make_run(changed, right(100))], [theirs], "another version of it")
    _refused(suite, [ours], [], "the champion are not those of the suites")
    _refused(suite, [], [theirs], "the candidate are not those of the suites")
    _refused(suite, [ours, make_run(other, right(100))], [theirs], "not those of the suites")
    _refused(suite, [ours, ours], [theirs], "several results on one suite")
    _refused(suite, [ours], [theirs], "two suites have the same name", suites=[suite, suite])
    mixed = [ours, make_run(other, right(100), "another")]
    _refused(suite, mixed, None, "of several models", suites=[suite, other])
    with pytest.raises(EvaluationError, match="there are no suites"):
        decide([], None, [])


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("engine", "torch", "engine fake and torch"),
        ("version", "2", "version 1 and 2"),
        ("device", "cuda", "device cpu and cuda"),
        ("setup", "f" * 64, "setup usual and ffffffffffff$"),
    ],
)
def test_results_that_were_obtained_in_different_ways_are_refused(field, value, told):
    suite = make_suite()
    ours, theirs = make_run(suite, right(100)), make_run(suite, right(100), "champion")
    conditions = theirs.conditions.model_copy(update={field: value})
    other = theirs.model_copy(update={"conditions": conditions})
    with pytest.raises(EvaluationError, match="of the champion were obtained in") as e:
        decide([ours], [other], [suite])
    assert re.search(told, str(e.value.got))
    assert "Run both the same way" in str(e.value)
    with pytest.raises(EvaluationError, match="candidate and of the base were obtained in"):
        decide([ours], [theirs], [suite], base=[other])


def test_items_missing_on_one_side_or_in_another_order_are_refused():
    suite = make_suite()
    ours, theirs = make_run(suite, right(100)), make_run(suite, right(100), "champion")
    for items in (theirs.items[1:], theirs.items[::-1], (*theirs.items, theirs.items[0])):
        _refused(suite, [ours], [theirs.model_copy(update={"items": items})], "not of its items")


def test_duplicate_ids_are_refused():
    suite = make_suite(40, ids=["a", *[f"b{i}" for i in range(38)], "a"])
    _refused(suite, [make_run(suite, right(40))], None, "ids are not unique")


def test_results_without_what_the_metric_needs_are_refused():
    suite = make_suite(layer="task", metric="span_f1")
    _refused(suite, [make_run(suite, right(100))], None, "lack what span_f1 is computed from")
    probes = make_suite(layer="behavioural", repeats=5)
    run = make_run(probes, right(100))
    items = tuple(item.model_copy(update={"repeats": 4}) for item in run.items)
    _refused(probes, [run.model_copy(update={"items": items})], None, "another number of repeats")


# The document


def test_slices_are_reported():
    suite = make_suite(100, slices=["b", "a"] * 50, margin=0.1)
    found = only(judge(suite, right(100, wrong=range(1)), right(100)))
    assert [(each.name, each.n, each.worse) for each in found.slices] == [
        ("a", 50, 0),
        ("b", 50, 1),
    ]
    assert (found.slices[1].candidate, found.slices[1].champion) == (0.98, 1.0)


def test_other_metrics_are_measured_and_compared():
    n = 60
    classes = [(i % 3, i % 3 if i > 5 else -1) for i in range(n)]
    spans = [(0.0, 0.0) if i < 5 else (2.0, 2.0 + (i % 2)) for i in range(n)]
    graded = [0.5 + (i % 10) / 20 for i in range(n)]
    for metric, values, parts in (
        ("macro_f1", [float(a == b) for a, b in classes], classes),
        ("span_f1", [found / whole if whole else 1.0 for found, whole in spans], spans),
        ("rouge_l", graded, None),
    ):
        suite = make_suite(n, layer="task", metric=metric, margin=0.2)
        found = decide(
            [make_run(suite, values, parts=parts)],
            [make_run(suite, values, "champion", parts=parts)],
            [suite],
        )
        assert found.outcome is Outcome.PASS
        assert only(found).candidate.method == "bootstrap"
        assert only(found).difference.value == 0.0


def test_frozen_suites_of_graded_metrics_see_many_small_losses():
    suite = make_suite(100, metric="rouge_l", margin=0.05)
    champion = [0.5 + (i % 10) / 20 for i in range(100)]
    worse = [value - 0.02 * (i % 3) for i, value in enumerate(champion)]
    assert judge(suite, worse, champion).outcome is Outcome.FAIL
    assert judge(suite, champion, worse).outcome is Outcome.PASS


def test_the_document_is_the_same_bytes_again():
    suite = make_suite(
        80, layer="task", clusters=[f"c{i % 20}" for i in range(80)], slices=["x"] * 80, floor=0.5
    )
    probes = make_suite(30, layer="behavioural", name="probes")
    suites = [suite, probes]
    ours = [make_run(suite, right(80, wrong=range(9))), make_run(probes, right(30))]
    theirs = [make_run(each.model_copy(), right(len(each.items)), "champion") for each in suites]
    found = decide(ours, theirs, suites, seed=3, created="2026-01-01T00:00:00Z")
    raw = found.to_bytes()
    assert Verdict.from_bytes(raw) == found
    assert Verdict.from_bytes(raw).to_bytes() == raw
    again = decide(ours[::-1], theirs[::-1], suites[::-1], seed=3, created="2026-01-01T00:00:00Z")
    assert again.to_bytes() == raw
    assert (found.seed, sorted(found.versions)) == (3, ["numpy", "scipy", "ztom"])


def test_another_seed_moves_bounds_and_nothing_else():
    names = [f"c{i // 5}" for i in range(100)]
    suite = make_suite(100, layer="task", metric="rouge_l", margin=0.5, clusters=names)
    values = [0.3 + (i // 5 % 7) / 10 for i in range(100)]
    one, other = (judge(suite, values, values[::-1], seed=seed) for seed in (0, 1))
    assert one.outcome == other.outcome
    assert only(one).candidate.high != only(other).candidate.high
    assert only(one).candidate.high == pytest.approx(only(other).candidate.high, abs=0.01)
