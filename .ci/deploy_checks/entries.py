"""What starts on the cluster: commands, the server's builder, a job's search; by the real code."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from deploy_checks.charts import documents
from deploy_checks.machines import RAY_UP
from deploy_checks.rules import containers
from deploy_checks.tools import Skipped

#: What the command of a job gives it besides.
_LEDGER = "postgresql+psycopg://ztom@db.ztom.internal/ztom"


def check_commands() -> list[str]:
    """Every command of ours is one that its own parser takes."""
    findings = []
    seen = set()
    for place, words in commands():
        seen.add(words[2])
        if problem := command_problem(words):
            findings.append(f"{place}: {shlex.join(words)}: {problem}")
    wanted = {"tune_search", "cluster.drain", "cluster.health"}
    return [*findings, *(f"nothing starts {name}" for name in sorted(wanted - seen))]


def commands() -> Iterator[tuple[str, list[str]]]:
    """Words of every `python -m ...` of the chart and of skypilot.yaml, with their place."""
    lines = [(name, line) for name, doc in documents() for line in _entry_points(doc)]
    task = yaml.safe_load((RAY_UP / "skypilot.yaml").read_text(encoding="utf-8"))
    lines += [("skypilot.yaml", line) for line in task["run"].splitlines()]
    for place, line in lines:
        yield place, shlex.split(line)
    for place, container in containers():
        hook = container.get("lifecycle", {}).get("preStop", {}).get("exec", {})
        for words in (container.get("command"), hook.get("command")):
            if words:
                yield place, words


def _entry_points(document: dict[str, Any]) -> list[str]:
    spec = document.get("spec", {})
    found = [spec.get("entrypoint"), spec.get("jobTemplate", {}).get("entrypoint")]
    return [line for line in found if line]


def command_problem(words: list[str]) -> str | None:
    """What the parser of a `python -m ...` says against its words; None where it takes them."""
    if words[:2] != ["python", "-m"]:
        return "it is no `python -m ...`"
    name = words[2]
    with_main = importlib.util.find_spec(f"{name}.__main__") if _is_package(name) else None
    module = importlib.import_module(f"{name}.__main__" if with_main else name)
    parser: argparse.ArgumentParser = module.argument_parser()
    try:
        parser.parse_args(words[3:])
    except SystemExit:
        return "its parser refuses that"
    return None


def _is_package(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.submodule_search_locations is not None


def check_serve_config() -> list[str]:
    """`serveConfigV2` is what Serve takes, with no misspelt key, and what its builder takes."""
    from ray.serve.schema import ServeDeploySchema

    findings = []
    for place, document in documents():
        if document["kind"] == "RayService":
            content = yaml.safe_load(document["spec"]["serveConfigV2"])
            schema = ServeDeploySchema.model_validate(content)
            findings += [f"{place}: {p}" for p in unknown_keys(content, schema, "serveConfigV2")]
            for application in content["applications"]:
                problem = builder_problem(application["import_path"], application["args"])
                findings += [f"{place}: {problem}"] if problem else []
    return findings


def unknown_keys(content: dict[str, Any], model: BaseModel, path: str) -> list[str]:
    """Keys that a model of Serve would have ignored."""
    known = set(type(model).model_fields)
    findings = [f"{path}.{key} is not known" for key in content if key not in known]
    for key, value in content.items():
        part = getattr(model, key, None)
        if isinstance(part, BaseModel) and isinstance(value, dict):
            findings += unknown_keys(value, part, f"{path}.{key}")
        elif isinstance(value, list) and isinstance(part, list):
            for item, made in zip(value, part, strict=True):
                if isinstance(made, BaseModel):
                    findings += unknown_keys(item, made, f"{path}.{key}")
    return findings


def builder_problem(path: str, arguments: dict[str, Any]) -> str | None:
    """What is wrong with a builder, or with its arguments, which are the server's configuration."""
    from serve_apps.control_plane.config import ServerConfig

    module, _, name = path.partition(":")
    builder = getattr(importlib.import_module(module), name, None)
    if not callable(builder):
        return f"there is no {path}"
    needed = [
        parameter
        for parameter in inspect.signature(builder).parameters.values()
        if parameter.default is parameter.empty
    ]
    if len(needed) != 1:
        raise Skipped(f"{path} takes {len(needed)} arguments, and Serve gives one")
    try:
        ServerConfig(**arguments)
    except ValueError as error:
        return f"{path} refuses its arguments: {error}"
    return None


def check_searches() -> list[str]:
    """The searches of jobs are configurations that load."""
    from tune_search.command import ledger_override
    from ztom.search.config_files import load_config

    findings = []
    found = 0
    for place, document in documents():
        text = document.get("data", {}).get("search.yaml")
        if text is None:
            continue
        found += 1
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "search.yaml"
            path.write_text(text, encoding="utf-8")
            try:
                load_config(path, [ledger_override(_LEDGER)])
            except ValueError as error:
                findings.append(f"{place}: {error}")
    return findings if found else ["no case has a search"]
