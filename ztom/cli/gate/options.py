"""``ztom gate``: does the candidate ship? Options here; the work is in `ztom.cli.gate.run`.

Exit status 0 is a pass and nothing else is: 1 fail, 2 inconclusive, 3 no verdict, whatever the
reason, and that includes options that are wrong.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from typer.core import TyperGroup

from ztom.cli.gate.request import System
from ztom.cli.places import local_only
from ztom.evaluation.render.commands import workflow_command
from ztom.pages.formats import visible

logger = logging.getLogger(__name__)

_NO_VERDICT = 3
#: What wrong options raise: ClickException, wherever this version of typer keeps it.
_OPTION_ERROR = cast("type[Exception]", typer.BadParameter.__mro__[2])


class _Gate(TyperGroup):
    """Whatever goes wrong is no verdict: neither a fail (1) nor inconclusive (2)."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _no_verdict():
            return super().make_context(*args, **kwargs)

    def invoke(self, *args: Any, **kwargs: Any) -> Any:
        with _no_verdict():
            return super().invoke(*args, **kwargs)


@contextmanager
def _no_verdict() -> Iterator[None]:
    try:
        yield
    except typer.Exit:
        raise
    except _OPTION_ERROR as error:
        error.exit_code = _NO_VERDICT  # type: ignore[attr-defined]
        raise
    except (Exception, SystemExit) as error:
        logger.debug("no verdict", exc_info=True)
        _tell(error)
        raise typer.Exit(_NO_VERDICT) from error


def _tell(error: BaseException) -> None:
    told = visible(f"no verdict: {type(error).__name__}: {error}")
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    console.print(told, style="red", soft_wrap=True)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        print(workflow_command("error", told, {"title": "ztom gate"}))


class Format(StrEnum):
    """In which a verdict is shown."""

    HTML = "html"
    JUNIT = "junit"
    MARKDOWN = "markdown"
    ANNOTATIONS = "annotations"


gate = typer.Typer(
    cls=_Gate,
    invoke_without_command=True,
    help="Decide whether a candidate ships: 0 pass, 1 fail, 2 inconclusive, 3 no verdict.",
)
_Runs = list[Path] | None


@gate.callback()
def decide(
    context: typer.Context,
    candidate: Annotated[str | None, typer.Option(help="A variant, or a checkpoint.")] = None,
    champion: Annotated[str | None, typer.Option(help="What is shipped now.")] = None,
    base: Annotated[
        str | None, typer.Option(help="Shown beside them; and what adapters belong to.")
    ] = None,
    suites: Annotated[
        list[Path] | None, typer.Option(help="A suite, or a folder of suites; several times.")
    ] = None,
    candidate_run: Annotated[
        _Runs, typer.Option(help="Its results instead: run.json, or the folder of `ztom eval`.")
    ] = None,
    champion_run: Annotated[_Runs, typer.Option(help="The same of the champion.")] = None,
    base_run: Annotated[_Runs, typer.Option(help="The same of the base.")] = None,
    first: Annotated[
        bool, typer.Option("--first", help="There is no champion yet: nothing is compared.")
    ] = False,
    engine: Annotated[str, typer.Option(help="vllm or torch.")] = "vllm",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    max_model_len: Annotated[int | None, typer.Option(min=8)] = None,
    chat_template: Annotated[str, typer.Option(help="auto, always or never.")] = "auto",
    out: Annotated[
        Path, typer.Option(callback=local_only, help="Folder of verdict and results.")
    ] = Path("gate"),
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Ask for every answer.")] = False,
    ci: Annotated[
        System | None, typer.Option(help="Write the workflow that runs this gate, and no more.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="With --ci: replace the file.")] = False,
) -> None:
    """Decide whether a candidate ships: 0 pass, 1 fail, 2 inconclusive, 3 no verdict."""
    if context.invoked_subcommand is not None:
        return
    from ztom.cli.gate.request import GateRequest

    request = GateRequest(
        models={"candidate": candidate, "champion": champion, "base": base},
        runs={
            "candidate": candidate_run or [],
            "champion": champion_run or [],
            "base": base_run or [],
        },
        suites=suites or [Path("suites")],
        first=first,
        engine={
            "name": engine,
            "dtype": dtype,
            "max_model_len": max_model_len,
            "chat_template": chat_template,
        },
        out=out,
        seed=seed,
        use_cache=not no_cache,
    )
    if ci is not None:
        from ztom.cli.gate.ci import ci_command

        ci_command(request, ci, force=force)
        return
    from ztom.cli.gate.run import gate_command

    raise typer.Exit(gate_command(request))


@gate.command()
def render(
    verdict: Annotated[Path, typer.Argument(help="A verdict.json.")],
    form: Annotated[Format, typer.Option("--format", help="Of what is printed.")] = Format.MARKDOWN,
) -> None:
    """Print a verdict in another form; exit status 0 says that it is printed, whatever it says."""
    from ztom.cli.gate.run import render_command

    render_command(verdict, form)
