"""Splits that stay put, leaks that are found, digests that change when the data does."""

import dataclasses
import random

import pytest

from ztom.errors import ConfigError, LeakageError, StimuliError
from ztom.stimuli.prompts import words
from ztom.stimuli.records import Message, Stimulus
from ztom.stimuli.splits import (
    check_disjoint,
    data_digest,
    find_leaks,
    split,
    without_leaks,
    word_pairs,
)


def _stimulus(name: str, prompt="What is it?", *, group: str | None = None) -> Stimulus:
    return Stimulus(name, prompt, "x", name if group is None else group)


def _sentence(seed: int, length: int = 20) -> list[str]:
    generator = random.Random(seed)
    return [f"w{generator.randrange(100_000)}" for _ in range(length)]


def test_split_is_stable_when_items_are_added_and_keeps_groups_together():
    stimuli = [_stimulus(f"s{i}", group=f"g{i // 3}") for i in range(300)]
    search, holdout = split(stimuli[:150], holdout_fraction=0.3, seed=1)
    more_search, more_holdout = split(stimuli, holdout_fraction=0.3, seed=1)
    assert {s.id for s in search} <= {s.id for s in more_search}
    assert {s.id for s in holdout} <= {s.id for s in more_holdout}
    assert not {s.group for s in more_search} & {s.group for s in more_holdout}
    assert [s.id for s in more_search] == [s.id for s in stimuli if s in more_search]
    assert 60 <= len(more_holdout) <= 120


def test_split_depends_on_the_seed_and_not_on_the_process():
    stimuli = [_stimulus(f"s{i}") for i in range(10)]
    holdouts = [[s.id for s in split(stimuli, holdout_fraction=0.5, seed=n)[1]] for n in (0, 1)]
    # Written down once: a change here would move every user's holdout.
    assert holdouts == [["s0", "s1", "s2", "s4", "s7"], ["s0", "s1", "s4", "s7", "s9"]]


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_split_refuses_a_fraction_out_of_range(fraction):
    with pytest.raises(ConfigError, match="holdout_fraction"):
        split([_stimulus("a")], holdout_fraction=fraction, seed=0)


def test_split_refuses_to_leave_a_side_empty():
    stimuli = [_stimulus(f"s{i}", group="all") for i in range(9)]
    with pytest.raises(StimuliError, match=r"one side empty: got .* from 1 groups"):
        split(stimuli, holdout_fraction=0.5, seed=0)
    with pytest.raises(StimuliError, match="one side empty"):
        split([], holdout_fraction=0.5, seed=0)


def test_disjoint_sets_pass():
    search = [_stimulus(f"a{i}", " ".join(_sentence(i))) for i in range(50)]
    holdout = [_stimulus(f"b{i}", " ".join(_sentence(1000 + i))) for i in range(50)]
    check_disjoint(search, holdout)
    check_disjoint(search, [])
    check_disjoint([], holdout)


def test_shared_groups_prompts_and_near_duplicates_are_leaks():
    sentence = _sentence(0)
    search = [
        _stimulus("a1", " ".join(sentence)),
        _stimulus("a2", "Where is my card?"),
        _stimulus("a3", "Something else", group="patient-7"),
    ]
    holdout = [
        _stimulus("b1", " ".join([*sentence, "please"])),
        _stimulus("b2", "where IS my  card?"),
        _stimulus("b3", "Nothing alike", group="patient-7"),
        _stimulus("b4", "Quite another matter"),
    ]
    with pytest.raises(LeakageError) as caught:
        check_disjoint(search, holdout)
    message = str(caught.value)
    assert "3 of 4 holdout stimuli are in the search set" in message
    assert "1 by prompt, 1 by group, 1 by near-duplicate" in message
    assert "b1 ~ a1, b2 ~ a2, b3 ~ a3" in message
    assert "card" not in message
    assert [s.id for s in without_leaks(search, holdout)] == []
    assert [s.id for s in without_leaks([*search, _stimulus("a4", "Fresh one")], holdout)] == ["a4"]


def test_only_some_ids_are_listed():
    search = [_stimulus(f"a{i}", f"q{i}", group=f"g{i}") for i in range(20)]
    holdout = [_stimulus(f"b{i}", f"other{i}", group=f"g{i}") for i in range(20)]
    with pytest.raises(LeakageError, match="b4 ~ a4 and 15 more"):
        check_disjoint(search, holdout)


def test_a_shared_system_turn_is_no_leak():
    system = Message("system", " ".join(_sentence(0, 200)))
    search = [_stimulus("a", (system, Message("user", "Where is my card?")))]
    holdout = [_stimulus("b", (system, Message("user", "How do I pay in cash?")))]
    check_disjoint(search, holdout)
    with pytest.raises(LeakageError, match="near-duplicate"):
        check_disjoint(search, [_stimulus("b", "Where is my card??")])


def test_the_similarity_is_exact_at_the_threshold():
    # 10 pairs of words against the same 10 and 2 more: 10/12; 3 more: 10/13.
    sentence = _sentence(3, 11)
    search = [_stimulus("a", " ".join(sentence))]
    holdout = [_stimulus("b", " ".join([*sentence, "x", "y"]))]
    assert [leak.similarity for leak in find_leaks(search, holdout, threshold=10 / 12)] == [10 / 12]
    assert find_leaks(search, holdout, threshold=10 / 12 + 1e-9) == []


def test_rows_of_numbers_leak_only_when_equal():
    search = [_stimulus("a", (1.0, 2.0))]
    assert find_leaks(search, [_stimulus("b", (1.0, 2.0 + 1e-12))]) == []
    assert [leak.kind for leak in find_leaks(search, [_stimulus("b", (1.0, 2.0))])] == ["prompt"]


@pytest.mark.parametrize("threshold", [0.0, 1.1, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ConfigError, match="threshold"):
        check_disjoint([_stimulus("a")], [_stimulus("b")], threshold=threshold)


@pytest.mark.parametrize("kind", ["all alike", "below the threshold", "all different"])
def test_a_thousand_against_a_thousand_is_compared(kind):
    same = _sentence(0, 30)
    tail = {"all alike": 1, "below the threshold": 5, "all different": 30}[kind]

    def prompts(start: int) -> list[Stimulus]:
        return [
            _stimulus(f"{start + i}", " ".join(same[: 30 - tail] + _sentence(start + i + 1, tail)))
            for i in range(1000)
        ]

    leaks = find_leaks(prompts(0), prompts(1000))
    assert len(leaks) == (1000 if kind == "all alike" else 0)


def test_the_digest_is_of_the_data_and_not_of_its_names():
    turns = (Message("user", "Hi"),)
    stimuli = [_stimulus("a"), _stimulus("b", turns), _stimulus("c", (1.0, 2.0))]
    digest = data_digest(stimuli)
    renamed = [dataclasses.replace(s, id=f"new-{s.id}", metadata={"x": 1}) for s in stimuli]
    assert data_digest(renamed) == digest
    changed = [
        stimuli[::-1],
        stimuli[:2],
        [dataclasses.replace(stimuli[0], expected="y"), *stimuli[1:]],
        [dataclasses.replace(stimuli[0], group="y"), *stimuli[1:]],
        [dataclasses.replace(stimuli[0], prompt="What is it"), *stimuli[1:]],
        [stimuli[0], dataclasses.replace(stimuli[1], prompt="Hi"), stimuli[2]],
    ]
    assert len({digest, *map(data_digest, changed)}) == 7


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't STOP, ＮＯＷ!", ["don", "t", "stop", "now"]),
        ("今日は rain", ["今", "日", "は", "rain"]),
        ("Straße", ["strasse"]),
        ("👍 ?!", ["👍", "?", "!"]),
        (" \n", []),
    ],
)
def test_words_of_several_scripts(text, expected):
    assert words(text) == expected


def test_word_pairs_of_short_prompts():
    assert word_pairs(_stimulus("a", "Hi")) == {"hi"}
    assert word_pairs(_stimulus("a", "Hi there you")) == {"hi there", "there you"}
    assert word_pairs(_stimulus("a", (1.0,))) == frozenset()
