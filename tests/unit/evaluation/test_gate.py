"""The gate's rules, one after the other."""

import numpy as np
import pytest
from gate_helpers import make_run, make_suite, model, right
from gate_judging import finding, judge, only
from scipy import stats

from ztom.errors import EvaluationError
from ztom.evaluation.gate.align import align
from ztom.evaluation.gate.decide import decide
from ztom.evaluation.gate.measure import measure
from ztom.evaluation.gate.verdict import GateRule, Outcome
from ztom.statistics.proportions import (
    Proportion,
)

# Task suites


def test_a_task_passes_above_its_floor_and_no_worse_than_the_champion():
    suite = make_suite(1000, layer="task", floor=0.9)
    found = judge(suite, right(1000, wrong=range(50)), right(1000, wrong=range(48)))
    assert (found.outcome, found.exit_code) == (Outcome.PASS, 0)
    assert found.reasons == ("passed by every suite: suite",)
    assert only(found).candidate.value == 0.95
    assert only(found).candidate.low < 0.95 < only(found).candidate.high
    assert (only(found).worse, only(found).better) == (2, 0)


def test_a_share_above_the_floor_by_chance_only_is_open_and_says_what_it_takes():
    suite = make_suite(100, layer="task", floor=0.7)
    found = judge(suite, right(100, wrong=range(28)), first=True)
    assert (found.outcome, found.exit_code) == (Outcome.INCONCLUSIVE, 2)
    needed = finding(found, GateRule.FLOOR).items_needed
    assert needed == only(found).items_needed > 3000
    assert f"about {needed:,} items would decide it" in found.reasons[0]


def test_a_share_below_the_floor_fails():
    suite = make_suite(100, layer="task", floor=0.7)
    found = judge(suite, right(100, wrong=range(50)), first=True)
    assert (found.outcome, found.exit_code) == (Outcome.FAIL, 1)
    assert "its floor is 0.7: too low" in found.reasons[0]


def test_at_the_floor_few_pass():
    """A bare threshold would pass 38 % of models that are right in 68 %."""
    n, chances = 100, {0.68: 0.0, 0.7: 0.0}
    suite = make_suite(n, layer="task", floor=0.7)
    for wrong in range(10, 40):
        if judge(suite, right(n, wrong=range(wrong)), first=True).outcome is Outcome.PASS:
            for share in chances:
                chances[share] += stats.binom.pmf(n - wrong, n, share)
    assert chances[0.68] < 0.02
    assert chances[0.7] < 0.05
    assert stats.binom.sf(69, n, 0.68) == pytest.approx(0.38, abs=0.01)


def test_a_large_drop_fails_a_task_and_a_possible_one_is_open():
    suite = make_suite(1000, layer="task", margin=0.02)
    champion = right(1000)
    assert judge(suite, right(1000, wrong=range(60)), champion).outcome is Outcome.FAIL
    found = judge(suite, right(1000, wrong=range(15)), champion)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert finding(found, GateRule.DIFFERENCE).items_needed > 1000


def test_a_task_without_floor_is_only_compared():
    found = judge(make_suite(500, layer="task"), right(500), right(500))
    assert [each.rule for each in only(found).findings] == [GateRule.DIFFERENCE]


# Frozen suites


def test_a_frozen_suite_fails_on_harm_and_passes_on_chance():
    suite = make_suite(200)
    champion = right(200, wrong=range(190, 200))
    swapped = right(200, wrong=range(5))  # 5 lost, 10 gained
    assert judge(suite, swapped, champion).outcome is Outcome.PASS
    harmed = right(200, wrong=range(20))  # 20 lost, 10 gained
    found = judge(suite, harmed, champion)
    assert found.outcome is Outcome.FAIL
    test = finding(found, GateRule.HARM)
    assert test.p_value == pytest.approx(stats.binomtest(20, 30, 0.5, "greater").pvalue)
    assert test.p_adjusted == test.p_value
    flips = {flip.id: flip.direction for flip in only(found).flipped}
    assert (flips["i0000"], flips["i0199"], len(flips)) == ("worse", "better", 30)


def test_a_frozen_suite_too_small_to_show_harm_does_not_pass_on_that():
    found = judge(make_suite(40), right(40, wrong=range(4)), right(40))
    assert found.outcome is Outcome.INCONCLUSIVE
    assert finding(found, GateRule.HARM).p_value > 0.05
    assert "more than the margin of 0.02, but open" in found.reasons[0]


def test_holm_over_suites_lets_chance_pass_where_one_suite_alone_would_fail():
    suites = [make_suite(1000, name=f"suite-{i}") for i in range(6)]
    champion, harmed = right(1000), right(1000, wrong=range(6))
    alone = judge(suites[0], harmed, champion)
    assert alone.outcome is Outcome.FAIL
    values = [harmed, *[champion] * 5]
    together = decide(
        [make_run(suite, each) for suite, each in zip(suites, values, strict=True)],
        [make_run(suite, champion, "champion") for suite in suites],
        suites,
    )
    test = together.suites[0].findings[0]
    assert (test.p_value, test.p_adjusted) == pytest.approx((2**-6, 6 * 2**-6))
    assert together.outcome is Outcome.PASS


def test_whole_clusters_are_flipped_where_they_repeat():
    """Twelve items broke, but all of one cluster: that is one event, not twelve."""
    names = [f"c{i // 12}" for i in range(600)]
    harmed = judge(
        make_suite(600, clusters=names, margin=0.05), right(600, wrong=range(12)), right(600)
    )
    assert finding(harmed, GateRule.HARM).p_value == 0.5
    assert harmed.outcome is Outcome.PASS
    assert only(harmed).clusters == 50
    single = judge(make_suite(600, margin=0.05), right(600, wrong=range(12)), right(600))
    assert single.outcome is Outcome.FAIL


# Must-pass items and probes


@pytest.mark.parametrize("layer", ["task", "frozen"])
def test_one_wrong_must_pass_item_fails(layer):
    suite = make_suite(100, layer=layer, must_pass=(7, 8))
    values = right(100, wrong=range(7, 8))
    found = judge(suite, values, values)
    assert found.outcome is Outcome.FAIL
    assert only(found).must_pass_failures == ("i0007",)
    assert found.reasons[0] == "suite: 1 of 2 items that must pass do not: i0007"


def test_must_pass_holds_for_too_few_items_too():
    found = judge(make_suite(3, must_pass=(0,)), [0.0, 1.0, 1.0], [0.0, 1.0, 1.0])
    assert found.outcome is Outcome.FAIL


def test_a_probe_that_flakes_fails_although_the_others_pass():
    suite = make_suite(40, layer="behavioural", repeats=10)
    found = judge(suite, [0.5, *right(39)], right(40))
    assert found.outcome is Outcome.FAIL
    rate = only(found).rates[0]
    assert (rate.passed, rate.repeats, rate.champion, rate.outcome) == (5, 10, 1.0, Outcome.FAIL)
    assert "1 of 40 probes passed in fewer than 1 of their repeats: i0000 (5 of 10)" in str(
        found.reasons
    )


def test_a_flake_of_a_half_hardly_ever_passes_ten_repeats():
    suite = make_suite(1, layer="behavioural", repeats=10, minimum_rate=0.9, minimum_n=1)
    passed = [n for n in range(11) if judge(suite, [n / 10], right(1)).outcome is Outcome.PASS]
    assert sum(stats.binom.pmf(n, 10, 0.5) for n in passed) < 0.02


def test_a_rate_that_may_be_low_by_chance_is_open_and_says_how_many_repeats():
    suite = make_suite(40, layer="behavioural", repeats=10, minimum_rate=0.9)
    found = judge(suite, [0.8, *right(39)], right(40))
    assert found.outcome is Outcome.INCONCLUSIVE
    assert finding(found, GateRule.RATES).items_needed > 10
    assert judge(suite, [1.0, *right(39)], right(40)).outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("passed", "repeats", "outcome"),
    [
        (10, 10, Outcome.PASS),  # all: no stricter than a minimum of 1
        (9, 10, Outcome.INCONCLUSIVE),  # the share that is asked for, and no proof of it
        (45, 45, Outcome.PASS),
        (44, 45, Outcome.INCONCLUSIVE),
        (45, 46, Outcome.PASS),
        (39, 50, Outcome.FAIL),
        (42, 50, Outcome.INCONCLUSIVE),
    ],
)
def test_a_rate_below_one_is_shown(passed, repeats, outcome):
    suite = make_suite(40, layer="behavioural", repeats=repeats, minimum_rate=0.9)
    found = judge(suite, [passed / repeats, *right(39)], right(40))
    assert found.outcome is outcome
    words = {Outcome.INCONCLUSIVE: "1 of 40 probes are not shown to pass in at least 0.9 of their"}
    assert words.get(outcome, "") in str(found.reasons)


@pytest.mark.parametrize("repeats", [10, 60])
def test_a_probe_at_its_minimum_errs_as_often_as_is_said(repeats):
    suite = make_suite(1, layer="behavioural", repeats=repeats, minimum_rate=0.9, minimum_n=1)
    chances = stats.binom.pmf(np.arange(repeats + 1), repeats, 0.9)
    found = [judge(suite, [n / repeats], right(1)).outcome for n in range(repeats + 1)]
    passes, fails = (
        sum(chance for chance, each in zip(chances, found, strict=True) if each is kind)
        for kind in (Outcome.PASS, Outcome.FAIL)
    )
    assert passes <= max(0.05, 0.9**repeats) + 1e-12
    assert fails <= 0.05


# A champion, or none


def test_no_champion_is_open_unless_it_is_the_first():
    suite = make_suite(100, must_pass=(0,))
    absent = judge(suite, right(100))
    assert (absent.outcome, absent.champion) == (Outcome.INCONCLUSIVE, None)
    assert "no results of a champion" in absent.reasons[0]
    first = judge(suite, right(100), first=True)
    assert first.outcome is Outcome.PASS
    assert first.first
    assert "there is no champion yet" in first.reasons[-1]
    failed = judge(suite, right(100, wrong=range(1)), first=True)
    assert failed.outcome is Outcome.FAIL


def test_a_failure_needs_no_champion():
    suite = make_suite(100, layer="task", floor=0.9)
    assert judge(suite, right(100, wrong=range(50))).outcome is Outcome.FAIL


def test_first_and_a_champion_contradict_each_other():
    with pytest.raises(EvaluationError, match="this is to be the first"):
        judge(make_suite(), right(100), right(100), first=True)


@pytest.mark.parametrize("layer", ["task", "frozen"])
def test_a_candidate_that_is_the_champion_passes_whatever_sampling_did(layer):
    suite = make_suite(40, layer=layer, margin=0.0)
    run = make_run(suite, right(40), "same")
    other = make_run(suite, right(40, wrong=range(10)), "same")
    found = decide([other], [run], [suite])
    assert found.outcome is Outcome.PASS
    assert "same digest" in only(found).findings[0].reason
    assert len(only(found).flipped) == 10


def test_the_base_is_shown_and_decides_nothing():
    suite = make_suite(100, layer="task", margin=0.1)
    base = make_run(suite, [0.0] * 100, "base")
    found = decide(
        [make_run(suite, right(100))],
        [make_run(suite, right(100), "champion")],
        [suite],
        base=[base],
    )
    assert (found.outcome, only(found).base.value) == (Outcome.PASS, 0.0)
    assert found.base == model("base")
    graded = make_run(suite, [0.3] * 100, "base")
    again = decide([make_run(suite, right(100))], None, [suite], base=[graded])
    assert only(again).candidate == only(found).candidate
    broken = make_run(suite, [None] * 100, "base")
    found = decide(
        [make_run(suite, right(100))],
        [make_run(suite, right(100), "champion")],
        [suite],
        base=[broken],
    )
    assert (found.outcome, only(found).base) == (Outcome.PASS, None)


# Missing data


@pytest.mark.parametrize("layer", ["task", "frozen", "behavioural"])
@pytest.mark.parametrize("who", ["candidate", "champion"])
def test_an_item_without_a_score_is_never_a_pass(layer, who):
    suite = make_suite(200, layer=layer, margin=0.1)
    values = {"candidate": right(200), "champion": right(200)}
    assert judge(suite, **values).outcome is Outcome.PASS
    values[who][5] = None
    found = judge(suite, **values)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert only(found).unscored == {who: 1}
    assert f"1 of 200 items have no score with the {who} (i0005: the engine died)" in str(
        found.reasons
    )
    assert only(found).candidate is None


def test_a_problem_beats_a_value():
    suite = make_suite(100)
    run = make_run(suite, right(100))
    items = (run.items[0].model_copy(update={"problem": "cut off"}), *run.items[1:])
    found = decide(
        [run.model_copy(update={"items": items})], [make_run(suite, right(100), "c")], [suite]
    )
    assert found.outcome is Outcome.INCONCLUSIVE


def test_empty_answers_are_told_whatever_they_score():
    suite = make_suite(40, layer="behavioural")
    run = make_run(suite, right(40))
    items = [item.model_copy(update={"answers": ("fine",)}) for item in run.items]
    items[3] = items[3].model_copy(update={"answers": (" \n",)})
    ours = run.model_copy(update={"items": tuple(items)})
    found = decide([ours], [make_run(suite, right(40), "champion")], [suite])
    assert (found.outcome, only(found).empty) == (Outcome.PASS, {"candidate": 1})
    assert found.reasons[-1] == "suite: 1 of 40 items have an empty answer from the candidate"


def test_what_fails_already_fails_without_the_missing_items():
    suite = make_suite(100, must_pass=(0,))
    assert judge(suite, [0.0, None, *right(98)], right(100)).outcome is Outcome.FAIL
    probes = make_suite(40, layer="behavioural", repeats=10)
    assert judge(probes, [0.5, None, *right(38)], right(40)).outcome is Outcome.FAIL


@pytest.mark.parametrize("layer", ["task", "frozen", "behavioural"])
@pytest.mark.parametrize("n", [0, 1, 29])
def test_too_few_items_decide_nothing(layer, n):
    found = judge(make_suite(n, layer=layer, floor=0.0), right(n), right(n))
    assert found.outcome is Outcome.INCONCLUSIVE
    assert finding(found, GateRule.ENOUGH).items_needed == 30


def test_too_few_clusters_decide_nothing():
    suite = make_suite(40, layer="task", clusters=[f"c{i % 4}" for i in range(40)])
    found = judge(suite, right(40), right(40))
    assert "4 independent clusters: fewer than 5 decide nothing" in found.reasons[0]
    assert finding(found, GateRule.ENOUGH).items_needed == 50


def test_all_right_in_few_clusters_is_not_certain():
    """Every resample of 30 right clusters is right; one wrong kind in ten may still be unseen."""
    suite = make_suite(300, layer="task", floor=0.95, clusters=[f"c{i % 30}" for i in range(300)])
    found = judge(suite, right(300), first=True)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert only(found).candidate.low == pytest.approx(0.05 ** (1 / 30))


def test_a_wrong_item_in_a_cluster_raises_no_bound():
    suite = make_suite(
        1000, layer="task", floor=0.97, clusters=[f"c{i // 20}" for i in range(1000)]
    )
    lows = [
        only(judge(suite, right(1000, wrong=range(wrong)), first=True)).candidate.low
        for wrong in range(3)
    ]
    assert lows == sorted(lows, reverse=True)
    assert lows[0] == pytest.approx(0.05 ** (1 / 50))


def test_one_cluster_of_nearly_all_items_is_hardly_more_than_one():
    names = ["all of them"] * 950 + [f"c{i}" for i in range(50)]
    suite = make_suite(1000, layer="task", floor=0.5, clusters=names)
    found = judge(suite, right(1000, wrong=range(40)), first=True)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert only(found).clusters == 51


@pytest.mark.parametrize("score", [0.1, 0.3, 0.5, 0.7])
def test_grades_that_are_all_the_same_are_no_proof(score):
    suite = make_suite(30, layer="task", metric="rouge_l", floor=score - 0.01, margin=0.02)
    for ours in ([score] * 30, [score + 1e-6] + [score] * 29):
        found = judge(suite, ours, [score] * 30)
        assert found.outcome is Outcome.INCONCLUSIVE
        assert only(found).candidate.low < 0.85 * score
        assert only(found).difference.low == pytest.approx(0.05 ** (1 / 30) - 1, abs=1e-5)


def test_bounds_of_resamples_are_where_their_tests_turn():
    suite = make_suite(
        200, layer="task", metric="rouge_l", clusters=[f"{i // 4}" for i in range(200)]
    )
    rng = np.random.default_rng(0)
    runs = [make_run(suite, rng.random(200).tolist(), who) for who in ("candidate", "champion")]
    measured = measure(*align([suite], runs[:1], runs[1:], None), seed=0)
    for quantity in (measured.candidate, measured.compared.difference):
        assert quantity.p_below(quantity.estimate(0.05).high) == pytest.approx(0.05, abs=0.005)


def test_as_many_clusters_as_are_said_to_be_needed_decide():
    def all_right(n):
        names = [f"c{i // 10}" for i in range(n)]
        suite = make_suite(n, layer="task", floor=0.95, margin=0.05, clusters=names)
        return judge(suite, right(n), right(n))

    found = all_right(300)
    needed = {each.items_needed for each in only(found).findings}
    assert (found.outcome, needed) == (Outcome.INCONCLUSIVE, {590})
    assert all_right(590).outcome is Outcome.PASS


def test_what_is_too_low_on_its_own_only_says_so_and_needs_more_items():
    n, values = 100, {"low": right(100, wrong=range(39)), "fine": right(100)}
    suites = [make_suite(n, name=name, layer="task", floor=0.7) for name in ("low", "fine")]
    runs = [make_run(suite, values[suite.config.name]) for suite in suites]
    alone = judge(suites[0], values["low"], first=True)
    assert alone.outcome is Outcome.FAIL
    found = decide(runs, None, suites, first=True)
    assert found.outcome is Outcome.INCONCLUSIVE
    (test,) = [f for f in found.suites[1].findings if f.rule is GateRule.FLOOR]
    assert "too low on its own, open as one of several tests" in test.reason
    share = Proportion(61, n)
    assert share.needed(0.7, 0.05) < test.items_needed == share.needed(0.7, 0.025)
