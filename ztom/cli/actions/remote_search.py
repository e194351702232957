"""What ``ztom search --project`` does: a search's file, run on a server with a project's chain."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ztom.cli.actions.remote import connect
from ztom.cli.console import plain_console, print_document
from ztom.errors import ChainError, ConfigError
from ztom.io.yaml import read_yaml
from ztom.search.config_files import read_content

if TYPE_CHECKING:
    from ztom.client import SearchAnswer

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
_GROUPS = "factors"
_DATA = {"holdout": "holdoutPath", "holdout_expected_outputs": "holdoutExpectedOutputPath"}
#: Keys of a chain, and what the wire calls them; the checkpoints themselves are the project's.
_CHAIN = {
    "allow_config_differences": "allowConfigDifferences",
    "allow_tokenizer_differences": "allowTokenizerDifferences",
}
_ELSEWHERE = {"name", "chain", "output", "ledger"}


def remote_search_command(
    file: Path,
    overrides: list[str],
    project: str,
    server: str | None,
    *,
    by_outcome: bool = False,
    as_json: bool = False,
) -> int:
    """Run a search's file on the server, with the project's chain; returns the exit status."""
    options = search_options(read_content(file, overrides), file.parent)
    with connect(server) as client:
        answer = client.search(project, progress=True, **options)
    console = plain_console(stderr=as_json)
    for line in _lines(answer, project):
        console.print(line)
    if as_json:
        print_document(answer)
    return exit_status(answer) if by_outcome else 0


def exit_status(answer: SearchAnswer) -> int:
    """What ``--exit-status`` gives: 0 improved, 1 not, 2 inconclusive or without a proof."""
    gate = ((answer.holdout and answer.holdout.gate) or {}).get("outcome", "pass")
    if answer.verdict == "no improvement" or gate == "fail":
        return 1
    return 0 if (answer.verdict, gate) == ("improved", "pass") else 2


def search_options(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What `Client.search` takes, from a search's file.

    The chain is the project's, so the file's is left aside but for what its checkpoints may differ
    in, and so is where results go.

    Raises:
        ConfigError: The file has no stimuli, or says something that the server cannot do.
    """
    unknown = set(content) - {
        *_WIRE, *_DATA, *_ELSEWHERE, _GROUPS,
        "stimuli", "expected_outputs", "scaling_factor_limit", "budget",
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
    chain = _chain_content(content.get("chain"), folder)
    options |= {_CHAIN[k]: chain[k] for k in _CHAIN if k in chain}
    groups = (content.get(_GROUPS) or {}).get("groups")
    if groups is not None:
        options["factorGroups"] = groups
    if isinstance(options.get("sampler"), dict):
        options["sampler"] = options["sampler"].get("name", "gp")
    budget = content.get("budget") or {}
    if "evaluations" in budget:
        options["maxEvaluations"] = int(budget["evaluations"])
    if "tolerance" in budget:
        options["tolerance"] = float(budget["tolerance"])
    return options


def _chain_content(chain: object, folder: Path) -> Mapping[str, Any]:
    """Keys and values of a search's chain; those of a chain file that is here, else none."""
    if isinstance(chain, str) and (folder / chain).is_file():
        chain = read_yaml(folder / chain, kind=ChainError)
    return chain if isinstance(chain, Mapping) else {}


def _lines(answer: SearchAnswer, project: str) -> list[str]:
    factors = ", ".join(f"{factor:+.4g}" for factor in answer.optimized_scaling_factors)
    lines = [
        *([] if answer.advice is None else [answer.advice]),
        f"trained_model_error        {answer.trained_model_error:.5f}",
        f"optimized_model_error      {answer.optimized_model_error:.5f}",
        f"optimized_scaling_factors  {factors}",
        *(
            f"  {factor:+.4g}  {label}"
            for label, factor in zip(
                answer.factor_labels, answer.optimized_scaling_factors, strict=False
            )
        ),
        f"number_of_inferences       {answer.number_of_inferences}",
        *(
            [f"gradient_evaluations       {answer.gradient_evaluations}"]
            if answer.gradient_evaluations
            else []
        ),
        f"baseline_inferences        {answer.baseline_inferences}",
        *_best_existing_lines(answer),
        *_proof_lines(answer),
        f"checkpoint  {answer.checkpoint_id or 'none was published'}",
        f"request     {answer.request_id}",
    ]
    if answer.checkpoint_id is None:
        return [*lines, f"next        ztom log {project} --server ADDRESS"]
    download = f"ztom project download {project} {answer.checkpoint_id} --output mastered"
    return [*lines, f"next        {download}"]


def _best_existing_lines(answer: SearchAnswer) -> list[str]:
    best = answer.best_existing
    warnings = [f"warning     {warning}" for warning in answer.step_warnings]
    if best is None:
        return warnings
    outcome = "" if best.get("outcome") is None else f", the blend is {best['outcome']}"
    return [f"existing    best is {best['name']}{outcome}: {best['reason']}", *warnings]


def _proof_lines(answer: SearchAnswer) -> list[str]:
    holdout = answer.holdout
    if holdout is None:
        return [f"proof       {answer.verdict or 'none'}"]
    interval = holdout.verdict.get("improvement") or {}
    low, high = interval.get("low"), interval.get("high")
    between = "" if low is None or high is None else f" (interval {low:.5f} to {high:.5f})"
    lines = [
        f"proof       {answer.verdict or 'none'}: the error on the holdout goes from "
        f"{holdout.trained_model_error:.5f} to {holdout.optimized_model_error:.5f}{between}"
    ]
    lines += [f"            {reason}" for reason in holdout.verdict.get("reasons", ())]
    if holdout.gate is not None:
        lines.append(f"gate        {holdout.gate.get('outcome')}")
    return lines + [f"warning     {warning}" for warning in (*holdout.warnings, *answer.warnings)]
