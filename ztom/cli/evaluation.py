"""``ztom eval``: run a model on suites, and on tasks of lm-eval."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ztom.cli.engine_options import EngineFields, takes_engine
from ztom.cli.options import HelpPanel, Json, NoCache, command_group, examples
from ztom.cli.places import any_place

evaluation_commands = command_group(None, "Evaluation.")


@evaluation_commands.command(
    "eval",
    rich_help_panel=HelpPanel.JUDGE,
    epilog=examples(
        "ztom eval runs/search/variant --suite suites",
        "ztom eval models/base --tasks hellaswag,arc_easy --limit 100",
    ),
)
@takes_engine
def evaluate(
    *,
    model: Annotated[
        str, typer.Argument(help="Folder of a variant or checkpoint, or a checkpoint's address.")
    ],
    suite: Annotated[
        list[Path] | None,
        typer.Option(help="Run this suite, or this folder of suites; may be repeated."),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(help="Run these tasks of lm-eval: names or YAML files, with commas."),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Run an adapter on this model, which it belongs to.")
    ] = None,
    engine: EngineFields,
    out: Annotated[
        Path,
        typer.Option(callback=any_place, help="Write results into this folder, or address."),
    ] = Path("evaluation"),
    no_cache: NoCache = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Run only the first so many items of each suite.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a model on suites; exit status 3 where something could not be run or scored."""
    from ztom.cli.actions.evaluation import EvalRequest, eval_command

    request = EvalRequest(
        model=model,
        base=base,
        suites=suite or [],
        tasks=[name.strip() for name in (tasks or "").split(",") if name.strip()],
        engine=engine,
        out=out,
        use_cache=not no_cache,
        limit=limit,
    )
    raise typer.Exit(eval_command(request, as_json=as_json))
