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
#: Versions that pip is held to, beside the workflow: a wheel cannot constrain its own installation.
CONSTRAINTS = {
    System.GITHUB: Path(".github/ztom-constraints.txt"),
    System.GITLAB: Path(".gitlab/ztom-constraints.txt"),
}
_AFTER = {
    System.GITHUB: "make its job a required check of the branch, and only what passes is merged",
    System.GITLAB: 'turn on "Pipelines must succeed", and only what passes is merged',
}
#: The Python that the constraints were resolved for.
_PYTHON = "3.11"
#: PyTorch's own index of builds for CPUs; PyPI has those for CUDA only.
_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
_TEMPLATES = Path(__file__).with_name("workflows")
_REPORT = "gate-report"
#: Signs where the secret is there: it is not in the pull request of a fork, nor before it was made.
_SIGN = "${GATE_SIGNING_KEY:+--sign env:GATE_SIGNING_KEY}"
_USUAL = (None, "auto", "vllm")
#: What is filled in where nobody said anything.
_PLACES = {"candidate": "models/candidate", "champion": "models/champion"}


def ci_command(request: GateRequest, system: System, *, force: bool) -> None:
    """Write the workflow, and the constraints of its installation, into the working folder.

    Raises:
        ConfigError: There is one, or an option cannot be written into it.
    """
    path, constraints = FILES[system], CONSTRAINTS[system]
    for place in (path, constraints):
        if place.exists() and not force:
            raise ConfigError(f"{place} exists", fix="--force replaces it.")
    text = workflow(request, system)
    write_document(constraints, (_TEMPLATES / "constraints.txt").read_text(encoding="utf-8"))
    write_document(path, text)
    if request.as_json:
        print_document({"path": path.absolute(), "constraints": constraints.absolute()})
        return
    console = plain_console()
    console.print(f"{path}: {_AFTER[system]}; how is said at its head", soft_wrap=True)
    console.print(f"{constraints}: the versions that its installation is held to", soft_wrap=True)


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
        python=_PYTHON,
        cpu_index=_CPU_INDEX,
        constraints=CONSTRAINTS[system].as_posix(),
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
    yield _SIGN if request.sign is None else _option("sign", request.sign)


def _option(name: str, value: str) -> str:
    return f"--{name} {_quoted([value])}"


def _quoted(values: list[str]) -> str:
    for value in values:
        if not value.isprintable() or "${{" in value:
            raise ConfigError("an option cannot be written into a workflow", got=value)
    return shlex.join(values)
