"""A search from its file to its exit status: what `ztom search` and `python -m tune_search` share.

Importing this imports neither Ray nor torch; running a search does.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ztom.errors import ClusterEndedError, ZtomError
from ztom.io.disk import disk_errors
from ztom.io.files import remove_place, write_whole
from ztom.search.events import Preparing
from ztom.search.inputs import require_inputs, require_output
from ztom.settings import Settings
from ztom.stack import require_stack

if TYPE_CHECKING:
    from rich.console import Console

    from ztom.search.config import SearchConfig
    from ztom.search.result import Proof, SearchResult

#: The exit status of a search that was interrupted; `--resume` goes on with it.
INTERRUPTED = 130
#: The exit status of an error, and of options that are wrong.
FAILED = 3
#: What ``--exit-status`` gives for the two outcomes that are not ``improved``.
NOT_IMPROVED, INCONCLUSIVE = 1, 2


def ledger_override(address: str) -> str:
    """``--ledger`` as a key of the search's file.

    In the file a path is relative to the file, on a command line to where the command is given.
    """
    return f"ledger={address if '://' in address else Path(address).absolute()}"


def run_command(config: SearchConfig, *, resume: bool, console: Console) -> SearchResult:
    """Search and prove, and show how it goes.

    A failure is written into ``error.txt`` in the output folder, for whoever started the job; not
    that Ray has ended, after which the search is started again.

    Raises:
        ZtomError: Whatever went wrong, with what to do about it.
    """
    require_output(config)
    error_file = config.output / "error.txt"
    remove_place(error_file)
    try:
        require_stack()
        require_inputs(config, settings=Settings())
        from tune_search.display import progress_display

        with disk_errors(str(config.output)), progress_display(console) as on_event:
            on_event(Preparing("loading the libraries"))
            from tune_search.run import search_and_prove

            return search_and_prove(config, resume=resume, on_event=on_event)
    except ClusterEndedError:
        raise
    except ZtomError as error:
        with suppress(OSError):  # the disk may be what failed
            write_whole(error_file, f"{type(error).__name__}: {error}\n")
        raise


def exit_status(result: SearchResult, *, by_outcome: bool = False) -> int:
    """The status of the process: 0 when there is a result, 130 when it was interrupted.

    Args:
        result: Result of the search.
        by_outcome: Whether the status says what came out instead: 0 improved, 1 not, 2
            inconclusive.
    """
    if result.stop_reason == "interrupted":
        return INTERRUPTED
    if not by_outcome:
        return 0
    proof = result.proof
    if proof is None:
        return INCONCLUSIVE
    outcomes = {str(proof.decision.outcome), "" if proof.gate is None else str(proof.gate.outcome)}
    if outcomes & {"no improvement", "fail"}:
        return NOT_IMPROVED
    return 0 if proof.holds else INCONCLUSIVE


def result_lines(result: SearchResult, config: SearchConfig, file: Path) -> list[str]:
    """What a command prints of a search: its figures, and then what they come to.

    Args:
        result: Result of the search.
        config: Configuration of the search.
        file: YAML file that it was read from.
    """
    first = [] if result.advice is None else [result.advice]
    return [*first, *summary(result), *closing_lines(result, config, file)]


def summary(result: SearchResult) -> list[str]:
    """The result in a few lines."""
    factors = ",".join(f"{factor:+.6g}" for factor in result.optimized_scaling_factors)
    noise = "unknown" if result.noise_floor is None else f"{result.noise_floor:.5f}"
    phases = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in result.seconds.items())
    return [
        f"trained_model_error        {result.trained_model_error:.5f}   (noise floor {noise})",
        f"optimized_model_error      {result.optimized_model_error:.5f}",
        f"improvement                {result.improvement:.5f}",
        f"optimized_scaling_factors  {factors}",
        *grid_lines(result.factor_groups, result.factor_grid),
        f"number_of_inferences       {result.number_of_inferences}"
        f"   ({result.generated_tokens} generated tokens, ended by: {result.stop_reason})",
        *(
            [f"partial_evaluations        {result.partial_evaluations}   (stopped early)"]
            if result.partial_evaluations
            else []
        ),
        *_gradient_lines(result),
        f"baseline_inferences        {result.baseline_inferences}",
        f"seconds                    {phases}",
        *(
            f"left out of {file.name}: "
            + ", ".join(f"{what} ({count})" for what, count in file.left_out.items())
            for file in result.data_files
            if file.left_out
        ),
    ]


def _gradient_lines(result: SearchResult) -> list[str]:
    count = result.gradient_evaluations
    return [f"gradient_evaluations       {count}"] if count else []


def grid_lines(groups: Sequence[str], rows: Sequence[tuple[str, Sequence[float]]]) -> list[str]:
    """Factors as a table of steps and groups; none without groups.

    Args:
        groups: Names of the groups.
        rows: Name of each step, and the factors of its groups.
    """
    if not groups:
        return []
    widths = [max(len(group), 8) for group in groups]
    step = max(len(name) for name, _ in rows)
    head = [group.rjust(width) for group, width in zip(groups, widths, strict=True)]
    lines = [f"  {'':{step}}  {'  '.join(head)}"]
    for name, factors in rows:
        cells = [f"{f:+.3f}".rjust(width) for f, width in zip(factors, widths, strict=True)]
        lines.append(f"  {name:{step}}  {'  '.join(cells)}")
    return lines


def closing_lines(result: SearchResult, config: SearchConfig, file: Path) -> list[str]:
    """What a search came to, where everything is, and what to type next.

    Args:
        result: Result of the search.
        config: Configuration of the search.
        file: YAML file that it was read from.
    """
    output = config.output.absolute()
    again = f"ztom search {shlex.quote(str(file))} --resume"
    proof = result.proof
    beside = [*existing_lines(result), *step_lines(result)]
    places = [*beside, f"result   {output / 'result.json'}", f"report   {output / 'report.html'}"]
    if proof is None:
        interrupted = result.stop_reason == "interrupted"
        why = "it was interrupted" if interrupted else "there is no holdout"
        following = again if interrupted else "ztom search --example   # says what a holdout is"
        return [f"proof    none: {why}", *places, "variant  none", f"next     {following}"]
    variant = proof.variant or "none was published"
    if proof.variant is not None:
        following = f"ztom serve {shlex.quote(proof.variant)}"
    else:
        following = f"{again} --set insist=true   # publishes it all the same, on record"
    return [
        *proof_lines(proof),
        *places,
        f"variant  {variant}{' (insisted)' if proof.insisted else ''}",
        f"next     {following}",
    ]


def existing_lines(result: SearchResult) -> list[str]:
    """What is there without any search, beside the blend."""
    lines = []
    for model in result.existing:
        errors = [("search set", model.search_error), ("holdout", model.holdout_error)]
        shown = ", ".join(f"{where} {error:.5f}" for where, error in errors if error is not None)
        failed = "" if model.reason is None else f"  failed: {model.reason}"
        named = "" if model.kind == "average" else f" ({model.kind})"
        lines.append(f"exists   {', '.join((model.name, *model.also))}{named}: {shown}{failed}")
    best = result.best_existing
    if best is not None:
        outcome = "" if best.outcome is None else f", the blend is {best.outcome}"
        lines.append(f"best of these on the search set: {best.name}{outcome}: {best.reason}")
    return lines


def step_lines(result: SearchResult) -> list[str]:
    """How much of the gain each step of the chain is, and what is wrong with steps."""
    gains = [
        f"step     {step.name}: {step.gain:+.5f}"
        + ("" if step.share is None else f" ({step.share:.0%} of the estimated gain)")
        for step in result.step_gains
    ]
    return gains + [f"warning  {warning}" for warning in result.step_warnings]


def proof_lines(proof: Proof) -> list[str]:
    """What the holdout says: the outcome, the interval, why; and the gate's part."""
    interval = proof.decision.improvement
    lines = [
        f"proof    {proof.decision.outcome}: the error on the holdout goes from "
        f"{proof.trained_model_error:.5f} to {proof.optimized_model_error:.5f}, better by "
        f"{interval.estimate:.5f} ({interval.confidence:.0%} interval {interval.low:.5f} to "
        f"{interval.high:.5f}, {interval.groups} groups)"
    ]
    lines += [f"         {reason}" for reason in proof.decision.reasons]
    if proof.gate is not None:
        reasons = "; ".join(proof.gate.reasons)
        lines.append(f"gate     {proof.gate.outcome}{f': {reasons}' if reasons else ''}")
    return lines + [f"warning  {warning}" for warning in proof.warnings]
