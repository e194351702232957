"""The gate's statistics against what other libraries said; see make_gate_statistics.py."""

import json
from pathlib import Path

import numpy as np
import pytest
from gate_helpers import make_run, make_suite

from ztom.evaluation.gate.align import align
from ztom.evaluation.gate.measure import measure
from ztom.evaluation.metrics.build import build_metric
from ztom.evaluation.metrics.protocol import Case
from ztom.statistics.planning import items_needed, items_needed_paired
from ztom.statistics.proportions import (
    PairedDifference,
    Proportion,
    holm,
    mcnemar,
    sign_flip,
)

GOLDEN = json.loads(Path(__file__).with_name("gate_statistics.json").read_text())


@pytest.mark.parametrize("case", GOLDEN["proportions"], ids=str)
def test_bounds_and_test_of_a_proportion(case):
    share = Proportion(case["right"], case["n"])
    found = share.estimate(case["alpha"])
    assert (found.low, found.high) == pytest.approx((case["low"], case["high"]), abs=1e-9)
    assert share.p_below(0.7) == pytest.approx(case["p_below_0.7"], abs=1e-12)


@pytest.mark.parametrize("case", GOLDEN["mcnemar"], ids=str)
def test_mcnemar(case):
    p = mcnemar(case["losses"], case["gains"])
    assert p == pytest.approx(case["p"], abs=1e-12)
    if case["losses"] > case["gains"]:
        assert 2 * p == pytest.approx(case["two_sided"], abs=1e-12)


@pytest.mark.parametrize("case", GOLDEN["mcnemar"], ids=str)
def test_mcnemar_is_a_sign_flip_of_single_items(case):
    changes = np.repeat([-1.0, 1.0, 0.0], [case["losses"], case["gains"], 7])
    assert sign_flip(changes, seed=0) == pytest.approx(case["p"], abs=1e-9)


@pytest.mark.parametrize("case", GOLDEN["paired"], ids=str)
def test_paired_difference(case):
    found = PairedDifference(case["losses"], case["gains"], case["n"])
    assert found.p_above(case["difference"]) == pytest.approx(case["p_above"], abs=1e-6)
    bounds = found.estimate(0.05)
    assert (bounds.low, bounds.high) == pytest.approx(case["bounds"], abs=1e-6)
    mirrored = PairedDifference(case["gains"], case["losses"], case["n"])
    assert mirrored.p_below(-case["difference"]) == pytest.approx(case["p_above"], abs=1e-6)


@pytest.mark.parametrize("case", GOLDEN["holm"], ids=str)
def test_holm(case):
    assert holm(case["p_values"]) == pytest.approx(case["adjusted"], abs=1e-12)


@pytest.mark.parametrize("case", GOLDEN["sign_flips"], ids=str)
def test_sign_flips_of_clusters(case):
    differences = np.array(case["differences"])
    whole = bool(np.all(differences == np.round(differences)))
    p = sign_flip(differences, seed=0)
    assert p == pytest.approx(case["p"], abs=1e-12 if whole else 0.015)


@pytest.mark.parametrize("case", GOLDEN["sample_sizes"], ids=str)
def test_items_needed(case):
    found = items_needed(
        case["gap"], spread=case["spread"], spread_at_threshold=case["null"], alpha=case["alpha"]
    )
    assert found == case["n"]


@pytest.mark.parametrize("case", GOLDEN["paired_sample_sizes"], ids=str)
def test_items_needed_for_a_difference(case):
    settings = {name: case[name] for name in ("discordance", "margin", "alpha")}
    assert items_needed_paired(case["difference"], **settings) == case["n"]


@pytest.mark.parametrize("case", GOLDEN["rouge_l"], ids=lambda case: case["answer"])
def test_rouge_l(case):
    suite = make_suite(1, layer="task", metric="rouge_l")
    item = suite.items[0].model_copy(update={"target": case["target"]})
    (scored,) = build_metric(suite).score([Case(item, "q", (case["answer"],))])
    assert scored.value == pytest.approx(case["value"], abs=1e-12)


def _measured(case):
    if case["what"] == "spans":
        suite = make_suite(len(case["parts"]), layer="task", metric="span_f1")
        values = [found / whole for found, whole in case["parts"]]
        runs = [make_run(suite, values, parts=case["parts"])]
    elif case["what"] == "classes":
        suite = make_suite(len(case["parts"]), layer="task", metric="macro_f1")
        values = [float(true == found) for true, found in case["parts"]]
        runs = [make_run(suite, values, parts=case["parts"])]
    else:
        names = [f"c{i:02}" for i, size in enumerate(case["size"]) for _ in range(size)]
        suite = make_suite(len(names), layer="task", clusters=names)
        runs = [
            make_run(
                suite,
                [
                    float(i < n)
                    for n, size in zip(case[who], case["size"], strict=True)
                    for i in range(size)
                ],
                who,
            )
            for who in ("candidate", "champion")
        ]
    (aligned,) = align([suite], runs[:1], runs[1:] or None, None)
    return measure(aligned, seed=0)


@pytest.mark.parametrize("case", GOLDEN["bootstraps"], ids=lambda case: case["what"])
def test_bounds_by_bootstrap(case):
    measured = _measured(case)
    pairs = [(measured.candidate, case["candidate_bounds"])]
    if measured.compared:
        pairs.append((measured.compared.difference, case["difference_bounds"]))
    for quantity, (low, high) in pairs:
        assert quantity.percentiles(0.05) == pytest.approx((low, high), abs=0.05 * (high - low))
        found = quantity.estimate(0.05)
        unseen = case["seen"] * quantity.value + (1.0 - case["seen"]) * quantity.worst
        assert found.low <= min(unseen + 1e-12, quantity.percentiles(0.05)[0])
        assert found.high >= quantity.percentiles(0.05)[1]
        assert found.high - found.low < 1.25 * (high - min(low, unseen))
    if "value" in case:
        assert measured.candidate.value == pytest.approx(case["value"], abs=1e-12)
