"""Error functions against hand-worked values and the reference implementations."""

import math
import pickle

import numpy as np
import pytest
from sklearn.metrics import f1_score

from ztom.errors import ConfigError, ScoringError
from ztom.scoring.build import SOURCES, ErrorTerm, build_error
from ztom.scoring.protocol import Need
from ztom.statistics.scores import (
    MacroF1Scores,
    MeanScores,
    RatioScores,
    WeightedScores,
    WholeSetScores,
    can_resample,
)
from ztom.stimuli.records import Output, Stimulus

LABELS = ("cat", "dog", "owl")


def _stimuli(*expected: str) -> list[Stimulus]:
    return [Stimulus(f"s{i}", f"q{i}", e, f"g{i}") for i, e in enumerate(expected)]


def _texts(*texts: str | None) -> list[Output]:
    return [Output(text=text) for text in texts]


def _errors(name, expected, outputs, **options) -> list[float]:
    scores = build_error(name, **options).score(_stimuli(*expected), outputs)
    return scores.per_stimulus.tolist()


# --- text ----------------------------------------------------------------------------------------


def test_exact_match_forgives_white_space_and_unicode_form_only():
    outputs = _texts(" Paris\n", "paris", "Cafe\u0301", "a  b", "")
    expected = ("Paris", "Paris", "Caf\u00e9", "a b", "a")
    assert _errors("exact_match", expected, outputs) == [0.0, 1.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("output", "expected", "error"),
    [
        ("the cat sat", "the cat sat", 0.0),
        ("The CAT, sat!", "the cat sat", 0.0),
        ("sat cat the", "the cat sat", 0.0),
        ("the the the", "the cat sat", 1 - 2 * (1 / 3 * 1 / 3) / (2 / 3)),
        ("a dog", "the cat sat", 1.0),
        ("", "the cat sat", 1.0),
        ("the cat", "the cat sat down", 1 - 2 * 2 / 6),
        ("👍", "👍", 0.0),
        ("👎", "👍", 1.0),
    ],
)
def test_token_f1(output, expected, error):
    assert _errors("token_f1", [expected], _texts(output)) == [pytest.approx(error)]


@pytest.mark.parametrize(
    ("output", "expected", "error"),
    [
        # Lin 2004, section 3.1: the same words in another order share a shorter subsequence.
        ("police kill the gunman", "police killed the gunman", 0.25),
        ("the gunman kill police", "police killed the gunman", 0.5),
        ("the gunman police killed", "police killed the gunman", 0.5),
        ("police killed the gunman", "police killed the gunman", 0.0),
        ("", "police", 1.0),
        ("police police police", "police", 0.5),
    ],
)
def test_rouge_l(output, expected, error):
    assert _errors("rouge_l", [expected], _texts(output)) == [pytest.approx(error)]


@pytest.mark.parametrize("name", ["exact_match", "token_f1", "rouge_l", "sentence_similarity"])
def test_missing_text_is_an_error(name):
    with pytest.raises(ScoringError, match="needs the generated text of stimulus s0"):
        build_error(name).score(_stimuli("a"), _texts(None))


# --- likelihood ----------------------------------------------------------------------------------


def test_cross_entropy_is_per_token_over_the_whole_set():
    outputs = [Output(token_log_probs=(-1.0, -2.0, -3.0)), Output(token_log_probs=(-8.0,))]
    scores = build_error("cross_entropy").score(_stimuli("a b c", "d"), outputs)
    assert scores.per_stimulus.tolist() == [2.0, 8.0]
    assert scores.aggregate().tolist() == [14.0 / 4]
    assert scores.aggregate(np.array([[2.0, 0.0], [1.0, 3.0]])).tolist() == [2.0, 30.0 / 6]


@pytest.mark.parametrize(
    ("log_probs", "said"),
    [
        (None, "no tokens to score for stimulus s0"),
        ((), "no tokens to score for stimulus s0"),
        ((-1.0, -math.inf), r"not a finite number for 1 of 1 stimuli: got inf \(first: s0\)"),
        ((math.nan,), "not a finite number"),
    ],
)
def test_cross_entropy_without_finite_tokens_is_an_error(log_probs, said):
    with pytest.raises(ScoringError, match=said):
        build_error("cross_entropy").score(_stimuli("a"), [Output(token_log_probs=log_probs)])


def test_cross_entropy_over_labels_normalises_them():
    # Unnormalised: label texts of a language model do not sum to one. 1 : 2 : 5.
    row = tuple(math.log(p) for p in (0.01, 0.02, 0.05))
    outputs = [Output(label_log_probs=row)] * 2
    errors = _errors("cross_entropy", ("dog", "owl"), outputs, labels=LABELS)
    assert errors == pytest.approx([-math.log(2 / 8), -math.log(5 / 8)])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ((0.0, -math.inf, -math.inf), "not a finite number"),
        ((-math.inf,) * 3, "not a finite number"),
        ((math.nan, 0.0, 0.0), "not a finite number"),
        ((0.0, 0.0), "wrong number of label probabilities: got 2, expected 3"),
        (None, "wrong number of label probabilities: got 0, expected 3"),
    ],
)
def test_cross_entropy_over_labels_without_numbers_is_an_error(row, said):
    with pytest.raises(ScoringError, match=said):
        _errors("cross_entropy", ("dog",), [Output(label_log_probs=row)], labels=LABELS)


# --- classes -------------------------------------------------------------------------------------


def _most_probable(*labels: str) -> list[Output]:
    return [
        Output(label_log_probs=tuple(0.0 if label == best else -9.0 for label in LABELS))
        for best in labels
    ]


def test_accuracy_takes_the_most_probable_label():
    expected, outputs = ("cat", "dog", "owl", "owl"), _most_probable("cat", "owl", "owl", "cat")
    function = build_error("accuracy", labels=LABELS)
    assert function.needs == {Need.LABEL_LOG_PROBS}
    scores = function.score(_stimuli(*expected), outputs)
    assert scores.per_stimulus.tolist() == [0.0, 1.0, 0.0, 1.0]
    assert scores.aggregate().tolist() == [0.5]


def test_accuracy_reads_text_without_labels_or_when_told():
    expected, outputs = ("cat", "dog", "dog"), _texts(" Cat.", "a dog", "dog")
    for options in ({}, {"labels": LABELS}):
        spec = ErrorTerm(function="accuracy", source="text")
        assert _errors(spec, expected, outputs, **options) == [0.0, 1.0, 0.0]
    assert build_error("accuracy").needs == {Need.TEXT}


def test_macro_f1_agrees_with_scikit_learn():
    generator = np.random.default_rng(0)
    expected = [LABELS[i] for i in generator.integers(3, size=40)]
    predicted = [LABELS[i] for i in generator.integers(3, size=40)]
    for outputs, options in (
        (_most_probable(*predicted), {"labels": LABELS}),
        (_texts(*predicted), {}),
    ):
        scores = build_error("macro_f1", **options).score(_stimuli(*expected), outputs)
        reference = f1_score(expected, predicted, average="macro")
        assert scores.aggregate()[0] == pytest.approx(1 - reference, abs=1e-12)


def test_macro_f1_of_text_that_is_no_class_misses_its_class_and_belongs_to_none():
    expected, predicted = ("cat", "cat", "dog"), ("cat", "no idea", "dog")
    scores = build_error("macro_f1").score(_stimuli(*expected), _texts(*predicted))
    reference = f1_score(expected, predicted, average="macro", labels=["cat", "dog"])
    assert scores.aggregate()[0] == pytest.approx(1 - reference, abs=1e-12)


def test_what_is_no_label_is_an_error():
    with pytest.raises(ScoringError, match="expected output of stimulus s0 is not a label"):
        _errors("accuracy", ("bird",), _most_probable("cat"), labels=LABELS)
    with pytest.raises(ScoringError, match="two labels differ only in case"):
        _errors(
            ErrorTerm(function="accuracy", source="text"),
            ("cat",),
            _texts("cat"),
            labels=("cat", "Cat!"),
        )
    nan = [Output(label_log_probs=(0.0, math.nan, 0.0))]
    with pytest.raises(ScoringError, match="not a finite number"):
        _errors("accuracy", ("cat",), nan, labels=LABELS)


# --- numbers -------------------------------------------------------------------------------------


def test_mse_of_values_and_of_text():
    rows = [Output(values=(1.0,)), Output(values=(1.0, 4.0))]
    assert _errors("mse", ("3", "[1, 2]"), rows) == [4.0, 2.0]
    spec = ErrorTerm(function="mse", source="text")
    assert build_error(spec).needs == {Need.TEXT}
    assert _errors(spec, ("3", "1e1"), _texts(" 2.5 ", "8")) == [0.25, 4.0]


@pytest.mark.parametrize(
    ("spec", "expected", "output", "said"),
    [
        ("mse", "three", Output(values=(1.0,)), "expected output of stimulus s0 is not a number"),
        ("mse", "3", Output(values=(1.0, 2.0)), "wrong number of outputs for stimulus s0: got 2"),
        ("mse", "3", Output(), "needs the output row"),
        ("mse", "3", Output(values=(math.nan,)), "not a finite number"),
        ("mse", "3", Output(values=(1e200,)), "not a finite number"),
        ("text", "3", Output(text="three"), "generated text for stimulus s0 is not a number"),
        ("text", "3", Output(text="nan"), "not a finite number"),
        ("text", "3", Output(text="[[1]]"), "is not a number"),
        ("text", "3", Output(text="[" * 10_000), "is not a number"),
    ],
)
def test_mse_without_numbers_is_an_error(spec, expected, output, said):
    term = ErrorTerm(function="mse", source="text" if spec == "text" else None)
    with pytest.raises(ScoringError, match=said):
        build_error(term).score(_stimuli(expected), [output])


# --- sums, and building --------------------------------------------------------------------------


def test_a_weighted_sum_adds_errors_and_aggregates():
    terms = [ErrorTerm(function="token_f1", weight=0.5), ErrorTerm(function="cross_entropy")]
    function = build_error(terms)
    assert function.name == "0.5*token_f1 + 1*cross_entropy"
    assert function.needs == {Need.TEXT, Need.TOKEN_LOG_PROBS}
    outputs = [
        Output(text="a", token_log_probs=(-1.0,)),
        Output(text="c", token_log_probs=(-2.0, -4.0)),
    ]
    scores = function.score(_stimuli("a", "b"), outputs)
    assert scores.per_stimulus.tolist() == [1.0, 3.5]
    assert scores.aggregate() == pytest.approx([0.25 + 7 / 3])
    assert build_error(["exact_match"]).name == "exact_match"


def test_every_built_in_function_has_a_name_and_can_be_pickled():
    for name in SOURCES:
        for labels in ((), LABELS):
            function = pickle.loads(pickle.dumps(build_error(name, labels=labels)))
            assert function.name == name
            assert function.needs <= set(Need)


@pytest.mark.parametrize("name", SOURCES)
def test_no_stimuli_is_an_error(name):
    with pytest.raises(ScoringError, match="no stimuli"):
        build_error(name).score([], [])


@pytest.mark.parametrize(
    ("spec", "labels", "said"),
    [
        (
            "cross_entorpy",
            (),
            r"got cross_entorpy, expected one of accuracy.*Did you mean cross_en",
        ),
        ("zzz", (), "expected one of accuracy, cross_entropy"),
        ("os.path", (), "unknown error function"),
        ("os; import x:f", (), "unknown error function"),
        ([], (), "no error function is named"),
        ("accuracy", ("a", "a"), "a class label is given twice"),
        (ErrorTerm(function="accuracy", source="labels"), (), "none are given"),
        (ErrorTerm(function="accuracy", source="values"), (), "source: got values, expected text"),
        (ErrorTerm(function="rouge_l", source="labels"), (), "source: got labels"),
        (ErrorTerm(function="rouge_l", deadline_s=3), (), "does not take deadline_s"),
        (ErrorTerm(function="rouge_l", device="cuda"), (), "does not take device"),
        (ErrorTerm(function="a:b", source="text"), (), "does not take source"),
    ],
)
def test_a_wrong_configuration_is_refused(spec, labels, said):
    with pytest.raises(ConfigError, match=said):
        build_error(spec, labels=labels)


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_a_weight_is_a_positive_number(weight):
    with pytest.raises(ValueError, match="weight"):
        ErrorTerm(function="rouge_l", weight=weight)


# --- scores --------------------------------------------------------------------------------------


def _all_scores(n: int) -> list:
    generator = np.random.default_rng(1)
    mean = MeanScores(generator.normal(size=n))
    ratio = RatioScores(generator.normal(size=n), generator.integers(1, 9, size=n) * 1.0)
    macro = MacroF1Scores(generator.integers(4, size=n), generator.integers(-1, 4, size=n), 4)
    weighted = WeightedScores((mean, macro), (0.3, 2.0))
    return [mean, ratio, macro, weighted, WholeSetScores(0.5, n)]


@pytest.mark.parametrize("kind", range(5))
def test_aggregates_of_many_resamples_are_those_of_each(kind):
    scores = _all_scores(12)[kind]
    counts = np.random.default_rng(2).multinomial(12, [1 / 12] * 12, size=7).astype(float)
    together = scores.aggregate(counts)
    assert together.shape == (7,)
    assert together == pytest.approx([scores.aggregate(row[None])[0] for row in counts])
    assert scores.aggregate() == pytest.approx(scores.aggregate(np.ones((1, 12))))
    assert scores.per_stimulus.shape == (12,)


def test_only_scores_that_tell_stimuli_apart_can_be_resampled():
    mean, ratio, macro, weighted, whole = _all_scores(3)
    assert all(can_resample(scores) for scores in (mean, ratio, macro, weighted))
    assert not can_resample(whole)
    assert not can_resample(WeightedScores((mean, whole), (1.0, 1.0)))
