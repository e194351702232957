"""The options that say how a command runs models: ``--engine``, ``--dtype`` and the like."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from ztom.cli.options import Dtype

#: A command takes them as one keyword of this type; see `takes_engine`.
EngineFields = Mapping[str, object]

_KEYWORD = "engine"


def _options(
    *,
    engine: Annotated[
        str, typer.Option(help="Run models with this engine: vllm, torch or one that you added.")
    ] = "vllm",
    dtype: Dtype = "auto",
    max_model_len: Annotated[
        int | None,
        typer.Option(min=8, help="Tokens of prompt and answer together; else the model's."),
    ] = None,
    chat_template: Annotated[
        str,
        typer.Option(
            help="Apply the tokenizer's chat template to plain prompts: auto, always, never."
        ),
    ] = "auto",
) -> EngineFields:
    return {
        "name": engine,
        "dtype": dtype,
        "max_model_len": max_model_len,
        "chat_template": chat_template,
    }


def takes_engine(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose keyword ``engine`` is filled from options of their own.

    Typer reads a command's signature: the keyword's place in it is taken by one parameter per
    option, and what was typed arrives as fields of `ztom.engines.config.EngineConfig`.

    Args:
        command: Function with a keyword ``engine``, an `EngineFields`.
    """
    own = inspect.signature(command, eval_str=True)
    options = list(inspect.signature(_options, eval_str=True).parameters.values())
    parameters: list[inspect.Parameter] = []
    for parameter in own.parameters.values():
        parameters.extend(options if parameter.name == _KEYWORD else [parameter])

    @functools.wraps(command)
    def with_options(**values: Any) -> None:
        fields = _options(**{option.name: values.pop(option.name) for option in options})
        command(**values, **{_KEYWORD: fields})

    with_options.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    return with_options
