"""The report: one whole file, whatever the search came to and whatever the texts hold."""

import re

import pytest
from html_page import Page
from search_results import make_change, make_existing, make_proof, make_result, make_trials

from tune_search.command import summary
from ztom.pages import formats
from ztom.pages.svg import Scale, padded, tag
from ztom.scoring.proof import GuardrailResult, decide_proof
from ztom.search.existing import Standing
from ztom.search.report import charts
from ztom.search.report.advice import advise
from ztom.search.report.render import render_report
from ztom.search.result import DataFileEntry, GroupStep, SearchResult
from ztom.statistics.bootstrap import Interval

SECTIONS = {
    "proof",
    "numbers",
    "next",
    "factors",
    "convergence",
    "sensitivity",
    "stimuli",
    "guardrails",
    "precision",
    "trials",
    "provenance",
}
EVIL = "</script></pre></title><img src=x onerror=alert(1)>\"'<script>alert(2)</script>&amp;"


def _page(result: SearchResult) -> Page:
    """The parsed report, after the checks that hold for every one."""
    text = render_report(result)
    page = Page(text)
    assert set(page.ids) >= SECTIONS
    page.check()
    return page


@pytest.fixture(scope="module")
def whole() -> SearchResult:
    return make_result(proof=make_proof())


def test_a_proved_result_says_what_was_found(whole):
    page = _page(whole)
    assert "Improved On stimuli that the search never saw" in page.text
    assert "lower, by 2.72 %, on the holdout" in page.text
    assert "143 improved" in page.text
    assert "97 worsened" in page.text
    assert "runs/demo/variant-0f3a" in page.text
    assert "the budget of evaluations was used up" in page.text
    for digest in (whole.chain_digest, *whole.data_digests.values(), whole.proof.variant_digest):
        assert digest in page.text
    for trial in whole.trials:
        assert f"trial {trial.number}, {trial.kind}" in page.text


def test_what_was_left_out_of_the_data_stands_in_the_report_and_the_summary(whole):
    file = DataFileEntry(
        name="a.jsonl",
        container="JSON Lines",
        stimuli=40,
        forms={"chat turns": 40},
        left_out={"stimulus with a part of type image_url": 3},
        left_out_stimuli=3,
    )
    result = whole.model_copy(update={"data_files": (file,)})
    text = " ".join(_page(result).text.split())
    assert "JSON Lines, 40 stimuli: chat turns 40. Left out: stimulus with a part of" in text
    assert summary(result)[-1] == "left out of a.jsonl: stimulus with a part of type image_url (3)"
    assert "left out of" not in "\n".join(summary(whole))


def test_the_file_asks_for_nothing(whole):
    text = render_report(whole)
    assert "://" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert "default-src 'none'" in text


def test_the_same_result_gives_the_same_file(whole):
    copy = SearchResult.model_validate_json(whole.model_dump_json())
    assert render_report(copy) == render_report(whole)


def test_without_a_proof_the_report_says_so_plainly():
    page = _page(make_result(proof=None))
    assert "Not proved" in page.text
    assert "is not known" in page.text
    assert "no holdout was answered" in page.text
    assert "Prove it on a holdout." in page.text


def test_markup_in_every_text_stays_text():
    proof = make_proof()
    change = make_change(1, 3.0, 2.0).model_copy(
        update=dict.fromkeys(("id", "prompt", "expected", "before", "after"), EVIL)
    )
    worse = change.model_copy(update={"error_before": 1.0, "error_after": 2.0})
    increase = proof.decision.guardrails[0].increase
    rails = [GuardrailResult(name=EVIL, allowed_increase=0.05, increase=increase)]
    proof = proof.model_copy(
        update={
            "decision": decide_proof(proof.decision.improvement, rails, factors_are_zero=False),
            "changes": (change, worse),
            "warnings": (EVIL,),
            "variant": EVIL,
            "dtype": EVIL,
            "steps": (GroupStep(group=EVIL, realised=0.2, changed=0.1),),
            "realised": 0.2,
        }
    )
    result = make_result(proof=proof, factors=2)
    trials = [
        t.model_copy(
            update={
                "guardrails": {EVIL: 1.0} if t.error is not None else {},
                "reason": None if t.reason is None else EVIL,
                "seconds": {EVIL: 1.0},
            }
        )
        for t in result.trials
    ]
    sensitivity = [s.model_copy(update={"name": EVIL}) for s in result.sensitivity]
    page = _page(
        result.model_copy(
            update={
                "name": EVIL,
                "trials": tuple(trials),
                "sensitivity": tuple(sensitivity),
                "factor_names": (EVIL, "plain"),
                "versions": {EVIL: EVIL},
                "data_digests": {EVIL: EVIL},
                "chain_digest": EVIL,
                "stop_reason": EVIL,
                "seconds": {EVIL: 2.0, "total": 2.0},
            }
        )
    )
    assert page.text.count("<img src=x onerror=alert(1)>") > 20


def test_what_cannot_be_seen_is_written_out():
    proof = make_proof()
    hidden = make_change(1, 3.0, 2.0).model_copy(
        update={"prompt": "a\x00b\x1b[31m\u202egnp.exe", "after": "\nfirst\r\nsecond \ud800"}
    )
    text = render_report(make_result(proof=proof.model_copy(update={"changes": (hidden,)})))
    assert "a␀b␛[31m⟨U+202E⟩gnp.exe" in text
    assert "<pre>\n\nfirst␍\nsecond ⟨U+D800⟩</pre>" in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)


def test_a_long_text_is_cut_with_a_note():
    long = make_change(1, 3.0, 2.0).model_copy(update={"before": "word " * 100_000})
    proof = make_proof().model_copy(update={"changes": (long,)})
    text = render_report(make_result(proof=proof))
    assert "cut: the first 2,000 of 500,000 characters are shown" in text
    assert len(text) < 200_000


def test_an_answer_without_text_says_why():
    silent = make_change(1, 3.0, 2.0).model_copy(update={"before": None, "after": None})
    proof = make_proof().model_copy(update={"changes": (silent,)})
    page = _page(make_result(proof=proof))
    assert page.text.count("the error was computed from likelihoods") == 2


def test_a_search_of_hundreds_of_factors_and_trials_is_still_a_page():
    result = make_result(factors=100, trials=1_000, proof=make_proof(guardrails=False))
    page = _page(result)
    assert "88 more factors, with smaller effects" in page.text
    assert len(re.findall(r" 100 factors [+−0]", page.text)) == 1_000
    assert len([c for c in page.charts if c["class"] == "bar"]) >= 100


@pytest.mark.parametrize("with_sensitivity", [True, False])
def test_one_factor_and_few_trials(with_sensitivity):
    page = _page(make_result(factors=1, trials=8, sensitivity=with_sensitivity))
    assert ("Too few different points" in page.text) is not with_sensitivity


def test_nothing_but_equal_numbers():
    """Every error is the same, nothing took time, and the trained error is zero."""
    trials = [
        t.model_copy(update={"error": 0.0, "guardrails": {}, "seconds": {}})
        for t in make_trials(2, 8, hard=False)
    ]
    interval = Interval(estimate=0, low=0, high=0, confidence=0.95, resamples=500, groups=10)
    proof = make_proof().model_copy(
        update={
            "decision": decide_proof(interval, (), factors_are_zero=True),
            "trained_model_error": 0.0,
            "optimized_model_error": 0.0,
            "errors_before": (0.0,) * 10,
            "errors_after": (0.0,) * 10,
            "changes": (),
            "realised": None,
            "steps": (),
            "variant": None,
            "seconds": {},
        }
    )
    page = _page(
        make_result(
            factors=2,
            sensitivity=False,
            proof=proof,
            trials=8,
            trained_model_error=0.0,
            optimized_model_error=0.0,
            improvement=0.0,
            noise_floor=0.0,
            estimated_error=None,
            optimized_scaling_factors=(0.0, 0.0),
            seconds={},
        ).model_copy(update={"trials": tuple(trials)})
    )
    assert "no difference on the holdout" in page.text
    assert "No guardrails were set" in page.text
    assert "No variant was published." in page.text
    assert "nothing was to change" in page.text


def test_too_few_groups_give_no_interval():
    interval = Interval(estimate=0.2, low=0.2, high=0.2, confidence=0.95, resamples=0, groups=1)
    rail = GuardrailResult(name="general", allowed_increase=0.0, increase=interval)
    decision = decide_proof(interval, [rail], factors_are_zero=False)
    page = _page(make_result(proof=make_proof().model_copy(update={"decision": decision})))
    assert "An interval cannot be given: 1 independent group of stimuli" in page.text
    assert "interval" not in {c["class"].split()[-1] for c in page.charts if c["class"]}


def test_an_insisted_publication_and_low_precision_stand_out():
    proof = make_proof().model_copy(update={"insisted": True, "realised": 0.06})
    page = _page(make_result(proof=proof))
    assert "Published on request, although it was not proved to be better." in page.text
    assert "Less than half of the intended change reached the weights." in page.text
    assert page.text.count("below half") == 1
    assert "Deploy in float32." in page.text


# Charts and numbers


def test_a_far_outlier_does_not_flatten_the_chart():
    trials = make_trials()
    scale = charts.error_scale(trials, 2.9, 2.8)
    assert max(t.error for t in trials if t.error is not None) == 9.5
    assert scale.high < 4.0
    drawn = charts.convergence_chart(trials, trained=2.9, optimized=2.8)
    assert "(above the chart)" in drawn
    assert drawn.count("failed") >= 2


def test_the_scatter_puts_every_stimulus_on_its_side():
    drawn = charts.scatter_chart([1.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0, 1.0])
    assert drawn.count('class="good"') == 1
    assert drawn.count('class="bad"') == 1
    assert drawn.count('class="same"') == 1
    assert drawn.count("2 stimuli") == 2


@pytest.mark.parametrize(("low", "high"), [(-0.1, 0.1), (0.0, 1e-9), (2.7, 2.71), (-1e6, 3e6)])
def test_ticks_are_round_and_inside(low, high):
    ticks = Scale(low, high).ticks(5)
    assert 2 <= len(ticks) <= 12
    assert all(low - 1e-9 * (high - low) <= tick <= high * 1.000001 + 1e-12 for tick in ticks)


@pytest.mark.parametrize("values", [[0.0], [5.0, 5.0], [-3.0], [1e-300], [1e12, 1e12 + 1e-4]])
def test_equal_values_still_have_a_scale(values):
    scale = padded(values)
    assert scale.low < values[0] < scale.high
    assert scale.ticks(4)


def test_svg_escapes_attributes_and_texts():
    assert tag("text", '<a>"', x='"><b>') == ('<text x="&#34;&gt;&lt;b&gt;">&lt;a&gt;&#34;</text>')


@pytest.mark.parametrize(
    ("value", "resolve", "shown"),
    [
        (2.90712, 0.0, "2.907"),
        (2.90712, 0.00031, "2.90712"),
        (0.0, 0.1, "0"),
        (-0.012344, 0.0, "−0.01234"),
        (12345.678, 0.0, "12,346"),
        (1.5e-9, 0.0, "1.500e−09"),
    ],
)
def test_numbers_have_sensible_digits(value, resolve, shown):
    assert formats.number(value, resolve=resolve) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0 ms"),
        (0.0123, "12.3 ms"),
        (1.234, "1.23 s"),
        (59.7, "1 min 00 s"),
        (8000, "2 h 13 min"),
    ],
)
def test_durations(seconds, shown):
    assert formats.duration(seconds) == shown


def test_what_differs_in_the_chain_is_in_the_report() -> None:
    note = "config eos_token_id: 2 in base, 7 in <b>tuned</b> (used)"
    page = render_report(make_result().model_copy(update={"notes": (note,)}))
    assert "config eos_token_id: 2 in base, 7 in &lt;b&gt;tuned&lt;/b&gt; (used)" in page


ADVICE = "checkpoint 00-base alone is better: use it"


def test_a_checkpoint_that_is_better_is_the_first_thing_said() -> None:
    result = make_result(proof=make_proof(), **make_existing())
    page = _page(result)
    main = render_report(result).partition("<main")[2]
    assert main.index(ADVICE) < main.index("<section")
    assert "existing" in page.ids
    for figure in ("2.80", "2.809", "3.130", "average", "Best checkpoint on the search set"):
        assert figure in page.text, figure
    assert "step x changes nothing" in page.text
    assert advise(result)[0].what.startswith("Use checkpoint 00-base")


@pytest.mark.parametrize("outcome", [Standing.BETTER, Standing.NOT_DISTINGUISHABLE])
def test_otherwise_both_numbers_stand_there(outcome: Standing) -> None:
    page = _page(make_result(proof=make_proof(), **make_existing(outcome)))
    assert ADVICE not in page.text
    assert f"The blend is {outcome}" in page.text


def test_comparisons_are_no_part_of_the_convergence() -> None:
    plain = make_result(proof=make_proof())
    best = plain.trials[2].model_copy(
        update={"kind": "comparison", "error": 0.1, "number": len(plain.trials)}
    )
    with_it = plain.model_copy(update={"trials": (*plain.trials, best)})
    charts_of = [
        re.search(r"<svg[^>]*convergence.*?</svg>", render_report(r), re.DOTALL)[0]  # type: ignore[index]
        for r in (plain, with_it)
    ]
    assert charts_of[0] == charts_of[1]


def grouped_result() -> SearchResult:
    """Two steps and three groups of tensors."""
    groups = ("attention", "mlp", EVIL)
    names = tuple(f"{step}: {group}" for step in ("base -> a", "a -> b") for group in groups)
    best = (0.1, -0.05, 0.0, 0.02, -0.1, 0.07)
    return make_result(factors=6).model_copy(
        update={
            "factor_names": names,
            "factor_groups": groups,
            "optimized_scaling_factors": best,
            "factor_bounds": ((-0.1, 0.1),) * 6,
            "sensitivity": (),
        }
    )


def test_factors_of_groups_are_a_heat_map() -> None:
    result = grouped_result()
    assert result.factor_grid == (("base -> a", (0.1, -0.05, 0.0)), ("a -> b", (0.02, -0.1, 0.07)))
    page = render_report(result)
    table = page[page.index('<table class="heat">') : page.index("</table>")]
    assert table.count("<tr>") == 3
    assert table.count("plus-heat") == 4
    assert table.count("minus-heat") == 2
    assert "--strength: 0.50" in table
    assert table.count("at its bound") == 2
    assert EVIL not in page
    assert '<table class="heat">' not in render_report(make_result())


def test_without_groups_a_result_says_nothing_of_them() -> None:
    result = make_result()
    assert "factor_groups" not in result.model_dump(mode="json")
    assert result.factor_grid == ()
    grouped = grouped_result()
    again = SearchResult.model_validate_json(grouped.model_dump_json())
    assert again.factor_groups == grouped.factor_groups


def test_the_summary_has_a_table_of_steps_and_groups() -> None:
    lines = summary(grouped_result())
    at = next(i for i, line in enumerate(lines) if line.startswith("optimized_scaling_factors"))
    assert lines[at + 1].split()[:2] == ["attention", "mlp"]
    assert lines[at + 3].split() == ["a", "->", "b", "+0.020", "-0.100", "+0.070"]
    assert len(summary(make_result())) == len(lines) - 3
