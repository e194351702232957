"""Runs of suites: what is asked, what is known, and what fails."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from scripted_engine import INFO, MODEL, ScriptedEngine, echo

from ztom.engines.protocol import Capability, Completion, GenerationConfig
from ztom.errors import CapabilityError, EngineError, PromptError
from ztom.evaluation.gate.decide import decide
from ztom.evaluation.runs.cache import AnswerCache, AnswerOrigin
from ztom.evaluation.runs.files import read_runs, write_run
from ztom.evaluation.runs.harness import KEPT_CHARACTERS, LEFT_OUT, RunOptions, run_suite
from ztom.evaluation.runs.results import ModelRef
from ztom.evaluation.suites.suite import Item, Suite, SuiteConfig
from ztom.stimuli.records import Message, Prompt


def make_suite(count: int = 10, **settings: Any) -> Suite:
    config = SuiteConfig.model_validate(
        {"name": "s", "version": "1.0.0", "owner": "me", "layer": "task", "metric": "exact_match"}
        | settings
    )
    probes = config.layer == "behavioural"
    items = tuple(
        Item(id=f"i{n}", input=f"text {n}", target=None if probes else f"text {n}")
        for n in range(count)
    )
    return Suite(config=config, items=items, digest="0" * 64)


def probes(count: int = 3, *, repeats: int = 20, **settings: Any) -> Suite:
    return make_suite(
        count,
        layer="behavioural",
        metric="checks",
        repeats=repeats,
        decode={"temperature": 1.0},
        checks=[{"kind": "regex", "pattern": "yes"}],
        **settings,
    )


@pytest.fixture
def cache(tmp_path: Path) -> AnswerCache:
    return AnswerCache(tmp_path / "answers.db")


def test_a_run_has_a_result_for_every_item_in_order(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    engine = ScriptedEngine(lambda prompt, _: prompt if "3" not in prompt else "else")
    options = RunOptions(batch_size=4, progress=lambda done, total: told.append((done, total)))
    run = run_suite(engine, make_suite(), MODEL, options=options)
    assert [item.id for item in run.items] == [f"i{n}" for n in range(10)]
    assert [item.value for item in run.items] == [float(n != 3) for n in range(10)]
    assert run.items[3].answers == ("else",)
    assert [len(prompts) for prompts, _ in engine.asked] == [4, 4, 2]
    assert told == [(0, 10), (4, 10), (8, 10), (10, 10)]
    assert run.seconds > 0
    write_run(run, tmp_path)
    write_run(run, tmp_path)
    assert read_runs(tmp_path) == (run,)


def test_nothing_touches_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert all(
        item.value == 1.0 for item in run_suite(ScriptedEngine(echo), make_suite(), MODEL).items
    )


def test_known_answers_are_not_asked_for_again(cache: AnswerCache) -> None:
    engine = ScriptedEngine(echo)
    first = run_suite(engine, make_suite(), MODEL, cache=cache)
    again = run_suite(engine, make_suite(), MODEL, cache=cache)
    assert engine.count == 10
    assert again.seconds == 0.0
    assert again.items == first.items
    assert again.key == first.key
    run_suite(engine, make_suite(12), MODEL, cache=cache)
    assert engine.count == 12


def test_results_say_how_they_were_obtained() -> None:
    suite, other = make_suite(), ModelRef(name="other", digest="2" * 64)
    run = run_suite(ScriptedEngine(echo), suite, MODEL, setup="usual")
    assert run.conditions.model_dump() == {
        "engine": "scripted",
        "version": "1",
        "device": "cpu",
        "setup": "usual",
    }
    # What a model is stored in belongs to the model; how it is run does not.
    stored = ScriptedEngine(echo, info=replace(INFO, dtype="bfloat16"))
    assert run_suite(stored, suite, other, setup="usual").conditions == run.conditions
    for info, setup in ((replace(INFO, version="2"), "usual"), (INFO, "unusual")):
        differs = run_suite(ScriptedEngine(echo, info=info), suite, other, setup=setup)
        assert differs.conditions != run.conditions


def test_the_same_name_with_other_weights_finds_nothing(cache: AnswerCache) -> None:
    before, after = ScriptedEngine(echo), ScriptedEngine(lambda *_: "changed")
    first = run_suite(before, make_suite(), MODEL, cache=cache)
    other = ModelRef(name=MODEL.name, digest="2" * 64)
    second = run_suite(after, make_suite(), other, cache=cache)
    assert after.count == 10
    assert {item.value for item in first.items} == {1.0}
    assert {item.value for item in second.items} == {0.0}
    assert first.key != second.key


def test_whatever_an_answer_depends_on_is_in_its_key() -> None:
    engine = ScriptedEngine(echo)
    origin, greedy = AnswerOrigin.of(engine, model="1" * 64, setup="s"), GenerationConfig()
    others = [
        replace(origin, model="2" * 64),
        replace(origin, setup="t"),
        replace(origin, factors=(0.1,)),
        replace(origin, engine=("scripted", "2", "float32", "cpu")),
        replace(origin, engine=("scripted", "1", "bfloat16", "cpu")),
    ]
    keys = [each.key("p", greedy, sample=None) for each in (origin, *others)]
    keys += [
        origin.key("q", greedy, sample=None),
        origin.key((Message("user", "p"),), greedy, sample=None),
        origin.key("p", GenerationConfig(max_new_tokens=65), sample=None),
        origin.key("p", greedy, sample="i0 1"),
    ]
    assert len(set(keys)) == len(keys)
    assert origin.run_key("0" * 64) != origin.run_key("3" * 64)


def test_keys_are_what_they_were_so_that_known_answers_are_found() -> None:
    origin = AnswerOrigin.of(ScriptedEngine(echo), model="1" * 64, setup="s")
    sampled = GenerationConfig(temperature=0.5, stop=("\n",), seed=3)
    assert [
        origin.key("p", GenerationConfig(), sample=None),
        origin.key((Message("user", "p"),), sampled, sample="i0 1"),
        origin.run_key("0" * 64),
    ] == [
        "36324372d2ed9a6b9ef20c2689cd998dde6b0c5a99b8e2c5b2cf3c1813626a57",
        "0cb69f551bd07db3b21c8585a256c1c262e2bd0f7640eb9c288f2b6a123754af",
        "90fa0ef5ac99af8bd8bcaac5d91791d968167294ccb55d5fc9c3e5713443a62f",
    ]


def test_a_batch_that_fails_costs_only_the_item_that_makes_it_fail(cache: AnswerCache) -> None:
    def answer(prompt: str, _: int) -> str:
        if prompt == "text 5":
            raise EngineError("too long")
        return prompt

    engine = ScriptedEngine(answer)
    run = run_suite(engine, make_suite(), MODEL, cache=cache)
    assert [item.value for item in run.items] == [None if n == 5 else 1.0 for n in range(10)]
    assert "too long" in str(run.items[5].problem)
    before = engine.count
    run_suite(engine, make_suite(), MODEL, cache=cache)
    assert engine.count == before + 1  # only the one that is missing


def test_an_engine_that_always_fails_scores_nothing() -> None:
    def broken(*_: object) -> NoReturn:
        raise RuntimeError("CUDA error")

    run = run_suite(ScriptedEngine(broken), make_suite(), MODEL)
    assert all(item.value is None and "CUDA error" in str(item.problem) for item in run.items)
    verdict = decide([run], None, [make_suite(minimum_n=1)], first=True)
    assert verdict.exit_code != 0


def test_lost_answers_are_a_problem_and_empty_ones_are_answers() -> None:
    class Loses(ScriptedEngine):
        def generate(self, prompts: Sequence[Prompt], config: GenerationConfig) -> list[Completion]:
            return super().generate(prompts, config)[1:]

    lost = run_suite(Loses(echo), make_suite(2), MODEL)
    assert all(item.value is None and "lost" in str(item.problem) for item in lost.items)
    empty = run_suite(ScriptedEngine(lambda *_: ""), make_suite(2), MODEL)
    assert all((item.value, item.answers) == (0.0, ("",)) for item in empty.items)


def test_a_run_that_is_stopped_goes_on_later(cache: AnswerCache) -> None:
    engine = ScriptedEngine(echo)
    options = RunOptions(batch_size=4, should_stop=lambda: engine.count >= 4)
    stopped = run_suite(engine, make_suite(), MODEL, cache=cache, options=options)
    assert [item.value for item in stopped.items] == [1.0] * 4 + [None] * 6
    assert "stopped" in str(stopped.items[9].problem)
    rest = run_suite(engine, make_suite(), MODEL, cache=cache)
    assert engine.count == 10
    assert {item.value for item in rest.items} == {1.0}


def test_a_limit_leaves_items_out_and_says_so() -> None:
    engine = ScriptedEngine(echo)
    run = run_suite(engine, make_suite(), MODEL, options=RunOptions(limit=3))
    assert engine.count == 3
    assert len(run.items) == 10
    assert [item.problem for item in run.items] == [None] * 3 + [LEFT_OUT] * 7


def test_an_answer_of_ten_megabytes_is_scored_whole_and_kept_cut(cache: AnswerCache) -> None:
    long = "word " * (2 * 2**20) + "end"
    engine = ScriptedEngine(lambda *_: long)
    suite = make_suite(1)
    suite = suite.model_copy(update={"items": (Item(id="i", input="q", target=long),)})
    for _ in range(2):
        run = run_suite(engine, suite, MODEL, cache=cache)
        assert run.items[0].value == 1.0
        (kept,) = run.items[0].answers
        assert kept[:KEPT_CHARACTERS] == long[:KEPT_CHARACTERS]
        assert kept.endswith(f"[cut here: {len(long):,} characters in all]")
    assert engine.count == 1


def test_a_probe_that_flakes_shows_its_rate(cache: AnswerCache) -> None:
    def flaky(prompt: str, seed: int) -> str:
        return "yes" if np.random.default_rng(seed).random() < 0.5 else "no"

    engine = ScriptedEngine(flaky)
    run = run_suite(engine, probes(repeats=100), MODEL, cache=cache)
    for item in run.items:
        assert item.repeats == len(item.answers) == 100
        assert item.value is not None
        assert 0.35 < item.value < 0.65
        assert item.failed_checks == ("regex",)
    assert len({item.answers for item in run.items}) == 3
    assert run_suite(ScriptedEngine(flaky), probes(repeats=100), MODEL).items == run.items
    more = run_suite(engine, probes(repeats=101), MODEL, cache=cache)
    assert engine.count == 303
    assert [item.answers[:100] for item in more.items] == [item.answers for item in run.items]


def test_sampled_answers_do_not_depend_on_what_was_known_or_batched(cache: AnswerCache) -> None:
    def seeded(prompt: str, seed: int) -> str:
        return f"{seed}"

    def fails_once(prompt: str, seed: int) -> str:
        if prompt in ("text 2", "text 5"):
            raise EngineError("busy")
        return f"{seed}"

    whole = run_suite(ScriptedEngine(seeded), probes(8, repeats=3), MODEL)
    run_suite(ScriptedEngine(fails_once), probes(8, repeats=3), MODEL, cache=cache)
    options = RunOptions(batch_size=2)
    engine = ScriptedEngine(seeded)
    mended = run_suite(engine, probes(8, repeats=3), MODEL, cache=cache, options=options)
    assert engine.count == 6
    assert mended.items == whole.items
    answers = [answer for item in whole.items for answer in item.answers]
    assert len(set(answers)) == len(answers)


def test_a_probe_with_one_repeat_missing_has_no_rate() -> None:
    def answer(prompt: str, seed: int) -> str:
        if seed == 1_000_003:
            raise EngineError("lost power")
        return "yes"

    run = run_suite(ScriptedEngine(answer), probes(), MODEL)
    assert [item.value for item in run.items] == [None, 1.0, 1.0]
    assert len(run.items[0].answers) == 19
    assert "1 of 20 repeats have no answer" in str(run.items[0].problem)


def test_a_prompt_that_the_model_cannot_take_costs_its_item_alone() -> None:
    def answer(prompt: str, seed: int) -> str:
        if prompt == "text 1":
            raise PromptError("a stimulus does not fit into the model's context")
        return "yes"

    run = run_suite(ScriptedEngine(answer), probes(repeats=1), MODEL)
    assert [item.value for item in run.items] == [1.0, None, 1.0]
    assert "does not fit" in str(run.items[1].problem)


def test_half_a_surrogate_pair_in_an_answer_can_still_be_written() -> None:
    run = run_suite(ScriptedEngine(lambda *_: "a\ud800b"), make_suite(1), MODEL)
    assert run.items[0].answers == ("a?b",)
    assert run.model_dump_json()


def test_chats_reach_the_engine_as_chats() -> None:
    engine = ScriptedEngine(echo)
    chat = Item.model_validate(
        {
            "id": "c",
            "input": [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}],
            "target": "t",
        }
    )
    suite = make_suite(0, template="Q: {{ input }}").model_copy(update={"items": (chat,)})
    run_suite(engine, suite, MODEL)
    ((prompts, _),) = engine.asked
    assert prompts == [(Message("system", "S"), Message("user", "Q: U"))]


def test_a_classifier_is_refused() -> None:
    info = replace(INFO, capabilities=frozenset({Capability.VALUES}))
    with pytest.raises(CapabilityError, match="does not generate"):
        run_suite(ScriptedEngine(echo, info=info), make_suite(), MODEL)


def test_the_cache_stays_within_its_bound(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "a.db", max_bytes=400_000)
    for n in range(100):
        cache.keep({f"{n}": "x" * 10_000})
    found = cache.find([f"{n}" for n in range(100)])
    assert "99" in found
    assert "0" not in found
    assert (tmp_path / "a.db").stat().st_size < 500_000


def test_several_processes_share_a_cache(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ztom.evaluation.runs.cache import AnswerCache\n"
        "with AnswerCache(Path(sys.argv[1])) as cache:\n"
        "    for n in range(40): cache.keep({f'{sys.argv[2]} {n}': 'x' * 1000})\n"
    )
    path = tmp_path / "a.db"
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(path), str(who)]) for who in range(3)
    ]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    keys = [f"{who} {n}" for who in range(3) for n in range(40)]
    assert set(AnswerCache(path).find(keys)) == set(keys)


def test_a_broken_cache_is_told_and_does_not_cost_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"no database" * 1000)
    run = run_suite(ScriptedEngine(echo), make_suite(), MODEL, cache=AnswerCache(path))
    assert {item.value for item in run.items} == {1.0}
    assert "cannot be used" in caplog.text


def test_a_suite_is_run_without_lm_eval() -> None:
    code = (
        "import sys; sys.modules['lm_eval'] = sys.modules['datasets'] = None\n"
        "import test_harness as t\n"
        "run = t.run_suite(t.ScriptedEngine(t.echo), t.make_suite(), t.MODEL)\n"
        "assert [item.value for item in run.items] == [1.0] * 10"
    )
    folder = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder, env=environment)
