"""A search of the installed wheel in a pipe, on its default engine: what a CI job's log shows."""

from __future__ import annotations

import json
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from installed import Installed
from toys import make_chain

#: Seconds without a line: 15 are promised, and a busy machine is a little late.
MOST_SILENCE_S = 25.0
WORDS = ("apple", "banana", "cherry", "dog", "eagle", "fox", "grape", "house", "island")


@dataclass(frozen=True)
class Log:
    """What a command printed in a pipe: each line with the second at which it came."""

    status: int
    lines: list[tuple[float, str]]
    out: str
    seconds: float

    @property
    def silences(self) -> list[float]:
        times = [0.0, *(time for time, _ in self.lines), self.seconds]
        return [after - before for before, after in zip(times, times[1:], strict=False)]


@pytest.fixture(scope="module")
def log(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Log:
    folder = tmp_path_factory.mktemp("terminal")
    make_chain(folder / "chain")
    write_search(folder)
    began = time.monotonic()
    with subprocess.Popen(
        [installed.ztom, "search", "search.yaml"],
        stdout=(folder / "out").open("w"),
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=installed.environment(),
    ) as running:
        assert running.stderr is not None
        lines = [(time.monotonic() - began, line.rstrip("\n")) for line in running.stderr]
        status = running.wait()
    return Log(status, lines, (folder / "out").read_text(), time.monotonic() - began)


def write_search(folder: Path) -> None:
    stimuli = [
        {
            "prompt": f"what is {WORDS[i % 9]} {WORDS[(i * 7 + i // 9) % 9]} number {i * 37}",
            "expected": f"it is {WORDS[(i * 5) % 9]} {i}",
        }
        for i in range(32)
    ]
    (folder / "stimuli.jsonl").write_text("\n".join(map(json.dumps, stimuli)) + "\n")
    content = {
        "chain": {"checkpoints": [str(folder / "chain" / name) for name in ("00", "01", "02")]},
        "stimuli": "stimuli.jsonl",
        "error": "cross_entropy",
        "scaling_factor_limit": 0.5,
        "budget": {"evaluations": 3},
        "output": "out-folder",
    }
    (folder / "search.yaml").write_text(yaml.safe_dump(content))


@pytest.mark.brings("terminal", "a search in a pipe", "a line at least every 15 s; 0 at the end")
def test_a_search_in_a_pipe_is_never_silent_for_long(log: Log) -> None:
    printed = "\n".join(text for _, text in log.lines)
    assert log.status == 0, printed
    assert max(log.silences) < MOST_SILENCE_S, printed
    assert any(re.search(r"engine ready after .* vllm", text) for _, text in log.lines), printed
    assert "Traceback" not in printed


@pytest.mark.brings("terminal", "the end of a search", "proof, interval, places, next command")
def test_a_search_ends_with_its_proof_and_the_next_command(log: Log) -> None:
    end = {name: text for name, text in (line.split(maxsplit=1) for line in log.out.splitlines())}
    assert re.match(r"(improved|no improvement|inconclusive): ", end["proof"])
    assert re.search(r"\(95% interval -?\d\.\d+ to -?\d\.\d+, \d+ groups\)", end["proof"])
    for name in ("report", "result"):
        assert Path(end[name]).is_file()
    assert end["next"].startswith("ztom ")
    assert "variant" in end


@pytest.mark.brings("terminal", "wrong options", "one sentence and status 3")
def test_what_is_wrong_is_one_sentence(installed: Installed, tmp_path: Path) -> None:
    write_search(tmp_path)
    done = installed.run(
        "search", "search.yaml", "--set", "error=no_such", cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1
    assert "unknown error function: got no_such" in done.stderr
