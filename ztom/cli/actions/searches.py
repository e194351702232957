"""What ``ztom searches`` does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ztom.cli.actions.answers import print_answer, print_table
from ztom.cli.actions.remote import connect
from ztom.cli.console import moment, plain_console, print_row
from ztom.io.progress import work_display

if TYPE_CHECKING:
    from ztom.wire.searches import SearchStatus, Trial


def list_searches(project: str | None, server: str | None, *, as_json: bool) -> None:
    """List searches."""
    with connect(server) as client:
        searches = client.searches(project)
        names = {known.id: known.name for known in client.projects()}
    rows = [
        (
            search.request_id,
            names.get(search.project_id or "", search.project_id),
            search.status,
            _progress(search),
            moment(search.created_at),
            search.reason,
        )
        for search in searches
    ]
    headers = ("search", "project", "status", "trials", "began", "reason")
    print_table(searches, headers, rows, as_json=as_json)


def show_search(request: str, server: str | None, *, as_json: bool) -> None:
    """Show one search."""
    with connect(server) as client:
        search = client.search_status(request)
    best = search.progress.best_error
    parts = [
        f"{search.request_id}: {search.status}",
        f"{_progress(search)} trials",
        *([] if best is None else [f"best error {best:.5f}"]),
        *([] if search.reason is None else [search.reason]),
        *([] if search.checkpoint_id is None else [f"checkpoint {search.checkpoint_id}"]),
    ]
    print_answer(search, ", ".join(parts), as_json=as_json)


def follow_search(request: str, server: str | None, *, as_json: bool) -> None:
    """Print trials as they end, and how the search ended."""
    console = plain_console()
    with connect(server) as client:
        with work_display("waiting for trials", show=not as_json):
            for trial in client.follow_search(request):
                if as_json:
                    print_row(trial)
                else:
                    console.print(_trial_line(trial))
        search = client.search_status(request)
    if not as_json:
        console.print(f"{search.status}{'' if search.reason is None else f': {search.reason}'}")


def cancel_search(request: str, server: str | None, *, as_json: bool) -> None:
    """End a search."""
    with connect(server) as client:
        client.cancel_search(request)
        search = client.search_status(request)
    print_answer(search, f"{request}: {search.status}", as_json=as_json)


def resume_search(request: str, server: str | None, *, as_json: bool) -> None:
    """Go on with a search."""
    with connect(server) as client:
        client.resume_search(request)
        search = client.search_status(request)
    print_answer(search, f"{request}: {search.status}", as_json=as_json)


def save_result(
    project: str, request: str, output: Path, server: str | None, *, as_json: bool
) -> None:
    """Save a result."""
    with connect(server) as client:
        path = client.artifact(project, request, output)
    print_answer({"path": path.absolute()}, str(path), as_json=as_json)


def _progress(search: SearchStatus) -> str:
    most = search.progress.max_evaluations
    return f"{search.progress.trials}" + ("" if most is None else f" of {most}+")


def _trial_line(trial: Trial) -> str:
    error = f"failed: {trial.reason}" if trial.error is None else f"{trial.error:.5f}"
    factors = " ".join(f"{factor:+.3f}" for factor in trial.factors)
    return f"trial {trial.number} ({trial.kind}) {error} at {factors}"
