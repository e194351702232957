"""What ``ztom project edit``, ``ztom project metatune`` and ``ztom analysis`` do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ztom.cli.actions.answers import print_answer, print_table
from ztom.cli.actions.remote import connect
from ztom.cli.console import plain_console, print_document
from ztom.errors import FactorError
from ztom.io.progress import work_display
from ztom.io.yaml import parse_yaml

#: Keys of config.json, comma-joined, and whether tokenizers may differ.
Allowed = tuple[str | None, bool]


def metatune_command(
    project: str,
    factors: Sequence[str],
    output: Path,
    server: str | None,
    *,
    allowed: Allowed,
    as_json: bool,
    groups: str | None = None,
) -> None:
    """Scale steps by hand and save the blend.

    Raises:
        FactorError: A factor is not ``FILE=NUMBER``.
    """
    rule = None if groups is None else parse_yaml(groups, source="--groups", json_only=False)
    numbers = dict(map(_parse_factor, factors))
    warnings: list[str] = []
    with connect(server) as client, work_display(f"blending {project}"):
        path = client.metatune(
            project,
            numbers,
            output,
            on_warning=warnings.append,
            groups=rule,
            **_allowing(allowed),
        )
    _print_saved(path, warnings, as_json=as_json)


def edit_command(
    project: str,
    files: Sequence[str],
    output: Path,
    server: str | None,
    *,
    allowed: Allowed,
    as_json: bool,
) -> None:
    """Remove what was trained in steps and save what is left."""
    warnings: list[str] = []
    with connect(server) as client, work_display(f"blending {project}"):
        path = client.remove_training(
            project, files, output, on_warning=warnings.append, **_allowing(allowed)
        )
    _print_saved(path, warnings, as_json=as_json)


def static_command(
    project: str,
    file: str,
    server: str | None,
    *,
    latest: bool,
    weights: str | None,
    biases: str | None,
    most: int,
    allowed: Allowed,
    as_json: bool,
) -> None:
    """Print how far a checkpoint is from another."""
    names = {"weight_names": _names(weights), "bias_names": _names(biases)}
    with connect(server) as client, work_display(f"comparing {file}"):
        answer = client.analyses.static(
            project,
            file,
            comparison="LATEST" if latest else "CHOSEN",
            **{key: value for key, value in names.items() if value is not None},
            **_allowing(allowed),
        )
    result = answer.result
    rows = sorted(result.parameter_scores.items(), key=lambda item: (-item[1], item[0]))
    if not as_json:
        summary = f"weights {result.weight_summary_score:.5g}, biases"
        plain_console().print(f"{summary} {result.bias_summary_score:.5g}")
    shown = [(name, f"{score:.5g}") for name, score in rows[:most]]
    print_table(answer, ("tensor", "mean absolute difference"), shown, as_json=as_json)
    if not as_json and len(rows) > most:
        plain_console().print(f"and {len(rows) - most} more; --most {len(rows)} lists all")


def inference_command(
    model: str,
    stimuli: Sequence[str],
    server: str | None,
    *,
    base: str | None,
    max_new_tokens: int | None,
    batch_size: int | None,
    allowed: Allowed,
    as_json: bool,
) -> None:
    """Print what a checkpoint answers."""
    fields = _engine_fields(max_new_tokens, batch_size) | _allowing(allowed)
    if base is not None:
        fields["base_model_path"] = base
    with connect(server) as client, work_display(f"asking {model}"):
        answer = client.analyses.inference(model, stimuli, **fields)
    lines = [f"{n}  {_text(output)}" for n, output in enumerate(answer.result.model_output, 1)]
    print_answer(answer, "\n".join((*lines, *_warning_lines(answer.warnings))), as_json=as_json)


def sensitivity_command(
    project: str,
    file: str,
    factor: float,
    stimuli: Sequence[str],
    server: str | None,
    *,
    max_new_tokens: int | None,
    batch_size: int | None,
    allowed: Allowed,
    as_json: bool,
) -> None:
    """Print what the latest checkpoint answers, as trained and with one step scaled."""
    fields = _engine_fields(max_new_tokens, batch_size) | _allowing(allowed)
    with connect(server) as client, work_display(f"asking {project}"):
        answer = client.analyses.sensitivity(project, file, factor, stimuli, **fields)
    pairs = zip(answer.result.model_output, answer.result.attenuated_model_output, strict=True)
    lines = [
        line
        for number, (trained, scaled) in enumerate(pairs, 1)
        for line in (f"{number} trained  {_text(trained)}", f"{number} scaled   {_text(scaled)}")
    ]
    print_answer(answer, "\n".join((*lines, *_warning_lines(answer.warnings))), as_json=as_json)


def _parse_factor(text: str) -> tuple[str, list[float]]:
    """``week-1=0.25`` as a name and its numbers: one, or one for each group."""
    name, _, numbers = text.rpartition("=")
    try:
        if name:
            return name, [float(number) for number in numbers.split(",")]
    except ValueError:
        pass
    raise FactorError("a factor is malformed", got=text, expected="FILE=NUMBER, as in week-1=0.25")


def _allowing(allowed: Allowed) -> dict[str, Any]:
    """Fields that say what the chain may differ in; none where nothing may."""
    keys, tokenizers = allowed
    fields: dict[str, Any] = {}
    if keys is not None:
        fields["allow_config_differences"] = _names(keys)
    if tokenizers:
        fields["allow_tokenizer_differences"] = True
    return fields


def _engine_fields(max_new_tokens: int | None, batch_size: int | None) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if max_new_tokens is not None:
        fields["inference_config_json"] = {"max_new_tokens": max_new_tokens}
    if batch_size is not None:
        fields["batch_size"] = batch_size
    return fields


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(","))


def _text(output: str | tuple[float, ...]) -> str:
    if isinstance(output, str):
        return output
    return " ".join(f"{value:.5g}" for value in output)


def _warning_lines(warnings: Sequence[str]) -> list[str]:
    return [f"warning  {warning}" for warning in warnings]


def _print_saved(path: Path, warnings: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        content: Mapping[str, object] = {"path": path.absolute(), "warnings": warnings}
        print_document(content)
        return
    for line in (str(path), *_warning_lines(warnings)):
        plain_console().print(line)
