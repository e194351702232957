"""Running a model on suites: the cache, failures, repeats, and lm-eval's own tasks offline."""

from __future__ import annotations

import json
import math
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from ztom.engines.protocol import Capability, Completion, EngineInfo, GenerationConfig
from ztom.errors import CapabilityError, EngineError, EvaluationError
from ztom.evaluation.gate.decide import decide
from ztom.evaluation.runs.cache import AnswerCache, Origin
from ztom.evaluation.runs.files import read_runs, write_run
from ztom.evaluation.runs.harness import KEPT_CHARACTERS, LEFT_OUT, RunOptions, run_suite
from ztom.evaluation.runs.lm_tasks import run_tasks
from ztom.evaluation.runs.results import ModelRef
from ztom.evaluation.suites.suite import Item, Suite, SuiteConfig
from ztom.stimuli.records import Message, Prompt

MODEL = ModelRef(name="m", digest="1" * 64)
INFO = EngineInfo(
    name="scripted",
    version="1",
    dtype="float32",
    device="cpu",
    capabilities=frozenset({Capability.GENERATE, Capability.LOG_PROBS}),
)


class ScriptedEngine:
    """Answers with a function of prompt and seed; remembers what it was asked."""

    def __init__(self, answer: Callable[[str, int], str], *, info: EngineInfo = INFO) -> None:
        self.info = info
        self.factors: tuple[float, ...] = ()
        self.asked: list[tuple[list[Prompt], GenerationConfig]] = []
        self._answer = answer

    def generate(self, prompts: Sequence[Prompt], config: GenerationConfig) -> list[Completion]:
        self.asked.append((list(prompts), config))
        return [
            Completion(self._answer(str(prompt), config.seed + place), 1, "stop")
            for place, prompt in enumerate(prompts)
        ]

    def log_probs(
        self, prompts: Sequence[Prompt], continuations: Sequence[str]
    ) -> list[NDArray[np.float64]]:
        right = [text.strip() == "right" for text in continuations]
        return [np.array([math.log(0.9 if is_right else 0.1)]) for is_right in right]

    @property
    def count(self) -> int:
        return sum(len(prompts) for prompts, _ in self.asked)


def echo(prompt: str, seed: int) -> str:
    return prompt


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
    origin, greedy = Origin.of(engine, model="1" * 64, setup="s"), GenerationConfig()
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
    origin = Origin.of(ScriptedEngine(echo), model="1" * 64, setup="s")
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


def write_task(folder: Path, name: str, **settings: Any) -> str:
    rows = [
        {"question": f"question {n}", "answer": f"question {n}", "choices": ["wrong", "right"]}
        for n in range(4)
    ]
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(folder / "cache")},
        "test_split": "test",
        "doc_to_text": "{{question}}",
        **settings,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(task))
    return str(path)


def generate_task(folder: Path, **generation: Any) -> str:
    metric = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
    return write_task(
        folder,
        "local_generate",
        doc_to_target="{{answer}}",
        output_type="generate_until",
        generation_kwargs={"until": ["\n"], "max_gen_toks": 7, "do_sample": False} | generation,
        metric_list=[metric],
    )


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.usefixtures("offline")
def test_tasks_of_lm_eval_run_from_local_files(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda prompt, _: prompt if "3" not in prompt else "else")
    choice = write_task(
        tmp_path,
        "local_choice",
        doc_to_target=1,
        doc_to_choice="choices",
        output_type="multiple_choice",
        metric_list=[{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    )
    run = run_tasks(engine, [generate_task(tmp_path), choice], MODEL, batch_size=3)
    generated, chosen = run.tasks
    assert generated.name == "local_generate"
    assert generated.metrics["exact_match,none"] == 0.75
    assert chosen.metrics["acc,none"] == 1.0
    assert (generated.n, chosen.n) == (4, 4)
    config = engine.asked[0][1]
    assert (config.max_new_tokens, config.stop, config.temperature) == (7, ("\n",), 0.0)
    assert [len(prompts) for prompts, _ in engine.asked] == [3, 1]


@pytest.mark.usefixtures("offline")
def test_what_engines_cannot_do_is_refused_by_name(tmp_path: Path) -> None:
    engine = ScriptedEngine(echo)
    rolling = write_task(
        tmp_path,
        "rolling",
        doc_to_target="{{answer}}",
        output_type="loglikelihood_rolling",
        metric_list=[{"metric": "word_perplexity"}],
    )
    with pytest.raises(CapabilityError, match="perplexity of whole documents"):
        run_tasks(engine, [rolling], MODEL)
    with pytest.raises(CapabilityError, match="num_beams"):
        run_tasks(engine, [generate_task(tmp_path, num_beams=4)], MODEL)


@pytest.mark.usefixtures("offline")
def test_greedy_matches_are_found_by_generating(tmp_path: Path) -> None:
    task = write_task(
        tmp_path,
        "last_word",
        doc_to_target="{{choices[0]}}",
        output_type="loglikelihood",
        metric_list=[{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    )
    wrong = run_tasks(ScriptedEngine(lambda *_: "else"), [task], MODEL)
    right = run_tasks(ScriptedEngine(lambda *_: " wrong"), [task], MODEL)
    assert wrong.tasks[0].metrics["acc,none"] == 0.0
    assert right.tasks[0].metrics["acc,none"] == 1.0


def test_a_failing_engine_ends_the_tasks(tmp_path: Path) -> None:
    def broken(*_: object) -> NoReturn:
        raise EngineError("gone")

    with pytest.raises(EngineError, match="gone"):
        run_tasks(ScriptedEngine(broken), [generate_task(tmp_path)], MODEL)


@pytest.mark.parametrize("text", ["- a list", "task: x\noutput_type: nonsense", "{"])
def test_a_task_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(text)
    with pytest.raises(EvaluationError):
        run_tasks(ScriptedEngine(echo), [str(path)], MODEL)
    with pytest.raises(EvaluationError):
        run_tasks(ScriptedEngine(echo), [str(tmp_path / "absent.yaml")], MODEL)


def test_a_suite_is_run_without_lm_eval() -> None:
    code = (
        "import sys; sys.modules['lm_eval'] = sys.modules['datasets'] = None\n"
        "import test_harness as t\n"
        "run = t.run_suite(t.ScriptedEngine(t.echo), t.make_suite(), t.MODEL)\n"
        "assert [item.value for item in run.items] == [1.0] * 10"
    )
    folder = Path(__file__).parent
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder)


def test_lm_eval_is_not_imported_before_something_is_asked() -> None:
    code = (
        "import sys; import ztom.cli.main, ztom.evaluation.runs.harness\n"
        "import ztom.evaluation.runs.lm_tasks\n"
        "assert not {'lm_eval', 'datasets', 'torch'} & set(sys.modules), 'slow start'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
