"""Paths of the server's own: files of projects, and what searches made of them.

Wherever a checkpoint's path is taken, three kinds name one that the server knows:

* ``<projectId>/<fileName>``, the ``filePath`` of a file of the project;
* ``<projectId>/<fileId>``, where another file of the project has the same name;
* ``<projectId>/results/<requestId>.tar``, the mastered model of a search that ended.

Whoever uses one has to be allowed to read the project. Anything else is somebody's own address.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from starlette.exceptions import HTTPException

from serve_apps.control_plane.access import Caller, Permission
from serve_apps.control_plane.search_answers import mastered_folder, stored_variant
from serve_apps.control_plane.services import Services
from ztom.errors import NotOnRecordError
from ztom.ledger.checkpoints import CheckpointRecord, NewCheckpoint, Storage
from ztom.ledger.projects import ProjectRecord
from ztom.ledger.requests import RequestKind, RequestRecord, RequestStatus

#: How a path of the server's own begins.
OWN_PATH = re.compile(r"(?P<project>[0-9a-f]{32})/(?P<rest>.+)", re.DOTALL)
_RESULT = re.compile(r"results/(?P<request>[0-9a-f]{32})\.tar")


@dataclass(frozen=True, slots=True)
class NamedCheckpoint:
    """A checkpoint that a path of the server's own names.

    Attributes:
        project: Project that the path begins with.
        name: Name for people.
        storage: Whether the server keeps it.
        address: Address that `ztom.checkpoints` opens.
        digest: Digest of the content, where it is known.
        unproven: Whether a search wrote it and did not prove it to be better.
        file: The file of the project that it is; None for what a search made.
    """

    project: ProjectRecord
    name: str
    storage: Storage
    address: str
    digest: str | None
    unproven: bool
    file: CheckpointRecord | None = None

    def as_file(self, new: NewCheckpoint) -> NewCheckpoint:
        """A file to be, at this place, with this one's marks."""
        return replace(new, storage=self.storage, address=self.address, unproven=self.unproven)


def named_checkpoint(path: str, caller: Caller, services: Services) -> NamedCheckpoint | None:
    """The checkpoint that a path names; None where it is an address of somebody's own.

    Raises:
        NotOnRecordError: There is no such project for the caller, or no such file in it.
        HTTPException: 404, the search has not ended, or its model is gone.
    """
    match = OWN_PATH.fullmatch(path)
    if match is None:
        return None
    project = services.ledger.projects.get(readable(match["project"], caller))
    result = _RESULT.fullmatch(match["rest"])
    if result is not None:
        return _mastered(project, result["request"], services)
    file = _file_of(project, match["rest"])
    return NamedCheckpoint(
        project=project,
        name=file.file_name,
        storage=file.storage,
        address=file.address,
        digest=file.digest,
        unproven=file.unproven,
        file=file,
    )


def readable(project_id: str, caller: Caller) -> str:
    """The project's id again, if the caller may read there, whatever else their route asks for.

    Raises:
        NotOnRecordError: There is no such project for them.
    """
    return replace(caller, permission=Permission.READ).project(project_id)


def searched_project(address: str, services: Services) -> str | None:
    """Id of the project whose search made what is at an address; None where no search did."""
    path, requests = Path(address), services.store.requests
    if not path.is_relative_to(requests):
        return None
    try:
        return services.ledger.requests.get(path.relative_to(requests).parts[0]).project_id
    except NotOnRecordError:
        return None


def _file_of(project: ProjectRecord, name: str) -> CheckpointRecord:
    same = [file for file in project.files if file.file_name == name]
    if len(same) == 1:
        return same[0]
    for file in project.files:
        if file.id == name:
            return file
    if same:
        raise HTTPException(
            422,
            f"The project has {len(same)} files of this name: write the file's id in its place, "
            "as its filePath does.",
        )
    raise NotOnRecordError("the project has no such file", got=name)


def _mastered(project: ProjectRecord, request_id: str, services: Services) -> NamedCheckpoint:
    request = services.ledger.requests.get(request_id)
    if request.project_id != project.id or request.kind is not RequestKind.SEARCH:
        raise NotOnRecordError("there is no such search", got=request_id)
    if request.status is not RequestStatus.FINISHED:
        raise HTTPException(404, f"search {request_id} has no result: it is {request.status}")
    stored = stored_variant(request, services.ledger)
    folder = stored or mastered_folder(services.store.requests / request_id / "run")
    if folder is None:
        raise HTTPException(404, f"the model of search {request_id} is not kept")
    return NamedCheckpoint(
        project=project,
        name=f"mastered-{request_id[:8]}",
        storage=Storage.MANAGED,
        address=str(folder),
        digest=None,
        unproven=_is_unproven(request),
    )


def _is_unproven(request: RequestRecord) -> bool:
    return (request.result or {}).get("unproven") is not False
