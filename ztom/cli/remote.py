"""Commands that speak to a server: login, project, and search with ``--project``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ztom.cli.console import moment, plain_console
from ztom.client import Client, SearchAnswer
from ztom.errors import ConfigError
from ztom.io.files import write_whole

#: Keys of a search's file, and what the wire calls them.
_WIRE = {
    "error": "error",
    "batch_size": "batchSize",
    "inference_config": "inferenceConfigJson",
    "detailed_output": "detailedOutput",
    "labels": "labels",
    "sampler": "sampler",
    "seed": "seed",
    "insist": "insist",
    "suites": "suitePaths",
    "engine": "engine",
}
_DATA = {"holdout": "holdoutPath", "holdout_expected_outputs": "holdoutExpectedOutputPath"}
_ELSEWHERE = {"name", "chain", "output", "ledger"}


def connect(server: str | None) -> Client:
    """A client of the server, with the key of the environment or of the last login.

    Raises:
        ConfigError: No server is named, or nobody logged in to it.
    """
    server = server or os.environ.get("ZTOM_SERVER")
    if not server:
        raise ConfigError("no server is named", fix="Give --server, or set ZTOM_SERVER.")
    key = os.environ.get("ZTOM_API_KEY") or _credentials().get(server.rstrip("/"))
    if not key:
        raise ConfigError(
            f"nobody is logged in to {server}",
            fix=f"ztom login {server} NAME, or set ZTOM_API_KEY.",
        )
    return Client(server, key=key)


def login_command(server: str, username: str, *, stdin: bool) -> None:
    """Log in and keep the token, readable by its owner only."""
    from ztom.cli.server import read_password

    with Client.login(server, username, read_password(stdin=stdin, twice=False)) as client:
        kept = {**_credentials(), server.rstrip("/"): client.key}
    write_whole(_credentials_path(), json.dumps(kept), private=True)
    Console().print(f"logged in to {server} as {username}", markup=False, highlight=False)


def projects_command(server: str | None) -> None:
    """List projects and their files."""
    table = Table("project", "name", "file", "part", "status", "change", box=None, pad_edge=False)
    with connect(server) as client:
        for project in client.projects():
            files = (*(() if project.base_model is None else (project.base_model,)), *project.files)
            table.add_row(project.id, project.name)
            for file in files:
                change = file.total_weight_contribution
                shown = "" if change is None else f"{change:.3g}"
                name = file.tag or file.file_name
                table.add_row("", "", f"{file.id}  {name}", file.part, file.status, shown)
    plain_console().print(table)


def create_project_command(name: str, description: str, server: str | None) -> None:
    """Make a project and say its id."""
    with connect(server) as client:
        print(client.create_project(name, description).id)


def add_command(
    project: str, paths: list[str], *, base: bool, pointer: bool, server: str | None
) -> None:
    """Add checkpoints in this order."""
    with connect(server) as client:
        for path in paths:
            if pointer:
                client.point_to(project, path, base=base)
            else:
                client.add_checkpoint(project, path, base=base, progress=True)


def download_command(project: str, file: str, output: Path, server: str | None) -> None:
    """Save a checkpoint."""
    with connect(server) as client:
        print(client.download(project, file, output))


def log_command(project: str, server: str | None) -> None:
    """List what was asked of the server for a project."""
    table = Table("request", "kind", "status", "asked", "reason", box=None, pad_edge=False)
    with connect(server) as client:
        for each in client.results(project):
            row = (each.request_id, each.kind, each.status, moment(each.created_at))
            table.add_row(*row, each.reason or "")
    plain_console().print(table)


def search_command(config: Path, overrides: list[str], project: str, server: str | None) -> int:
    """Run a search's file on the server, with the project's chain; returns the exit status."""
    from ztom.search.config_files import read_content

    options = search_options(read_content(config, overrides), config.parent)
    with connect(server) as client:
        answer = client.search(project, progress=True, **options)
    for line in _lines(answer):
        Console(stderr=True).print(line, markup=False, highlight=False)
    return 0


def search_options(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What `Client.search` takes, from a search's file.

    The chain is the project's, so the file's is left aside, and so is where results go.

    Raises:
        ConfigError: The file has no stimuli, or says something that the server cannot do.
    """
    unknown = set(content) - {
        *_WIRE, *_DATA, *_ELSEWHERE, "stimuli", "expected_outputs", "scaling_factor_limit", "budget"
    }  # fmt: skip
    if unknown:
        raise ConfigError(
            "the server does not take this part of a search's file",
            got=", ".join(sorted(unknown)),
            fix="Leave it out, or run the search here, without --project.",
        )
    if "stimuli" not in content:
        raise ConfigError("the file names no stimuli")

    def anchored(value: str) -> str | Path:
        return value if "://" in value or value.startswith("data:") else folder / value

    options: dict[str, Any] = {
        "stimuli": anchored(str(content["stimuli"])),
        "limit": float(content.get("scaling_factor_limit", 0.1)),
    }
    if "expected_outputs" in content:
        options["expected_outputs"] = anchored(str(content["expected_outputs"]))
    options |= {_DATA[k]: anchored(str(content[k])) for k in _DATA if k in content}
    options |= {_WIRE[k]: content[k] for k in _WIRE if k in content}
    if isinstance(options.get("sampler"), dict):
        options["sampler"] = options["sampler"].get("name", "gp")
    budget = content.get("budget") or {}
    if "evaluations" in budget:
        options["maxEvaluations"] = int(budget["evaluations"])
    return options


def _lines(answer: SearchAnswer) -> list[str]:
    factors = ", ".join(f"{factor:+.4g}" for factor in answer.optimized_scaling_factors)
    return [
        f"trained_model_error        {answer.trained_model_error:.5f}",
        f"optimized_model_error      {answer.optimized_model_error:.5f}",
        f"optimized_scaling_factors  {factors}",
        f"number_of_inferences       {answer.number_of_inferences}",
        f"verdict                    {answer.verdict or 'none'}",
        f"mastered checkpoint        {answer.checkpoint_id or 'none was released'}",
        f"request                    {answer.request_id}",
    ]


def _credentials_path() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "ztom" / "credentials.json"


def _credentials() -> dict[str, str]:
    try:
        found = json.loads(_credentials_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
