import json
import random
from dataclasses import replace

import pytest

from ztom.demo.corpus import Entry, stdlib_entries
from ztom.demo.scenario import (
    ITERATIONS,
    TEMPLATES,
    ChatPlan,
    StdlibPlan,
    chat_scenario,
    questions,
    stdlib_scenario,
)
from ztom.demo.stdlib_docs import TOPICS, first_sentence
from ztom.errors import ConfigError, StimuliError
from ztom.stimuli.splits import check_disjoint


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    return stdlib_entries()


@pytest.fixture(scope="module")
def scenario(entries):
    return stdlib_scenario(entries, StdlibPlan())


def test_the_corpus_is_large_unique_and_short(entries):
    assert len(entries) > 3000
    assert len({entry.name for entry in entries}) == len(entries)
    assert len({entry.answer.lower() for entry in entries}) == len(entries)
    assert all(20 <= 4 * len(entry.answer) <= 640 and "\n" not in entry.answer for entry in entries)
    assert {entry.topic for entry in entries} == set(TOPICS)


def test_the_corpus_knows_what_everybody_knows(entries):
    answers = {entry.name: entry.answer for entry in entries}
    assert "whitespace" in answers["str.strip"]
    assert "directory" in answers["os.path.isdir"]


def test_the_corpus_is_the_same_in_a_process_that_patched_the_library(entries, monkeypatch):
    def imposter() -> None:
        """Something that a library put here."""

    monkeypatch.setattr("textwrap.dedent", imposter)
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    assert stdlib_entries() == entries


def test_an_interpreter_that_cannot_run_is_named():
    with pytest.raises(ConfigError, match="/no/such/python"):
        stdlib_entries(python="/no/such/python")


@pytest.mark.parametrize(
    ("doc", "sentence"),
    [
        ("Return the size of it. And more.", "Return the size of it."),
        ("S.join(iterable) -> str\n\nJoin any number of strings.", "Join any number of strings."),
        ("Return a\n    wrapped line here\n\nSecond paragraph.", "Return a wrapped line here"),
        ("Convert a time, e.g. 'Sat Jun 06'. More.", "Convert a time, e.g. 'Sat Jun 06'."),
        ("Call it after a number of seconds:\n\n    t = 1", "Call it after a number of seconds"),
        ("Too short.", None),
        ("f(x)", None),
        ("", None),
        ("It says caf\u00e9 in the middle.", None),
        ("word " * 60, None),
    ],
)
def test_first_sentence(doc, sentence):
    assert first_sentence(doc) == sentence


def test_what_users_ask_was_taught_once_and_in_other_words(scenario):
    stimuli = [*scenario.search, *scenario.holdout]
    taught = [{pair.prompt for pair in stage.pairs} for stage in scenario.stages]
    for stimulus in stimuli:
        assert not any(stimulus.prompt in prompts for prompts in taught)
        phrasings = set(questions(stimulus.group)) - {stimulus.prompt}
        assert sum(phrasings <= prompts for prompts in taught) == 1
        assert sum(bool(phrasings & prompts) for prompts in taught) == 1


def test_search_and_holdout_are_apart(scenario):
    plan = StdlibPlan()
    assert (len(scenario.search), len(scenario.holdout)) == (plan.search_size, plan.holdout_size)
    assert len({s.group for s in (*scenario.search, *scenario.holdout)}) == 64 + 380
    check_disjoint(scenario.search, scenario.holdout)


def test_stages_come_in_order_and_traffic_differs_from_the_last(scenario):
    names = [stage.name for stage in scenario.stages]
    assert names == ["00-base", *(f"{i:02d}-{t}" for i, t in enumerate(ITERATIONS, start=1))]
    last = {pair.answer for pair in scenario.stages[-1].pairs}
    asked = [stimulus.expected in last for stimulus in scenario.holdout]
    assert 0 < sum(asked) / len(asked) < 0.15


def test_the_scenario_does_not_depend_on_the_order_of_the_entries(entries, scenario):
    shuffled = random.Random(0).sample(entries, len(entries))
    assert stdlib_scenario(shuffled, StdlibPlan()) == scenario


def test_every_phrasing_is_somebodys_question(entries):
    firsts = {questions(entry.name)[0].replace(entry.name, "{name}") for entry in entries}
    assert firsts == set(TEMPLATES)
    assert all(len(set(questions(entry.name))) == len(TEMPLATES) for entry in entries)


@pytest.mark.parametrize(
    "plan",
    [
        StdlibPlan(holdout_size=5000),
        StdlibPlan(traffic={"cooking": 1.0}),
        StdlibPlan(traffic={"base": 1.5, "text": -0.5}),
        StdlibPlan(search_size=0),
    ],
)
def test_a_plan_that_the_corpus_cannot_fill_is_refused(entries, plan):
    with pytest.raises(ConfigError):
        stdlib_scenario(entries, plan)


def _write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def chat_folder(tmp_path):
    def row(kind, i):
        return {"id": f"{kind}{i}", "prompt": f"{kind} question {i}", "expected": f"answer {i}"}

    for kind, count in (("train", 50), ("search", 3), ("holdout", 4)):
        _write(tmp_path / f"{kind}.jsonl", [row(kind, i) for i in range(count)])
    return tmp_path


def test_a_folder_is_cut_in_order(chat_folder):
    made = chat_scenario(chat_folder, ChatPlan(iterations=3, base_share=0.4))
    assert [len(stage.pairs) for stage in made.stages] == [20, 10, 10, 10]
    prompts = [pair.prompt for stage in made.stages for pair in stage.pairs]
    assert prompts == [f"train question {i}" for i in range(50)]
    assert [s.id for s in made.search] == ["search0", "search1", "search2"]
    assert len(made.holdout) == 4


@pytest.mark.parametrize("share", [0.0, 1.0, float("nan"), -1.0])
def test_a_base_must_leave_something_for_the_iterations(chat_folder, share):
    with pytest.raises(ConfigError, match="base_share"):
        chat_scenario(chat_folder, replace(ChatPlan(), base_share=share))


def test_too_few_rows_for_the_chain(chat_folder):
    with pytest.raises(StimuliError, match="too short"):
        chat_scenario(chat_folder, ChatPlan(iterations=49))


def test_a_missing_file_is_named(chat_folder):
    (chat_folder / "holdout.jsonl").unlink()
    with pytest.raises(StimuliError, match=r"holdout\.jsonl"):
        chat_scenario(chat_folder, ChatPlan())


def test_training_rows_of_many_turns_are_refused(chat_folder):
    turns = [{"role": "user", "content": "hello"}]
    _write(chat_folder / "train.jsonl", [{"prompt": turns, "expected": "hi"}] * 50)
    with pytest.raises(StimuliError, match="not a question and an answer"):
        chat_scenario(chat_folder, ChatPlan())
