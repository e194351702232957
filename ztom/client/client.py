"""A typed client of the server's HTTP API, for notebooks and CI.

```python
from ztom.client import Client

with Client.login("http://127.0.0.1:8000", "ada", password) as client:
    project = client.create_project("support")
    for folder in ("base", "epoch-1", "epoch-2"):
        client.add_checkpoint(project.id, folder)
    answer = client.search(project.id, stimuli="traffic.jsonl", limit=0.5, progress=True)
    client.download(project.id, answer.checkpoint_id, "mastered")
```
"""

from __future__ import annotations

import functools
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ztom.client.connection import Connection
from ztom.client.transfer import Sending, unpack
from ztom.errors import ConfigError, ServerError
from ztom.io.places import require_local
from ztom.io.progress import work_display
from ztom.wire.accounts import Login, User
from ztom.wire.analyses import Edit, Metatune
from ztom.wire.fields import FORMAT
from ztom.wire.files import CheckpointUpload, DataUpload, Pointer, UploadedData
from ztom.wire.projects import NewProject, Project, ProjectDeletion
from ztom.wire.searches import QueuedSearch, RequestAnswer, SearchAnswer, SearchStatus, Trial

if TYPE_CHECKING:
    from ztom.client.endpoints import EndpointCalls
    from ztom.client.verdicts import VerdictCalls


class Client:
    """Speaks to one server as one user; use as a context manager, or call `close`.

    Args:
        server: Base address, as in ``http://127.0.0.1:8000``; ``ZTOM_SERVER`` when None.
        key: API key or token; ``ZTOM_API_KEY`` when None.

    Every method raises `ServerError` when the server refuses or cannot be reached. What a method
    sends is not judged here: a newer server may take more.
    """

    def __init__(self, server: str | None = None, *, key: str | None = None) -> None:
        server = server or os.environ.get("ZTOM_SERVER")
        key = key or os.environ.get("ZTOM_API_KEY")
        if not server:
            raise ConfigError("no server is named", fix="Give its address, or set ZTOM_SERVER.")
        self._connection = Connection(server, key)

    @functools.cached_property
    def endpoints(self) -> EndpointCalls:
        """What is served: deployments, endpoints, releases."""
        from ztom.client.endpoints import EndpointCalls

        return EndpointCalls(self._connection)

    @functools.cached_property
    def verdicts(self) -> VerdictCalls:
        """What the gate said."""
        from ztom.client.verdicts import VerdictCalls

        return VerdictCalls(self._connection)

    @classmethod
    def login(cls, server: str | None, username: str, password: str) -> Self:
        """A client of an account."""
        client = cls(server)
        body = Login.model_construct(username=username, password=password).body()
        token = client._connection.call("POST", "/api/auth/login", json=body).text
        client._connection.key = token
        return client

    @property
    def key(self) -> str:
        """The token or key in use."""
        return self._connection.key

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def who_am_i(self) -> User:
        """The account."""
        return self._connection.ask(User, "GET", "/api/auth/user")

    def projects(self) -> list[Project]:
        """The projects that the account may see."""
        return self._connection.ask_all(Project, "GET", "/project")

    def project(self, project_id: str) -> Project:
        """One project with its files."""
        return self._connection.ask(Project, "GET", f"/project/{project_id}")

    def create_project(self, name: str, description: str = "") -> Project:
        """Make a project."""
        new = NewProject.model_construct(name=name, description=description, format=FORMAT)
        return self._connection.ask(Project, "POST", "/project", new)

    def delete_project(self, project_id: str, *, hard: bool = False) -> None:
        """Delete a project; ``hard`` takes its files as well."""
        deletion = ProjectDeletion.model_construct(project_ids=(project_id,), hard_delete=hard)
        self._connection.call("DELETE", "/project", json=deletion.body())

    def add_checkpoint(
        self,
        project_id: str,
        path: str | Path,
        *,
        name: str | None = None,
        tag: str | None = None,
        base: bool = False,
        progress: bool = False,
    ) -> Project:
        """Upload a checkpoint: a folder, which is sent as one tar, or a tar.

        Args:
            project_id: Id of the project.
            path: Folder or archive.
            name: Name of the checkpoint in the project; the folder's when None.
            tag: A short name.
            base: Whether it is the base model.
            progress: Whether to show a progress bar.
        """
        path = Path(path)
        upload = CheckpointUpload.model_construct(
            project_id=project_id, format=FORMAT, file_name=name or path.name, tag=tag
        )
        route = "/project/base-model" if base else "/project/file"
        with Sending(upload.body(), path, show=progress) as sending:
            return self._connection.ask(
                Project, "POST", route, content=sending.chunks(), headers=sending.headers
            )

    def point_to(
        self,
        project_id: str,
        address: str,
        *,
        name: str | None = None,
        tag: str | None = None,
        base: bool = False,
    ) -> Project:
        """Add a checkpoint that stays where it is, under a root that the operator allowed."""
        pointer = Pointer.model_construct(
            project_id=project_id,
            file_path=address,
            format=FORMAT,
            file_name=name or address.rstrip("/").rpartition("/")[2],
            tag=tag,
            base_model=base,
        )
        return self._connection.ask(Project, "POST", "/project/file/external", pointer)

    def add_data(self, project_id: str, path: str | Path) -> str:
        """Upload a data set; the answer names it in `search`."""
        path = Path(path)
        upload = DataUpload.model_construct(project_id=project_id)
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

    def answer(self, request_id: str) -> SearchAnswer:
        """What a search came to.

        Raises:
            ServerError: It is not over, or it failed.
        """
        search = self._connection.ask(SearchStatus, "GET", f"/v1/searches/{request_id}")
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
        """What came of every request of a project, newest first."""
        address = f"/project/{project_id}/analysis/result"
        return self._connection.ask_all(RequestAnswer, "GET", address)

    def artifact(self, project_id: str, request_id: str, path: str | Path) -> Path:
        """Save the whole of a result."""
        address = f"/project/{project_id}/analysis/result/artifact"
        parameters = {"requestId": request_id, "mode": "STREAM"}
        return self._connection.save("GET", address, Path(path), params=parameters)

    def metatune(self, project_id: str, factors: Mapping[str, float], path: str | Path) -> Path:
        """Scale steps by hand and save the blend as a tar.

        Args:
            project_id: Id of the project whose chain is blended.
            factors: Scaling factor by the id of the file that a step ends in.
            path: Path of the tar to be.
        """
        edit = Metatune.model_construct(
            project_id=project_id,
            file_ids=tuple(factors),
            scaling_factors=tuple(factors.values()),
        )
        return self._connection.save("POST", "/metatune", Path(path), json=edit.body())

    def remove_training(self, project_id: str, file_ids: Sequence[str], path: str | Path) -> Path:
        """Remove what was trained in these steps and save what is left as a tar."""
        edit = Edit.model_construct(project_id=project_id, file_ids=tuple(file_ids))
        return self._connection.save("POST", "/edit", Path(path), json=edit.body())

    def download(self, project_id: str, file_id: str, path: str | Path) -> Path:
        """Save a checkpoint: as a tar where the path ends in ``.tar``, else unpacked as a folder.

        Raises:
            ArchiveError: What came is no checkpoint.
        """
        path = require_local(Path(path), what="where the checkpoint goes")
        parameters = {"projectId": project_id}
        address = f"/project/file/{file_id}"
        if path.name.endswith((".tar", ".tar.gz")):
            return self._connection.save("GET", address, path, params=parameters)
        archive = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tar")
        try:
            self._connection.save("GET", address, archive, params=parameters)
            with archive.open("rb") as file:
                compressed = file.read(2) == b"\x1f\x8b"
            if compressed:
                archive = archive.rename(archive.with_name(f"{archive.name}.gz"))
            unpack(archive, path)
        finally:
            archive.unlink(missing_ok=True)
        return path

    def _for_server(self, project_id: str, file: str | Path) -> str:
        """A file of this machine is uploaded."""
        if isinstance(file, Path) or ("://" not in file and Path(file).is_file()):
            return self.add_data(project_id, file)
        return file
