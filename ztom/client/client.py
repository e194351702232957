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
import json
import os
import secrets
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from ztom.client.endpoints import Endpoints
from ztom.client.records import Checkpoint, Project, SearchAnswer, Trial
from ztom.client.transfer import Sending, bar, unpack
from ztom.client.verdicts import Verdicts
from ztom.errors import ConfigError, ServerError
from ztom.io.places import require_local

_CONNECT_S = 10.0
#: Times in a row that events are asked for again in vain; some two minutes in all.
_RECONNECTS = 30
#: A connection that held so long was no vain one, though nothing new came: what is idle gets cut.
_LASTING_S = 30.0
#: A search that waits, or a blend that is written, sends nothing for a long time.
_ANSWER_S = 3600.0


@functools.cache
def _certificates() -> ssl.SSLContext:
    """What httpx trusts, loaded once: it takes as long as some calls do."""
    return httpx.create_ssl_context()


class Client:
    """Speaks to one server as one user; use as a context manager, or call `close`.

    Args:
        server: Base address, as in ``http://127.0.0.1:8000``; ``ZTOM_SERVER`` when None.
        key: API key or token; ``ZTOM_API_KEY`` when None.

    Every method raises `ServerError` when the server refuses or cannot be reached.
    """

    def __init__(self, server: str | None = None, *, key: str | None = None) -> None:
        server = server or os.environ.get("ZTOM_SERVER")
        key = key or os.environ.get("ZTOM_API_KEY")
        if not server:
            raise ConfigError("no server is named", fix="Give its address, or set ZTOM_SERVER.")
        self._http = httpx.Client(
            base_url=server.rstrip("/"),
            timeout=httpx.Timeout(_ANSWER_S, connect=_CONNECT_S),
            verify=_certificates(),
        )
        if key:
            self._http.headers["Authorization"] = f"Bearer {key}"
        #: What is served: deployments, endpoints, releases.
        self.endpoints = Endpoints(self._json, self._follow)
        #: What the gate said.
        self.verdicts = Verdicts(self._json)

    @classmethod
    def login(cls, server: str | None, username: str, password: str) -> Self:
        """A client of an account."""
        client = cls(server)
        body = {"username": username, "password": password}
        token = client._call("POST", "/api/auth/login", json=body).text
        client._http.headers["Authorization"] = f"Bearer {token}"
        return client

    @property
    def key(self) -> str:
        """The token or key in use."""
        return str(self._http.headers.get("Authorization", "")).removeprefix("Bearer ")

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def who_am_i(self) -> Mapping[str, Any]:
        """The account."""
        found: Mapping[str, Any] = self._json("GET", "/api/auth/user")
        return found

    def projects(self) -> list[Project]:
        """The projects that the account may see."""
        return [Project.model_validate(each) for each in self._json("GET", "/project")]

    def project(self, project_id: str) -> Project:
        """One project with its files."""
        return Project.model_validate(self._json("GET", f"/project/{project_id}"))

    def create_project(self, name: str, description: str = "") -> Project:
        """Make a project."""
        body = {"name": name, "description": description, "format": "HF_TEXT_GENERATION"}
        return Project.model_validate(self._json("POST", "/project", json=body))

    def delete_project(self, project_id: str, *, hard: bool = False) -> None:
        """Delete a project; ``hard`` takes its files as well."""
        body = {"projectIds": [project_id], "hardDelete": hard}
        self._call("DELETE", "/project", json=body)

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
            project_id: Whose.
            path: Folder or archive.
            name: In the project; the folder's when None.
            tag: A short name.
            base: It is the base model.
            progress: Show a bar.
        """
        path = Path(path)
        fields = {
            "projectId": project_id,
            "format": "HF_TEXT_GENERATION",
            "fileName": name or path.name,
            **({} if tag is None else {"tag": tag}),
        }
        route = "/project/base-model" if base else "/project/file"
        with Sending(fields, path, show=progress) as sending:
            answer = self._json("POST", route, content=sending.chunks(), headers=sending.headers)
        return Project.model_validate(answer)

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
        body = {
            "projectId": project_id,
            "filePath": address,
            "format": "HF_TEXT_GENERATION",
            "fileName": name or address.rstrip("/").rpartition("/")[2],
            "tag": tag,
            "baseModel": base,
        }
        return Project.model_validate(self._json("POST", "/project/file/external", json=body))

    def add_data(self, project_id: str, path: str | Path) -> str:
        """Upload a data set; the answer names it in `search`."""
        path = Path(path)
        with Sending({"projectId": project_id}, path, show=False) as sending:
            answer = self._json(
                "POST", "/v1/data", content=sending.chunks(), headers=sending.headers
            )
        return str(answer["reference"])

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
            project_id: Whose chain.
            stimuli: Data sets: files of this machine are uploaded; anything else is for the server.
            limit: The bound on each factor.
            expected_outputs: What should be answered, where that is a file of its own.
            progress: Show a bar.
            on_trial: Told of each trial that ends.
            options: As on the wire: ``error``, ``maxEvaluations``, ``seed``, ``insist``, ...

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
        with bar("searching", total, show=progress) as advance:
            for trial in self.follow_search(request_id):
                advance(1)
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
        return str(self._json("POST", "/v1/searches", json=body)["requestId"])

    def follow_search(self, request_id: str) -> Iterator[Trial]:
        """The trials of a search as they end, those so far first; until it is over.

        A connection that is lost is made again, and nothing is given twice.
        """
        seen: set[int] = set()

        def is_new(name: str, content: Any) -> bool:
            if name != "trial" or content["number"] in seen:
                return False
            seen.add(content["number"])
            return True

        for trial in self._follow(f"/v1/searches/{request_id}/events", is_new):
            yield Trial.model_validate(trial)

    def answer(self, request_id: str) -> SearchAnswer:
        """What a search came to.

        Raises:
            ServerError: It is not over, or it failed.
        """
        found = self._json("GET", f"/v1/searches/{request_id}")
        if found["status"] != "finished":
            raise ServerError(f"the search is {found['status']}", got=found.get("reason"))
        result = {**found["result"], "request_id": request_id}
        return SearchAnswer.model_validate({**result, "checkpoint_id": found["checkpointId"]})

    def cancel_search(self, request_id: str) -> None:
        """End a search; its trials stay."""
        self._call("POST", f"/v1/searches/{request_id}/cancel")

    def resume_search(self, request_id: str) -> None:
        """Go on with a search that was cancelled or failed."""
        self._call("POST", f"/v1/searches/{request_id}/resume")

    def results(self, project_id: str) -> list[Mapping[str, Any]]:
        """What came of every request of a project, newest first."""
        found: list[Mapping[str, Any]] = self._json("GET", f"/project/{project_id}/analysis/result")
        return found

    def artifact(self, project_id: str, request_id: str, path: str | Path) -> Path:
        """Save the whole of a result."""
        address = f"/project/{project_id}/analysis/result/artifact"
        parameters = {"requestId": request_id, "mode": "STREAM"}
        return self._save("GET", address, Path(path), params=parameters)

    def metatune(self, project_id: str, factors: Mapping[str, float], path: str | Path) -> Path:
        """Scale steps by hand and save the blend as a tar.

        Args:
            project_id: Whose chain.
            factors: By the id of the file that a step ends in.
            path: Of the tar to be.
        """
        body = {
            "projectId": project_id,
            "fileIds": list(factors),
            "scalingFactors": list(factors.values()),
        }
        return self._save("POST", "/metatune", Path(path), json=body)

    def remove_training(self, project_id: str, file_ids: Sequence[str], path: str | Path) -> Path:
        """Remove what was trained in these steps and save what is left as a tar."""
        body = {"projectId": project_id, "fileIds": list(file_ids)}
        return self._save("POST", "/edit", Path(path), json=body)

    def download(self, project_id: str, file_id: str, path: str | Path) -> Path:
        """Save a checkpoint: as a tar where the path ends in ``.tar``, else unpacked as a folder.

        Raises:
            ArchiveError: What came is no checkpoint.
        """
        path = require_local(Path(path), what="where the checkpoint goes")
        parameters = {"projectId": project_id}
        address = f"/project/file/{file_id}"
        if path.name.endswith((".tar", ".tar.gz")):
            return self._save("GET", address, path, params=parameters)
        archive = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tar")
        try:
            self._save("GET", address, archive, params=parameters)
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

    def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise _unreachable(self._http.base_url, error) from error
        _require_success(answer)
        return answer

    def _json(self, method: str, path: str, **options: Any) -> Any:
        answer = self._call(method, path, **options)
        return answer.json() if answer.content else None

    def _save(self, method: str, address: str, path: Path, **options: Any) -> Path:
        """Whole or not at all."""
        require_local(path, what="where the answer goes")
        aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._http.stream(method, address, **options) as answer:
                if answer.status_code >= 300:
                    answer.read()
                    _require_success(answer)
                with aside.open("xb") as file:
                    for chunk in answer.iter_bytes(2**20):
                        file.write(chunk)
            aside.rename(path)
        except httpx.TransportError as error:
            raise _unreachable(self._http.base_url, error) from error
        finally:
            aside.unlink(missing_ok=True)
        return path

    def _follow(self, address: str, is_new: Callable[[str, Any], bool]) -> Iterator[Any]:
        """What server-sent events say, until the one called ``end``.

        A connection that is lost is made again. The server then begins with what it said before, so
        only what ``is_new``, by an event's name and content, is given.

        Raises:
            ServerError: The server refuses, or stays away.
        """
        lost = 0
        while lost < _RECONNECTS:
            began = time.monotonic()
            try:
                for name, content in self._events(address):
                    if is_new(name, content):
                        lost = 0
                        yield content
                    elif name == "end":
                        return
            except httpx.TransportError:
                pass
            except ServerError as error:
                if not any(f"status {status}" in str(error) for status in (502, 503, 504)):
                    raise
            lost = 1 if time.monotonic() - began > _LASTING_S else lost + 1
            time.sleep(min(5.0, 0.1 * 2**lost))
        raise ServerError(
            "the server stays away before what was followed has ended",
            got=address,
            fix="It goes on: follow it again, or ask how it is, later.",
        )

    def _events(self, address: str) -> Iterator[tuple[str, Any]]:
        """Server-sent events (the WHATWG's HTML standard, 9.2)."""
        name = ""
        with self._http.stream("GET", address) as answer:
            if answer.status_code >= 300:
                answer.read()
                _require_success(answer)
            for line in answer.iter_lines():
                field, _, value = line.partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    yield name, json.loads(value)


def _require_success(answer: httpx.Response) -> None:
    if answer.status_code < 300:
        return
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = answer.text[:300]
    if isinstance(detail, list):
        detail = "; ".join(f"{'.'.join(i.get('loc', []))}: {i.get('msg')}" for i in detail)
    raise ServerError(f"the server refused, status {answer.status_code}", got=detail)


def _unreachable(server: httpx.URL, error: Exception) -> ServerError:
    return ServerError(
        f"the server {server} cannot be reached",
        got=type(error).__name__,
        fix="Is it running (`ztom up`), and is this its address?",
    )


__all__ = ["Checkpoint", "Client"]
