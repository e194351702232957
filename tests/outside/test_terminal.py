"""A search of the installed wheel in a pipe, on its default engine: what a CI job's log shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from installed import Installed
from wide_search import WideSearch, write_wide_search

#: Seconds without a line: 15 are promised, and a busy machine is a little late.
MOST_SILENCE_S = 25.0


@pytest.mark.abuse(125)
@pytest.mark.brings("terminal", "a search in a pipe", "a line at least every 15 s; 0 at the end")
def test_a_search_in_a_pipe_is_never_silent_for_long(wide_search: WideSearch) -> None:
    printed = wide_search.printed
    assert wide_search.status == 0, printed
    assert max(wide_search.silences) < MOST_SILENCE_S, printed
    assert re.search(r"engine ready after .* vllm", printed), printed
    assert "Traceback" not in printed


@pytest.mark.brings("terminal", "the end of a search", "proof, interval, places, next command")
def test_a_search_ends_with_its_proof_and_the_next_command(wide_search: WideSearch) -> None:
    words = [text.split(maxsplit=1) for _, text in wide_search.lines]
    end = {pair[0]: pair[1] for pair in words if len(pair) == 2}
    assert re.match(r"(improved|no improvement|inconclusive): ", end["proof"])
    assert re.search(r"\(95% interval -?\d\.\d+ to -?\d\.\d+, \d+ groups\)", end["proof"])
    for name in ("report", "result"):
        assert Path(end[name]).is_file()
    assert end["next"].startswith("ztom ")
    assert "variant" in end


@pytest.mark.brings(
    "terminal", "a checkpoint that was there before", "is measured and compared with the blend"
)
def test_what_exists_is_measured_on_the_default_engine(wide_search: WideSearch) -> None:
    result = wide_search.result()
    *checkpoints, mean = result["existing"]
    assert [model["kind"] for model in checkpoints].count("trained") == 1
    assert mean["kind"] == "average"
    assert mean["factors"] == pytest.approx([-1 / 3, -2 / 3])
    for model in result["existing"]:
        assert model["search_error"] > 0, model
        assert model["holdout_error"] > 0, model
    best = result["best_existing"]
    assert best["outcome"] in ("better", "not distinguishable", "worse")
    assert best["name"] in [model["name"] for model in checkpoints]
    compared = [trial for trial in result["trials"] if trial["kind"] == "comparison"]
    assert result["baseline_inferences"] == 2 * len(compared) == 6
    assert result["number_of_inferences"] == len(result["trials"]) - len(compared)
    printed = [text.split(maxsplit=1)[0] for _, text in wide_search.lines if text.strip()]
    assert printed.count("exists") == 4


@pytest.mark.brings("terminal", "wrong options", "one sentence and status 3")
def test_what_is_wrong_is_one_sentence(installed: Installed, tmp_path: Path) -> None:
    write_wide_search(tmp_path, tmp_path / "chain.yaml")
    done = installed.run(
        "search", "search.yaml", "--set", "error=no_such", cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1
    assert "unknown error function: got no_such" in done.stderr
