"""The user's own error function: what it may do, and everything it may do wrong."""

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ztom.errors import ConfigError, ScoringError
from ztom.scoring.build import ErrorTerm, build_error
from ztom.scoring.user_function import UserFunction
from ztom.scoring.user_process import Limits
from ztom.statistics.scores import MeanScores, WholeSetScores
from ztom.stimuli.records import Message, Output, Stimulus

#: Told apart from every other sleep on this machine.
SLEEP = f"607.{os.getpid()}"

MODULE = """
import ctypes, math, os, signal, subprocess, sys, threading, time
import numpy as np

def length(prompts, outputs, expected):
    return [float(abs(len(o) - len(e))) for o, e in zip(outputs, expected)]

def as_array(prompts, outputs, expected):
    return np.arange(len(prompts), dtype=np.float32)

def as_whole(prompts, outputs, expected):
    return np.float64(0.5)

def arguments(prompts, outputs, expected):
    raise LookupError(repr((prompts, outputs, expected)))

def raises(prompts, outputs, expected):
    raise ValueError("the tokenizer is missing")

def leaves(prompts, outputs, expected):
    sys.exit(3)

def hangs(prompts, outputs, expected):
    time.sleep(600)

def hangs_with_children(prompts, outputs, expected):
    for session in (False, True):
        subprocess.Popen(["sleep", "SLEEP"], process_group=0 if session else None)
    time.sleep(600)

def dies(prompts, outputs, expected):
    print("about to go", flush=True)
    os._exit(7)

def killed(prompts, outputs, expected):
    os.kill(os.getpid(), signal.SIGKILL)

def segfaults(prompts, outputs, expected):
    ctypes.string_at(0)

def prints_without_end(prompts, outputs, expected):
    while True:
        print("x" * 100_000)

def prints_a_little(prompts, outputs, expected):
    print("y" * 200_000)
    print("z" * 200_000, file=sys.stderr)
    return [1.0] * len(prompts)

def forks_many(prompts, outputs, expected):
    for _ in range(12):
        subprocess.Popen(["sleep", "SLEEP"])
    time.sleep(600)

def forks_and_both_return(prompts, outputs, expected):
    os.fork()
    return [2.0] * len(prompts)

def eats_memory(prompts, outputs, expected):
    return [float(len(bytearray(2**31)))] * len(prompts)

def nan(prompts, outputs, expected):
    return [0.0] * (len(prompts) - 1) + [math.nan]

def infinite(prompts, outputs, expected):
    return math.inf

def none(prompts, outputs, expected):
    return None

def none_inside(prompts, outputs, expected):
    return [None] * len(prompts)

def text(prompts, outputs, expected):
    return "0.5"

def booleans(prompts, outputs, expected):
    return [True] * len(prompts)

def too_short(prompts, outputs, expected):
    return [1.0]

def nested(prompts, outputs, expected):
    return np.ones((len(prompts), 2))

def environment(prompts, outputs, expected):
    raise LookupError(",".join(sorted(os.environ)))

def garbage_in_the_pipe(prompts, outputs, expected):
    for descriptor in range(3, 1024):
        try:
            os.write(descriptor, b"garbage!" * 4)
        except OSError:
            pass
    return [1.0] * len(prompts)

calls = 0
def counts_calls(prompts, outputs, expected):
    global calls
    calls += 1
    return [float(calls)] * len(prompts)

not_a_function = 3
"""

STIMULI = [Stimulus(f"s{i}", f"question {i}", f"answer {i}", f"g{i}") for i in range(3)]
OUTPUTS = [Output(text="answer"), Output(text="answer 1"), Output(text="")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_errors.py").write_text(MODULE.replace("SLEEP", SLEEP))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def make(folder: Path):
    made = []

    def _make(name: str, **options) -> UserFunction:
        options.setdefault("deadline_s", 60.0)
        made.append(UserFunction(f"my_errors:{name}", **options))
        return made[-1]

    yield _make
    for function in made:
        function.close()


def _message(function: UserFunction) -> str:
    with pytest.raises(ScoringError) as caught:
        function.score(STIMULI, OUTPUTS)
    return str(caught.value)


def test_errors_per_stimulus_arrive_in_order(make):
    scores = make("length").score(STIMULI, OUTPUTS)
    assert isinstance(scores, MeanScores)
    assert scores.per_stimulus.tolist() == [2.0, 0.0, 8.0]
    assert make("as_array").score(STIMULI, OUTPUTS).per_stimulus.tolist() == [0.0, 1.0, 2.0]


def test_one_number_is_the_error_of_the_whole_set(make):
    scores = make("as_whole").score(STIMULI, OUTPUTS)
    assert isinstance(scores, WholeSetScores)
    assert scores.per_stimulus.tolist() == [0.5, 0.5, 0.5]
    assert scores.aggregate().tolist() == [0.5]


def test_it_is_given_prompts_outputs_and_expected_as_text(make):
    turns = (Message("system", "Be brief."), Message("user", "Hi?"))
    stimuli = [Stimulus("a", turns, "Hello.", "a"), Stimulus("b", (1.0, 2.5), "3", "b")]
    function = make("arguments")
    with pytest.raises(ScoringError, match="LookupError") as caught:
        function.score(stimuli, [Output(text="Ho."), Output(text="4")])
    expected = (["system: Be brief.\nuser: Hi?", "1.0, 2.5"], ["Ho.", "4"], ["Hello.", "3"])
    assert repr(expected) in str(caught.value)


def test_the_process_lives_from_call_to_call(make):
    function = make("counts_calls")
    results = [function.score(STIMULI, OUTPUTS).aggregate()[0] for _ in range(3)]
    assert results == [1.0, 2.0, 3.0]


@pytest.mark.abuse(45)
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("raises", "ValueError (my_errors.py line 18): the tokenizer is missing"),
        ("leaves", "SystemExit"),
        ("none", "it returned None, not a number"),
        ("none_inside", "entry 0 is None, not a number"),
        ("text", "it returned a str, not a number"),
        ("booleans", "entry 0 is a bool, not a number"),
        ("nested", "entry 0 is a list, not a number"),
        ("too_short", "wrong number of errors: got 1, expected 3"),
        ("nan", "1 of 3 errors that are not finite numbers: got nan (first: s2)"),
        ("infinite", "not finite numbers: got inf (first: the whole set)"),
        ("eats_memory", "MemoryError"),
    ],
)
def test_a_wrong_answer_fails_that_call_with_its_message(make, name, said):
    function = make(name, memory_bytes=2**30)
    message = _message(function)
    assert said in message
    assert f"my_errors:{name}" in message


@pytest.mark.abuse(47)
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dies", "its process died (exit status 7): got last printed: about to go"),
        ("killed", "its process died (SIGKILL)"),
        ("segfaults", "its process died (SIGSEGV): got last printed: Fatal Python error"),
        ("garbage_in_the_pipe", "reply"),
    ],
)
def test_a_death_is_reported_and_the_next_call_has_a_fresh_process(make, name, said):
    function = make(name)
    for _ in range(2):
        assert said in _message(function)
    function._target = "my_errors:length"
    assert function.score(STIMULI, OUTPUTS).per_stimulus.tolist() == [2.0, 0.0, 8.0]


@pytest.mark.abuse(46)
def test_a_hang_ends_at_the_deadline_with_all_its_children(make):
    function = make("hangs_with_children", deadline_s=1.5)
    assert "not done before its deadline of 1.5 s" in _message(function)
    _assert_nothing_sleeps()


@pytest.mark.abuse(48)
def test_a_bomb_of_processes_is_stopped(make):
    function = make("forks_many", limits=Limits(processes=8))
    assert "it started more than 8 processes" in _message(function)
    _assert_nothing_sleeps()


@pytest.mark.abuse(48)
def test_endless_printing_is_stopped_and_some_printing_is_fine(make):
    function = make("prints_without_end", limits=Limits(printed_bytes=2**20))
    assert "it printed more than 1048576 bytes" in _message(function)
    assert make("prints_a_little").score(STIMULI, OUTPUTS).aggregate().tolist() == [1.0]


def test_the_process_does_not_outlive_ours(folder):
    caller = (
        "from ztom.scoring.user_function import UserFunction\n"
        "from ztom.stimuli.records import Output, Stimulus\n"
        "function = UserFunction('my_errors:hangs_with_children', deadline_s=600)\n"
        "function.score([Stimulus('a', 'q', 'e', 'g')], [Output(text='t')])\n"
    )
    root = Path(__file__).parents[3]
    process = subprocess.Popen(
        [sys.executable, "-c", caller], env={**os.environ, "PYTHONPATH": str(root)}
    )
    end = time.monotonic() + 60
    while not _sleepers():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    (child,) = _children(process.pid)
    process.kill()
    process.wait()
    while (Path("/proc") / child).exists() and _is_alive(Path("/proc") / child):
        assert time.monotonic() < end
        time.sleep(0.05)
    _assert_nothing_sleeps()


def test_a_fork_that_returns_twice_answers_once(make):
    function = make("forks_and_both_return")
    for _ in range(3):
        assert function.score(STIMULI, OUTPUTS).aggregate().tolist() == [2.0]


@pytest.mark.abuse(49)
def test_the_environment_is_clean_except_for_what_is_passed_on(make, monkeypatch):
    for name in ("RAY_AUTH_TOKEN", "HF_TOKEN", "MY_JUDGE_KEY"):
        monkeypatch.setenv(name, "secret")
    message = _message(make("environment", pass_environment=("MY_JUDGE_KEY",)))
    assert "MY_JUDGE_KEY" in message
    assert "PATH" in message
    assert "RAY_AUTH_TOKEN" not in message
    assert "HF_TOKEN" not in message


def test_a_pickled_copy_works_from_another_folder(make, tmp_path_factory, monkeypatch):
    function = make("length")
    function.score(STIMULI, OUTPUTS)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    copy = pickle.loads(pickle.dumps(function))
    assert copy.score(STIMULI, OUTPUTS).per_stimulus.tolist() == [2.0, 0.0, 8.0]
    copy.close()


def test_it_is_found_on_pythonpath(folder, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    assert build_error("my_errors:length").needs == {"text"}


def test_closing_ends_the_process(make):
    function = make("length")
    function.score(STIMULI, OUTPUTS)
    pid = function._child._process.pid
    function.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("my_errors:missing", "AttributeError"),
        ("no_such_module:f", "ModuleNotFoundError"),
        ("my_errors:not_a_function", "my_errors:not_a_function is not a function"),
        ("broken:f", "SyntaxError"),
        ("quits:f", "SystemExit"),
    ],
)
def test_what_cannot_be_imported_is_refused_before_the_search(folder, target, said):
    (folder / "broken.py").write_text("def f(:")
    (folder / "quits.py").write_text("raise SystemExit(0)")
    with pytest.raises(ConfigError, match="cannot be imported") as caught:
        build_error(target)
    assert said in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_hanging_import_ends_at_the_deadline(folder):
    (folder / "slow.py").write_text("import time; time.sleep(600)")
    with pytest.raises(ConfigError, match=r"deadline of 0\.5 s"):
        build_error(ErrorTerm(function="slow:f", deadline_s=0.5))


def test_modules_of_ours_do_not_shadow_the_standard_library(make, folder):
    (folder / "uses_statistics.py").write_text(
        "from statistics import mean\ndef f(p, o, e): return [mean([1, 2])] * len(p)\n"
    )
    scores = build_error("uses_statistics:f").score(STIMULI, OUTPUTS)
    assert scores.aggregate().tolist() == [1.5]


def test_no_stimuli_is_an_error(make):
    with pytest.raises(ScoringError, match="no stimuli"):
        make("length").score([], [])


def _assert_nothing_sleeps() -> None:
    """No ``sleep`` of ours is left; a killed process may take a moment to vanish."""
    end = time.monotonic() + 60
    while left := _sleepers():
        assert time.monotonic() < end, left
        time.sleep(0.05)


def _sleepers() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == f"sleep\0{SLEEP}\0".encode() and _is_alive(path.parent):
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _is_alive(folder: Path) -> bool:
    return (folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
