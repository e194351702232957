"""What is seen without labels: effort, disagreement, confidence; forms, lengths, languages."""

from __future__ import annotations

import pytest
from streams import START, week

from ztom.drift.config import DisagreementConfig, EffortConfig, InputsConfig
from ztom.drift.inputs import InputsMonitor
from ztom.drift.observations import Observation
from ztom.drift.shape import form_of, language_of, length_bins
from ztom.drift.unlabelled import confidence, differing, disagreement, effort

_BEFORE = tuple(week(-1, count=400))


def _with(rows, **fields):
    return [
        row.model_copy(update={k: v(i) for k, v in fields.items()}) for i, row in enumerate(rows)
    ]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Where is my card?", "text"),
        ('{"b": 1, "a": 2}', "object a, b"),
        ("  [1, 2]", "list"),
        ('{"a": ', "broken JSON"),
        ("[" * 100_000, "broken JSON"),
        ("", "text"),
    ],
)
def test_the_form_of_an_input(text, form):
    assert form_of(text) == form


def test_lengths_are_told_by_the_references_quantiles():
    bin_of = length_bins(["a" * n for n in range(1, 81)])
    assert [bin_of("a" * n) for n in (0, 5, 75, 1000)] == ["bin 0", "bin 0", "bin 7", "bin 7"]
    assert length_bins(["same"] * 5)("a longer one") == "bin 1"


def test_languages_are_told_apart():
    assert language_of("where is my new card, it has not arrived") == "en"
    assert language_of("wo ist meine neue Karte, sie ist nicht angekommen") == "de"


@pytest.mark.parametrize(
    ("change", "test"),
    [
        ({"text": lambda i: '{"q": "card"}' if i % 4 == 0 else "card"}, "forms"),
        ({"text": lambda i: "card " * (1 + i % 3 * 60)}, "lengths"),
        ({"category": lambda i: "new" if i % 4 == 0 else "old"}, "categories"),
        ({"expected": lambda i: "mortgage" if i % 6 == 0 else "card"}, "labels"),
    ],
)
def test_counts_that_moved_are_named(change, test):
    tests = InputsMonitor(InputsConfig(), None, 24, 0)
    usual = {"category": lambda i: "old", "expected": lambda i: "card" if i % 2 else "loan"}
    before, now = _with(_BEFORE, **usual), _with(week(0), **{**usual, **change})
    findings = {finding.test: finding for finding in tests.look(0, before, now)}
    assert findings[test].is_alarm
    assert not any(f.is_alarm for f in tests.look(0, before, _with(week(0), **usual)))


def test_free_text_is_not_taken_for_labels():
    tests = InputsMonitor(InputsConfig(), None, 24, 0)
    written = {"expected": lambda i: f"an answer of its own, {i}"}
    findings = tests.look(0, _with(_BEFORE, **written), _with(week(0), **written))
    assert "labels" not in {finding.test for finding in findings}


def test_a_request_that_takes_more_is_an_alarm_and_one_that_takes_less_is_not():
    usual = {"tokens": lambda i: 100 + i % 50, "latency_s": lambda i: 1.0 + i % 7 / 10}
    before = _with(_BEFORE, **usual)
    more = {**usual, "tokens": lambda i: 160 + i % 50}
    findings = effort(EffortConfig(), before, _with(week(0), **more), horizon=24)
    assert {f.test: f.is_alarm for f in findings} == {"tokens": True, "latency_s": False}
    assert "184.5 tokens" in findings[0].sentence or "tokens in the median" in findings[0].sentence
    less = {**usual, "tokens": lambda i: 40 + i % 50}
    assert not any(
        f.is_alarm for f in effort(EffortConfig(), before, _with(week(0), **less), horizon=24)
    )
    little = {**usual, "tokens": lambda i: 104 + i % 50}
    assert not any(
        f.is_alarm for f in effort(EffortConfig(), before, _with(week(0), **little), horizon=24)
    )


def test_disagreement_beyond_the_same_models_is_an_alarm():
    rows = _with(
        week(0, count=400),
        answer=lambda i: "yes",
        other_answer=lambda i: "no" if i % 3 == 0 else "yes",
    )
    sums = differing(rows)
    assert (sums.n, sums.total) == (400, 134.0)
    assert disagreement(DisagreementConfig(), sums).is_alarm
    assert not disagreement(DisagreementConfig(floor=0.3), sums).is_alarm
    assert disagreement(DisagreementConfig(), differing(week(0))) is None


def test_confidence_is_calibrated_and_never_an_alarm():
    """An overconfident model: what it calls 99 % is right in 80 of 100."""
    sure = {
        "confidence": lambda i: 0.99 if i % 2 else 0.6,
        "correct": lambda i: i % 2 == 0 and i % 5 > 1 or i % 2 == 1 and i % 10 > 1,
    }
    before = _with(_BEFORE, **sure)
    share = sum(row.correct for row in before) / len(before)
    same = confidence(before, _with(week(0), confidence=sure["confidence"]))
    assert same.value == pytest.approx(share, abs=0.02)
    less = confidence(before, _with(week(0), confidence=lambda i: 0.6))
    assert less.value < same.value
    assert not less.is_alarm
    assert "no test" in less.sentence
    assert confidence(_BEFORE, week(0)) is None


def test_an_answer_is_right_where_it_equals_the_label():
    row = Observation(time=START, text="?", answer=" card\n", expected="card")
    assert row.correct is True
    assert Observation(time=START, text="?", answer="loan", expected="card").correct is False
    assert Observation(time=START, text="?", answer="loan").correct is None
