"""A search from its file to its exit status: what `ztom search` and `python -m tune_search` share.

Importing this imports neither Ray nor torch; running a search does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ztom.errors import ZtomError
from ztom.io.files import write_whole
from ztom.search.inputs import require_inputs
from ztom.settings import Settings
from ztom.stack import require_stack

if TYPE_CHECKING:
    from rich.console import Console

    from ztom.search.config import SearchConfig
    from ztom.search.result import SearchResult

#: The exit status of a search that was interrupted; `--resume` goes on with it.
INTERRUPTED = 130


def ledger_override(address: str) -> str:
    """``--ledger`` as a key of the search's file.

    In the file a path is relative to the file, on a command line to where the command is given.
    """
    return f"ledger={address if '://' in address else Path(address).absolute()}"


def run_command(config: SearchConfig, *, resume: bool, console: Console) -> SearchResult:
    """Search and prove, show how it goes, and say what it came to.

    A failure is written into ``error.txt`` in the output folder, for whoever started the job.

    Raises:
        ZtomError: Whatever went wrong, with what to do about it.
    """
    error_file = config.output / "error.txt"
    error_file.unlink(missing_ok=True)
    try:
        require_stack()
        require_inputs(config, settings=Settings())
        from tune_search.display import progress_display
        from tune_search.run import result_path, search_and_prove

        with progress_display(console) as on_event:
            result = search_and_prove(config, resume=resume, on_event=on_event)
    except ZtomError as error:
        write_whole(error_file, f"{type(error).__name__}: {error}\n")
        raise
    for line in summary(result):
        console.print(line, markup=False, highlight=False)
    console.print(f"result: {result_path(config)}", markup=False, highlight=False)
    return result


def exit_status(result: SearchResult) -> int:
    """The status of the process: 0 when there is a result, 130 when it was interrupted."""
    return INTERRUPTED if result.stop_reason == "interrupted" else 0


def summary(result: SearchResult) -> list[str]:
    """The result in a few lines."""
    from tune_search.display import format_factors

    noise = "unknown" if result.noise_floor is None else f"{result.noise_floor:.5f}"
    phases = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in result.seconds.items())
    return [
        f"trained_model_error        {result.trained_model_error:.5f}   (noise floor {noise})",
        f"optimized_model_error      {result.optimized_model_error:.5f}",
        f"improvement                {result.improvement:.5f}",
        f"optimized_scaling_factors  {format_factors(result.optimized_scaling_factors)}",
        f"number_of_inferences       {result.number_of_inferences}"
        f"   ({result.generated_tokens} generated tokens, ended by: {result.stop_reason})",
        f"seconds                    {phases}",
        *(
            f"left out of {file.name}: "
            + ", ".join(f"{what} ({count})" for what, count in file.left_out.items())
            for file in result.data_files
            if file.left_out
        ),
    ]
