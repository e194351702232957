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
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ztom.cli.console import print_error
from ztom.cli.engine_options import EngineFields, takes_engine
from ztom.cli.gate.request import System
from ztom.cli.options import Json, NoCache, examples
from ztom.cli.places import any_place
from ztom.cli.usage import OPTION_ERROR, usage_error
from ztom.evaluation.render.commands import workflow_command
from ztom.pages.formats import visible

logger = logging.getLogger(__name__)

_NO_VERDICT = 3


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
    except OPTION_ERROR as error:
        _print_no_verdict(usage_error(error))
        raise typer.Exit(_NO_VERDICT) from error
    except (Exception, SystemExit) as error:
        logger.debug("no verdict", exc_info=True)
        _print_no_verdict(error)
        raise typer.Exit(_NO_VERDICT) from error


def _print_no_verdict(error: BaseException) -> None:
    message = visible(f"no verdict: {type(error).__name__}: {error}")
    print_error(message)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        print(workflow_command("error", message, {"title": "ztom gate"}))


class Format(StrEnum):
    """In which form a verdict is printed."""

    HTML = "html"
    JUNIT = "junit"
    MARKDOWN = "markdown"
    ANNOTATIONS = "annotations"


gate = typer.Typer(
    name="gate",
    cls=_Gate,
    invoke_without_command=True,
    add_completion=False,
    help="Decide whether a candidate ships: 0 pass, 1 fail, 2 inconclusive, 3 no verdict.",
    epilog=examples(
        "ztom gate --candidate runs/search/variant --champion models/week-2 --suites suites",
        "ztom gate --candidate-run runs/candidate --champion-run runs/champion --sign ci.key",
        "ztom gate --ci github",
    ),
)
RunPaths = list[Path] | None


@gate.callback()
@takes_engine
def decide(
    *,
    context: typer.Context,
    candidate: Annotated[
        str | None, typer.Option(help="Judge this variant's folder, or this checkpoint.")
    ] = None,
    champion: Annotated[str | None, typer.Option(help="Compare with what is shipped now.")] = None,
    base: Annotated[
        str | None, typer.Option(help="Show this model beside them; adapters run on it.")
    ] = None,
    suites: Annotated[
        list[Path] | None,
        typer.Option(help="Ask this suite, or folder of suites; may be repeated. Else suites."),
    ] = None,
    candidate_run: Annotated[
        RunPaths,
        typer.Option(help="Read the candidate's results: run.json, or the folder of `ztom eval`."),
    ] = None,
    champion_run: Annotated[
        RunPaths, typer.Option(help="Read the champion's results in the same way.")
    ] = None,
    base_run: Annotated[
        RunPaths, typer.Option(help="Read the base model's results in the same way.")
    ] = None,
    first: Annotated[
        bool, typer.Option("--first", help="Compare with nothing: there is no champion yet.")
    ] = False,
    engine: EngineFields,
    out: Annotated[
        Path,
        typer.Option(
            callback=any_place, help="Write verdict and results into this folder, or address."
        ),
    ] = Path("gate"),
    seed: Annotated[int, typer.Option(min=0, help="Draw everything random by this seed.")] = 0,
    no_cache: NoCache = False,
    sign: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Sign the verdict with the private key in this file, or in env:NAME.",
        ),
    ] = None,
    ci: Annotated[
        System | None, typer.Option(help="Write the workflow that runs this gate, and no more.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file that --ci writes, if there is one.")
    ] = False,
    as_json: Json = False,
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
        engine=engine,
        out=out,
        seed=seed,
        use_cache=not no_cache,
        as_json=as_json,
        sign=sign,
    )
    if ci is not None:
        from ztom.cli.gate.ci import ci_command

        ci_command(request, ci, force=force)
        return
    from ztom.cli.gate.run import gate_command

    raise typer.Exit(gate_command(request))


@gate.command(epilog=examples("ztom gate render gate/verdict.json --format html > page.html"))
def render(
    verdict: Annotated[Path, typer.Argument(help="File of the verdict: verdict.json.")],
    form: Annotated[
        Format, typer.Option("--format", help="Print it in this form.")
    ] = Format.MARKDOWN,
) -> None:
    """Print a verdict in another form; exit status 0 says that it is printed, whatever it says."""
    from ztom.cli.gate.report import render_command

    render_command(verdict, form)
