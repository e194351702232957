"""``ztom project edit``, ``metatune`` and ``ztom analysis`` against a server, by names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import command_line
import pytest
import requests
import torch
from saved_models import edit_config
from server_helpers import Server, serving, tar_of
from toys import make_chain

from serve_apps.control_plane.config import ServerConfig
from ztom.checkpoints.checkpoint import open_checkpoint
from ztom.engines.config import EngineConfig
from ztom.settings import Settings

Run = Callable[..., CompletedProcess[str]]
ALLOW = ("--allow-config-differences", "rms_norm_eps")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("analyses")
    engine = EngineConfig(name="torch", dtype="float32")
    config = ServerConfig(
        data=home / "data", poll_s=0.05, engine=engine, pointer_roots=(str(home),)
    )
    with serving(config) as server:
        yield server


@pytest.fixture(scope="module")
def ada(server: Server) -> requests.Session:
    return server.as_user("ada")


@pytest.fixture(scope="module")
def chain(
    server: Server, ada: requests.Session, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """The project ``support``: week-0, week-1, week-2, the last of which has another epsilon."""
    paths = make_chain(tmp_path_factory.mktemp("chain"))
    edit_config(paths[2], rms_norm_eps=1e-5)
    project = server.project(ada, "support")
    for number, path in enumerate(paths):
        server.upload(ada, project, tar_of(path), fileName=f"file-{number}", tag=f"week-{number}")
    server.scored(ada, project)
    return paths


@pytest.fixture
def run(server: Server, chain: list[Path], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("ZTOM_API_KEY", server.token("ada"))
    monkeypatch.setenv("ZTOM_SERVER", server.url)
    return command_line.ztom


def document(done: CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def norm(path: Path) -> torch.Tensor:
    return open_checkpoint(str(path), settings=Settings()).read("model.embed_tokens.weight")


def test_edits_by_name(run: Run, chain: list[Path], tmp_path: Path) -> None:
    refused = run("project", "edit", "support", "week-2", "--output", tmp_path / "left")
    assert (refused.returncode, "rms_norm_eps" in refused.stderr) == (3, True)
    done = run("project", "edit", "support", "week-2", "--output", tmp_path / "left", *ALLOW)
    assert done.returncode == 0, done.stderr
    path, warning = done.stdout.splitlines()
    assert path == str(tmp_path / "left")
    assert "rms_norm_eps" in warning
    torch.testing.assert_close(norm(tmp_path / "left"), norm(chain[1]))
    factors = ("--factor", "week-1=0.5", "--factor", "file-2=-0.25")
    archive = tmp_path / "tuned.tar"
    command = ("project", "metatune", "support", *factors, "--output", archive, *ALLOW, "--json")
    made = document(run(*command))
    assert made["path"] == str(archive)
    assert len(made["warnings"]) == 1
    base, first, last = map(norm, chain)
    wanted = last + 0.5 * (first - base) - 0.25 * (last - first)
    torch.testing.assert_close(norm(archive), wanted)


@pytest.mark.parametrize("factor", ["week-1", "=0.5", "week-1=much"])
def test_a_factor_that_is_none(run: Run, factor: str) -> None:
    done = run("project", "metatune", "support", "--factor", factor, "--output", "t.tar")
    assert (done.returncode, "expected FILE=NUMBER" in done.stderr) == (3, True)


def test_static_analysis_lists_the_most_changed_first(run: Run) -> None:
    static = ("analysis", "static", "support", "week-1", *ALLOW)
    answer = document(run(*static, "--json"))
    scores = sorted(answer["result"]["parameter_scores"].values(), reverse=True)
    done = run(*static, "--most", 3)
    summary, _, *rows, rest = done.stdout.splitlines()
    assert summary == f"weights {answer['weight_summary_score']:.5g}, biases 0"
    assert [row.split()[1] for row in rows] == [f"{score:.5g}" for score in scores[:3]]
    assert rest == f"and {len(scores) - 3} more; --most {len(scores)} lists all"
    name = rows[0].split()[0]
    one = document(run(*static, "--latest", "--weights", name, "--json"))
    assert list(one["absolute_weight_difference"]) == [name]
    assert one["weight_summary_score"] > 0


def test_what_checkpoints_answer(run: Run, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "The quick"}\n{"prompt": "open a file"}\n')
    short = ("--max-new-tokens", 3)
    ask = ("analysis", "inference", "support/week-2", prompts, *short)
    answer = document(run(*ask, "--batch-size", 1, "--json"))
    first, second = answer["result"]["model_output"]
    done = run(*ask)
    assert done.stdout == f"1  {first}\n2  {second}\n"
    scale = ("analysis", "sensitivity", "support", "week-1", prompts, *short, *ALLOW)
    both = document(run(*scale, "--factor", "0.5", "--json"))
    assert both["result"]["model_output"] == [first, second]
    lines = run(*scale, "--factor", "0.5").stdout.splitlines()
    assert lines[0] == f"1 trained  {first}"
    assert lines[3] == f"2 scaled   {both['attenuated_model_output'][1]}"


def test_stimuli_of_the_server_and_several_of_this_machine(
    run: Run, server: Server, tmp_path: Path
) -> None:
    several = [tmp_path / f"{number}.json" for number in range(2)]
    for path in several:
        path.write_text('{"prompt": "The quick"}')
    refused = run("analysis", "inference", "support/week-2", *several)
    assert (refused.returncode, "one file of this machine" in refused.stderr) == (3, True)
    roots = server.services.config.data.parent
    for number in range(2):
        (roots / f"{number}.json").write_text('{"prompt": "The quick"}')
    paths = [f"file://{roots}/{number}.json" for number in range(2)]
    done = run("analysis", "inference", "support/week-2", *paths, "--max-new-tokens", 2)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    unknown = run("analysis", "inference", "support/week-9", paths[0])
    assert (unknown.returncode, "there is no checkpoint week-9" in unknown.stderr) == (3, True)
