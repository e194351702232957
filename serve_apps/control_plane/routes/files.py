"""Checkpoints of a project: uploads, pointers, downloads, the base model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from serve_apps.control_plane.access import (
    Caller,
    CallerOf,
    Permission,
    ServicesOf,
    route,
    terms_of,
)
from serve_apps.control_plane.data import UPLOADED, data_suffix
from serve_apps.control_plane.downloads import BYTES, Download, archive_name, send, unique_names
from serve_apps.control_plane.forms import Form, FormReader
from serve_apps.control_plane.named_paths import (
    searched_project,
)
from serve_apps.control_plane.openapi import SENDS_BYTES
from serve_apps.control_plane.routes.projects import require_format
from serve_apps.control_plane.services import Services
from serve_apps.control_plane.store import Staged
from ztom.checkpoints.outgoing import (
    zip_chunks,
)
from ztom.errors import ZtomError
from ztom.ledger.checkpoints import (
    CheckpointChange,
    CheckpointRecord,
    NewCheckpoint,
    Part,
    Storage,
)
from ztom.wire.base import TolerantRequest
from ztom.wire.fields import Id
from ztom.wire.files import (
    BaseModelDeletion,
    CheckpointUpload,
    DataUpload,
    FileDeletion,
    FileEvent,
    UploadChange,
    UploadedData,
)
from ztom.wire.projects import Project

router = APIRouter(tags=["files"])

_Fields = TypeVar("_Fields", bound=TolerantRequest)


def form_of(model: type[TolerantRequest]) -> dict[str, Any]:
    """A form for the OpenAPI document: FastAPI would read the file into memory itself."""
    schema = model.model_json_schema(by_alias=True)
    schema = _inlined(schema, schema.pop("$defs", {}))
    file = {"type": "string", "format": "binary"}
    content = {**schema, "properties": {**schema["properties"], "file": file}}
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": content}}}
    }


def _inlined(part: Any, definitions: Mapping[str, Any]) -> Any:
    """A part of a schema with definitions in the place of references to them.

    A reference would be one to the root of the whole document, where these definitions are not.
    """
    if isinstance(part, list):
        return [_inlined(item, definitions) for item in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _inlined(definitions[part["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(value, definitions) for key, value in part.items()}


@route(
    router,
    "POST",
    "/project/file",
    Permission.WRITE,
    status_code=201,
    openapi_extra=form_of(CheckpointUpload),
)
async def upload(request: Request, caller: CallerOf, services: ServicesOf) -> Project:
    """Add a checkpoint: one tar of its folder. The file is the last part of the form."""
    return await _receive_new(request, caller, services, part=Part.ITERATION)


@route(router, "PATCH", "/project/file", Permission.WRITE, openapi_extra=form_of(UploadChange))
async def change_file(request: Request, caller: CallerOf, services: ServicesOf) -> Project:
    """Rename a checkpoint, or put another file in its place."""

    def check(fields: Mapping[str, str]) -> UploadChange:
        body = parsed_fields(UploadChange, fields)
        services.ledger.files.get(caller.project(body.project_id), body.file_id)
        return body

    async with FormReader(
        request, services.store, before_file=_with_room(check, request, services)
    ) as form:
        body = await asyncio.to_thread(check, form.fields)
        if form.file is not None:
            await asyncio.to_thread(_require_room, request, body.project_id, form.file, services)
        edit, place = await asyncio.to_thread(_replacement, body, form, services)
        return await asyncio.to_thread(
            changed_file, services, caller, body.project_id, body.file_id, edit, place, body
        )


@route(router, "GET", "/project/file", Permission.READ, **SENDS_BYTES)
def download_all(projectId: Id, caller: CallerOf, services: ServicesOf) -> StreamingResponse:
    """Every checkpoint of a project as a zip."""
    project = services.ledger.projects.get(caller.project(projectId))
    names = unique_names(project.files)
    streams = [(names[f.id], Download.of(f, services).chunks) for f in project.files]
    return StreamingResponse(zip_chunks(streams), media_type=BYTES)


@route(router, "DELETE", "/project/file", Permission.WRITE)
def delete_file(body: FileDeletion, caller: CallerOf, services: ServicesOf) -> Project:
    """Take a checkpoint out; ``hardDelete`` removes its bytes too, where nothing else uses them."""
    project_id = caller.project(body.project_id)
    return _deleted(services, caller, project_id, body.file_id, hard=body.hard_delete)


@route(router, "GET", "/project/file/{file_id}", Permission.READ, **SENDS_BYTES)
def download(
    file_id: Id,
    projectId: Id,
    caller: CallerOf,
    services: ServicesOf,
) -> StreamingResponse:
    """One checkpoint: the archive that was uploaded, or a tar of its folder."""
    file = services.ledger.files.get(caller.project(projectId), file_id)
    return send(Download.of(file, services), archive_name(file))


@route(router, "POST", "/project/file_event", Permission.WRITE)
def look_again(body: FileEvent, caller: CallerOf, services: ServicesOf) -> Project:
    """Compute a file's scores and check it, once more."""
    project_id = caller.project(body.project_id)
    services.ledger.files.recompute(project_id, body.file_id)
    project = services.ledger.projects.get(project_id)
    return Project.of(project, warnings=body.warnings)


@route(
    router,
    "POST",
    "/project/base-model",
    Permission.WRITE,
    status_code=201,
    openapi_extra=form_of(CheckpointUpload),
)
async def add_base(request: Request, caller: CallerOf, services: ServicesOf) -> Project:
    """Give the project a base model, which stands before its checkpoints in the chain."""
    return await _receive_new(request, caller, services, part=Part.BASE)


@route(
    router,
    "PATCH",
    "/project/base-model",
    Permission.WRITE,
    openapi_extra=form_of(CheckpointUpload),
)
async def change_base(request: Request, caller: CallerOf, services: ServicesOf) -> Project:
    """Put another base model in its place, or rename it."""

    def check(fields: Mapping[str, str]) -> tuple[CheckpointUpload, CheckpointRecord]:
        body = parsed_fields(CheckpointUpload, fields)
        return body, _base_of(services, caller.project(body.project_id))

    async with FormReader(
        request, services.store, before_file=_with_room(check, request, services)
    ) as form:
        body, base = await asyncio.to_thread(check, form.fields)
        if form.file is not None:
            await asyncio.to_thread(_require_room, request, body.project_id, form.file, services)
        edit, place = await asyncio.to_thread(_replacement, body, form, services)
        return await asyncio.to_thread(
            changed_file, services, caller, body.project_id, base.id, edit, place, body
        )


@route(router, "DELETE", "/project/base-model", Permission.WRITE)
def delete_base(body: BaseModelDeletion, caller: CallerOf, services: ServicesOf) -> Project:
    """Take the base model out of the project."""
    project_id = caller.project(body.project_id)
    base = _base_of(services, project_id)
    if body.file_id not in (None, base.id):
        raise HTTPException(404, "the project has another base model")
    project = _deleted(services, caller, project_id, base.id, hard=body.hard_delete)
    return project.model_copy(update={"warnings": tuple(body.warnings)})


@route(
    router,
    "POST",
    "/v1/data",
    Permission.WRITE,
    status_code=201,
    openapi_extra=form_of(DataUpload),
)
async def add_data(request: Request, caller: CallerOf, services: ServicesOf) -> UploadedData:
    """Keep a data set for the project's searches, which name it by the ``reference``."""

    def check(fields: Mapping[str, str]) -> DataUpload:
        body = parsed_fields(DataUpload, fields)
        caller.project(body.project_id)
        return body

    async with FormReader(
        request, services.store, before_file=_with_room(check, request, services)
    ) as form:
        body = await asyncio.to_thread(check, form.fields)
        if form.file is None:
            raise HTTPException(422, "The form has no file.")
        await asyncio.to_thread(_require_room, request, body.project_id, form.file, services)
        suffix = data_suffix(display_name(form.file_name) or "")
        name = await asyncio.to_thread(
            services.store.place_data, form.file, body.project_id, suffix
        )
        return UploadedData(
            reference=f"{UPLOADED}{name}", sha256=form.file.sha256, size=form.file.nbytes
        )


def _with_room(
    check: Callable[[Mapping[str, str]], object], request: Request, services: Services
) -> Callable[[Mapping[str, str]], None]:
    """The check of a form's fields, and whether its file may be kept, before it is received."""
    announced = request.headers.get("content-length", "")

    def before_file(fields: Mapping[str, str]) -> None:
        check(fields)
        owners = services.ledger.projects.owners(fields["projectId"])
        nbytes = int(announced) if announced.isdigit() else 1
        terms_of(request).at_end(services.account_limits.reserve(owners, nbytes))

    return before_file


def _require_room(request: Request, project_id: str, staged: Staged, services: Services) -> None:
    """Refuse a file of which nobody said how long it would be, where it is too long."""
    if "content-length" not in request.headers:
        owners = services.ledger.projects.owners(project_id)
        services.account_limits.require_bytes(owners, staged.nbytes)


async def _receive_new(
    request: Request, caller: Caller, services: Services, *, part: Part
) -> Project:
    def check(fields: Mapping[str, str]) -> CheckpointUpload:
        body = parsed_fields(CheckpointUpload, fields)
        require_format(body.format)
        caller.project(body.project_id)
        return body

    async with FormReader(
        request, services.store, before_file=_with_room(check, request, services)
    ) as form:
        body = await asyncio.to_thread(check, form.fields)
        staged = form.file
        if staged is None:
            raise HTTPException(422, "The form has no file.")
        await asyncio.to_thread(_require_room, request, body.project_id, staged, services)
        await asyncio.to_thread(_require_checkpoint, staged, services)
        new = NewCheckpoint(
            file_name=body.file_name or display_name(form.file_name) or "checkpoint.tar",
            format=body.format,
            storage=Storage.MANAGED,
            address=str(services.store.address(staged)),
            part=part,
            tag=body.tag,
            nbytes=staged.nbytes,
            content=staged.sha256,
        )

        def record() -> Project:
            services.ledger.files.add(
                body.project_id, new, actor=caller.actor, place=_placing(services, staged)
            )
            project = services.ledger.projects.get(body.project_id)
            return Project.of(project, warnings=body.warnings)

        return await asyncio.to_thread(record)


def _replacement(
    body: CheckpointUpload | UploadChange, form: Form, services: Services
) -> tuple[CheckpointChange, Callable[[], None] | None]:
    """What is to be different, and how the file that came gets to its place, if one came."""
    if form.file is None:
        return CheckpointChange(file_name=body.file_name, tag=body.tag), None
    _require_checkpoint(form.file, services)
    change = CheckpointChange(
        file_name=body.file_name or display_name(form.file_name),
        tag=body.tag,
        storage=Storage.MANAGED,
        address=str(services.store.address(form.file)),
        nbytes=form.file.nbytes,
        content=form.file.sha256,
    )
    return change, _placing(services, form.file)


def _require_checkpoint(staged: Staged, services: Services) -> None:
    """Read what can be read without reading the weights: the archive, headers, configuration."""
    from ztom.checkpoints.checkpoint import open_checkpoint  # it imports torch

    try:
        open_checkpoint(str(staged.path), settings=services.managed)
    except ZtomError:
        services.store.forget(staged.sha256)
        raise


def _placing(services: Services, staged: Staged) -> Callable[[], None]:
    return lambda: services.store.place(staged)


def changed_file(
    services: Services,
    caller: Caller,
    project_id: str,
    file_id: str,
    edit: CheckpointChange,
    place: Callable[[], None] | None,
    body: TolerantRequest,
) -> Project:
    """Change a file and answer with its project.

    Args:
        services: Services of the process.
        caller: Whoever changes it.
        project_id: Id of the project.
        file_id: Id of the file.
        edit: Fields that are to be different.
        place: Function that makes an upload appear at its address; None without one.
        body: Request, whose unknown fields are named in the answer.
    """
    _, orphans = services.ledger.files.change(
        project_id, file_id, edit, actor=caller.actor, place=place
    )
    services.ledger.files.purge(_own(orphans, project_id, services), services.store.remove)
    return Project.of(services.ledger.projects.get(project_id), warnings=body.warnings)


def _deleted(
    services: Services, caller: Caller, project_id: str, file_id: str, *, hard: bool
) -> Project:
    ledger = services.ledger
    orphans = ledger.files.delete(project_id, file_id, hard=hard, actor=caller.actor)
    ledger.files.purge(_own(orphans, project_id, services), services.store.remove)
    return Project.of(ledger.projects.get(project_id))


def _own(addresses: Sequence[str], project_id: str, services: Services) -> list[str]:
    """The addresses without the models of other projects' searches, which stay with those."""
    return [a for a in addresses if searched_project(a, services) in (None, project_id)]


def _base_of(services: Services, project_id: str) -> CheckpointRecord:
    base = services.ledger.projects.get(project_id).base
    if base is None:
        raise HTTPException(404, "the project has no base model")
    return base


def parsed_fields(model: type[_Fields], fields: Mapping[str, str]) -> _Fields:
    """The fields of a form, checked; an empty one counts as absent.

    Raises:
        RequestValidationError: One is missing or malformed.
    """
    try:
        return model.model_validate({k: v for k, v in fields.items() if v != ""})
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False)) from None


def display_name(name: str | None) -> str | None:
    """A client's name for its file, without folders, where it can be shown."""
    name = None if name is None else name.replace("\\", "/").rpartition("/")[2][:200].strip()
    return name if name and name.isprintable() else None
