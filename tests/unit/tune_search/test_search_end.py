"""How a search ends: what its proof says, where everything is, what to type next, and a status."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import Any

import pytest
from fake_search import make_config
from rich.console import Console
from search_results import make_existing, make_proof, make_result

from tune_search.__main__ import argument_parser, main
from tune_search.command import closing_lines, exit_status, result_lines, run_command
from ztom.errors import ClusterEndedError, StorageError
from ztom.evaluation.gate.verdict import Outcome
from ztom.scoring.proof import ProofOutcome
from ztom.search.existing import Standing
from ztom.search.result import GateSummary, SearchResult

FILE = Path("my search.yaml")


def result(proof: Any, *, stop_reason: str = "budget") -> SearchResult:
    return make_result().model_copy(update={"proof": proof, "stop_reason": stop_reason})


def decided(outcome: ProofOutcome, gate: Outcome | None = None, **more: object) -> Any:
    proof = make_proof()
    summary = None if gate is None else GateSummary(outcome=gate, reasons=("why",), suites={})
    decision = proof.decision.model_copy(update={"outcome": outcome})
    return proof.model_copy(update={"decision": decision, "gate": summary, **more})


IMPROVED, NOT, OPEN = ProofOutcome
PASS, FAIL, UNDECIDED = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("proof", "status"),
    [
        (decided(IMPROVED), 0),
        (decided(NOT), 1),
        (decided(OPEN), 2),
        (decided(IMPROVED, PASS), 0),
        (decided(IMPROVED, FAIL), 1),
        (decided(IMPROVED, UNDECIDED), 2),
        (decided(NOT, PASS), 1),
        (decided(OPEN, PASS), 2),
        (decided(OPEN, FAIL), 1),
        (None, 2),
    ],
)
def test_the_outcome_is_the_status_only_where_that_is_wanted(proof: Any, status: int) -> None:
    assert exit_status(result(proof)) == 0
    assert exit_status(result(proof), by_outcome=True) == status
    interrupted = result(proof, stop_reason="interrupted")
    assert exit_status(interrupted) == exit_status(interrupted, by_outcome=True) == 130


def lines(proof: Any, tmp_path: Path, **more: Any) -> dict[str, str]:
    """The closing lines by their first word."""
    config = make_config(tmp_path, 3)
    made = [line.split(maxsplit=1) for line in closing_lines(result(proof, **more), config, FILE)]
    return {name: text for name, text in reversed(made)}


def test_a_published_variant_can_be_served(tmp_path: Path) -> None:
    proof = decided(IMPROVED, PASS, variant="/srv/out of/variant")
    end = lines(proof, tmp_path)
    interval = proof.decision.improvement
    assert end["proof"].startswith("improved: the error on the holdout goes from ")
    for number in (
        proof.trained_model_error,
        proof.optimized_model_error,
        interval.estimate,
        interval.low,
        interval.high,
    ):
        assert f"{number:.5f}" in end["proof"]
    assert f"(95% interval {interval.low:.5f} to {interval.high:.5f}, 240 groups)" in end["proof"]
    assert end["gate"] == "pass: why"
    assert end["report"] == str(tmp_path / "out" / "report.html")
    assert end["result"] == str(tmp_path / "out" / "result.json")
    assert end["variant"] == "/srv/out of/variant"
    assert end["next"] == "ztom serve '/srv/out of/variant'"


def test_what_is_not_published_can_be_insisted_on(tmp_path: Path) -> None:
    end = lines(decided(OPEN, variant=None), tmp_path)
    assert end["proof"].startswith("inconclusive: ")
    assert end["variant"] == "none was published"
    assert end["next"].startswith("ztom search 'my search.yaml' --resume --set insist=true")


def test_what_was_interrupted_goes_on_with_the_next_command(tmp_path: Path) -> None:
    end = lines(None, tmp_path, stop_reason="interrupted")
    assert end["proof"] == "none: it was interrupted"
    assert end["next"] == "ztom search 'my search.yaml' --resume"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--no-such-option"], "ConfigError: unrecognized arguments: --no-such-option"),
        ([], "ConfigError: no configuration is named"),
        (["nothing.yaml"], "ConfigError: nothing.yaml cannot be read"),
    ],
)
def test_a_job_that_cannot_begin_ends_with_3(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status: object = main(arguments)
    except SystemExit as end:
        status = end.code
    assert status == 3
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_job_does_not_fail_for_what_it_found_unless_it_is_told_to() -> None:
    assert not argument_parser().parse_args(["s.yaml"]).exit_status
    assert argument_parser().parse_args(["s.yaml", "--exit-status"]).exit_status


def test_a_full_disk_ends_a_search_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "out" / "ledger.db"))

    monkeypatch.setattr("tune_search.command.require_stack", lambda: None)
    monkeypatch.setattr("tune_search.command.require_inputs", lambda *_, **__: None)
    monkeypatch.setattr("tune_search.run.search_and_prove", fill)
    config = make_config(tmp_path, 3)
    with pytest.raises(StorageError, match=r"ledger.db: no space left on device\. Free some"):
        run_command(config, resume=False, console=Console(file=io.StringIO()))
    error = (config.output / "error.txt").read_text()
    assert error.startswith("StorageError: ")


def test_a_search_whose_ray_has_ended_gives_no_reason_not_to_start_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*_: object, **__: object) -> None:
        raise ClusterEndedError("Ray has ended")

    monkeypatch.setattr("tune_search.command.require_stack", lambda: None)
    monkeypatch.setattr("tune_search.command.require_inputs", lambda *_, **__: None)
    monkeypatch.setattr("tune_search.run.search_and_prove", end)
    config = make_config(tmp_path, 3)
    with pytest.raises(ClusterEndedError):
        run_command(config, resume=False, console=Console(file=io.StringIO()))
    assert not (config.output / "error.txt").exists()


def test_a_checkpoint_that_is_better_is_the_first_line(tmp_path: Path) -> None:
    config = make_config(tmp_path, 3)
    made = make_result(proof=make_proof(), **make_existing())
    printed = result_lines(made, config, FILE)
    assert printed[0] == "checkpoint 00-base alone is better: use it"
    assert "baseline_inferences        4" in printed
    assert "exists   00-base (checkpoint): search set 2.80000, holdout 2.80900" in printed
    assert "exists   average: search set 2.90000, holdout 2.90000" in printed
    assert "step     00-base -> 01-last: +0.10000 (100% of the estimated gain)" in printed
    assert "warning  step x changes nothing" in printed
    better = make_result(proof=make_proof(), **make_existing(Standing.BETTER))
    printed = result_lines(better, config, FILE)
    assert printed[0].startswith("trained_model_error ")
    assert any("the blend is better" in line for line in printed)
