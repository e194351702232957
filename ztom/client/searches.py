"""Searches of a project's chain and their results: the part of `ztom.client.Client` about them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ztom.client.connection import Connection
from ztom.client.names import Names
from ztom.client.transfer import Sending
from ztom.errors import ServerError
from ztom.io.places import require_local
from ztom.io.progress import work_display
from ztom.wire.files import DataUpload, UploadedData
from ztom.wire.searches import QueuedSearch, RequestAnswer, SearchAnswer, SearchStatus, Trial


class SearchCalls:
    """What `ztom.client.Client` does about searches; it sets the connection."""

    _connection: Connection

    @functools.cached_property
    def names(self) -> Names:
        """Ids of what is named."""
        return Names(self._connection)

    def add_data(self, project_id: str, path: str | Path) -> str:
        """Upload a data set; the answer names it in `search`."""
        path = Path(path)
        upload = DataUpload.model_construct(project_id=self.names.project_id(project_id))
        with Sending(upload.body(), path, show=False) as sending:
            stored = self._connection.ask(
                UploadedData,
                "POST",
                "/v1/data",
                content=sending.chunks(),
                headers=sending.headers,
            )
        return stored.reference

    def search(
        self,
        project_id: str,
        *,
        stimuli: str | Path | Sequence[str | Path],
        limit: float,
        expected_outputs: str | Path | None = None,
        progress: bool = False,
        on_trial: Callable[[Trial], None] | None = None,
        **options: Any,
    ) -> SearchAnswer:
        """Search the factors of a project's chain, and wait for the answer.

        Args:
            project_id: Id of the project whose chain is searched.
            stimuli: Data sets: files of this machine are uploaded; anything else is for the server.
            limit: The bound on each factor.
            expected_outputs: File of the expected outputs, where they are in one of their own.
            progress: Whether to show a progress bar.
            on_trial: Callback that gets each trial that ends.
            options: Further fields of the search, by name: ``error``, ``maxEvaluations``, ``seed``,
                ``insist``, ...

        Raises:
            ServerError: The search failed or was cancelled, besides what every method raises.
        """
        request_id = self.start_search(
            project_id,
            stimuli=stimuli,
            limit=limit,
            expected_outputs=expected_outputs,
            **options,
        )
        total = int(options.get("maxEvaluations", 50)) + 5
        with work_display("searching", show=progress) as display:
            for ended, trial in enumerate(self.follow_search(request_id), start=1):
                display.show("trials", ended, max(total, ended))
                if on_trial is not None:
                    on_trial(trial)
        return self.answer(request_id)

    def start_search(
        self,
        project_id: str,
        *,
        stimuli: str | Path | Sequence[str | Path],
        limit: float,
        expected_outputs: str | Path | None = None,
        **options: Any,
    ) -> str:
        """Start a search and return the id of its request; see `search`."""
        project_id = self.names.project_id(project_id)
        files = [stimuli] if isinstance(stimuli, str | Path) else list(stimuli)
        body: dict[str, Any] = {
            "projectId": project_id,
            "scalingFactorLimit": limit,
            "stimulusPaths": [self._for_server(project_id, file) for file in files],
            **options,
        }
        if expected_outputs is not None:
            body["expectedOutputPath"] = self._for_server(project_id, expected_outputs)
        for name in ("holdoutPath", "holdoutExpectedOutputPath"):
            if name in body:
                body[name] = self._for_server(project_id, body[name])
        return self._connection.ask(QueuedSearch, "POST", "/v1/searches", json=body).request_id

    def follow_search(self, request_id: str) -> Iterator[Trial]:
        """The trials of a search as they end, those so far first; until it is over.

        A connection that is lost is made again, and nothing is given twice.
        """
        seen: set[int] = set()

        def is_new(trial: Trial) -> bool:
            if trial.number in seen:
                return False
            seen.add(trial.number)
            return True

        address = f"/v1/searches/{request_id}/events"
        yield from self._connection.follow(Trial, address, "trial", is_new)

    def searches(self, project_id: str | None = None) -> list[SearchStatus]:
        """The latest searches of a project, or of all that the account may see, newest first."""
        parameters = {} if project_id is None else {"projectId": self.names.project_id(project_id)}
        return self._connection.ask_all(SearchStatus, "GET", "/v1/searches", params=parameters)

    def search_status(self, request_id: str) -> SearchStatus:
        """Where a search stands."""
        return self._connection.ask(SearchStatus, "GET", f"/v1/searches/{request_id}")

    def answer(self, request_id: str) -> SearchAnswer:
        """What a search came to.

        Raises:
            ServerError: It is not over, or it failed.
        """
        search = self.search_status(request_id)
        if search.status != "finished":
            raise ServerError(f"the search is {search.status}", reason=search.reason)
        return SearchAnswer.of(search)

    def cancel_search(self, request_id: str) -> None:
        """End a search; its trials stay."""
        self._connection.call("POST", f"/v1/searches/{request_id}/cancel")

    def resume_search(self, request_id: str) -> None:
        """Go on with a search that was cancelled or failed."""
        self._connection.call("POST", f"/v1/searches/{request_id}/resume")

    def results(self, project_id: str) -> list[RequestAnswer]:
        """What came of every request of a project, oldest first."""
        address = f"/project/{self.names.project_id(project_id)}/analysis/result"
        return self._connection.ask_all(RequestAnswer, "GET", address)

    def artifact(self, project_id: str, request_id: str, path: str | Path) -> Path:
        """Save the whole of a result."""
        path = require_local(Path(path), what="where the result goes")
        address = f"/project/{self.names.project_id(project_id)}/analysis/result/artifact"
        parameters = {"requestId": request_id, "mode": "STREAM"}
        return self._connection.save("GET", address, path, params=parameters)

    def _for_server(self, project_id: str, file: str | Path) -> str:
        """A file of this machine is uploaded."""
        if isinstance(file, Path) or ("://" not in file and Path(file).is_file()):
            return self.add_data(project_id, file)
        return file
