"""``ztom gate --ci``: the workflow that runs this gate and fails its job unless it passes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import jinja2

from ztom.cli.console import plain_console, print_document
from ztom.cli.gate.request import WHO, GateRequest, System
from ztom.errors import ConfigError
from ztom.io.files import write_document
from ztom.version import __version__

FILES = {
    System.GITHUB: Path(".github/workflows/ztom-gate.yml"),
    System.GITLAB: Path(".gitlab-ci.yml"),
}
_AFTER = {
    System.GITHUB: "make its job a required check of the branch, and only what passes is merged",
    System.GITLAB: 'turn on "Pipelines must succeed", and only what passes is merged',
}
_TEMPLATES = Path(__file__).with_name("workflows")
_REPORT = "gate-report"
_USUAL = (None, "auto", "vllm")
#: What is filled in where nobody said anything.
_PLACES = {"candidate": "models/candidate", "champion": "models/champion"}


def ci_command(request: GateRequest, system: System, *, force: bool) -> None:
    """Write the workflow into the working folder.

    Raises:
        ConfigError: There is one, or an option cannot be written into it.
    """
    path = FILES[system]
    if path.exists() and not force:
        raise ConfigError(f"{path} exists", fix="--force replaces it.")
    write_document(path, workflow(request, system))
    if request.as_json:
        print_document({"path": path.absolute()})
    else:
        plain_console().print(f"{path}: {_AFTER[system]}", soft_wrap=True)


def workflow(request: GateRequest, system: System) -> str:
    """The text of the workflow.

    Raises:
        ConfigError: An option cannot be written there.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=False,  # YAML; every value is quoted for the shell
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template(f"{system}.yml.jinja").render(
        version=__version__,
        suites=_quoted([str(path) for path in request.suites]),
        gate=list(_options(request)),
        report=_REPORT,
    )


def _options(request: GateRequest) -> Iterator[str]:
    """The options of the gate, each quoted for the shell."""
    for who in WHO:
        place = None if who == "champion" and request.first else _PLACES.get(who)
        model = request.models[who] or (None if request.runs[who] else place)
        if model is not None:
            yield _option(who, model)
        for path in request.runs[who]:
            yield _option(f"{who}-run", str(path))
    for path in request.suites:
        yield _option("suites", str(path))
    if request.first:
        yield "--first"
    for name, value in request.engine.items():
        if value not in _USUAL:
            yield _option("engine" if name == "name" else name.replace("_", "-"), str(value))
    if request.seed:
        yield _option("seed", str(request.seed))
    if not request.use_cache:
        yield "--no-cache"
    yield _option("out", _REPORT)


def _option(name: str, value: str) -> str:
    return f"--{name} {_quoted([value])}"


def _quoted(values: list[str]) -> str:
    for value in values:
        if not value.isprintable() or "${{" in value:
            raise ConfigError("an option cannot be written into a workflow", got=value)
    return shlex.join(values)
