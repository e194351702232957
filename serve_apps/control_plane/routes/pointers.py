"""Checkpoints that stay where they are: under the operator's roots, or the server's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter

from serve_apps.control_plane.access import Caller, CallerOf, Permission, ServicesOf, route
from serve_apps.control_plane.named_paths import NamedCheckpoint, named_checkpoint
from serve_apps.control_plane.routes.files import changed_file
from serve_apps.control_plane.routes.projects import require_format
from serve_apps.control_plane.services import Services
from ztom.checkpoints.reference import name_of
from ztom.ledger.checkpoints import CheckpointChange, NewCheckpoint, Part, Storage
from ztom.wire.fields import FORMAT
from ztom.wire.files import Pointer, PointerChange
from ztom.wire.projects import Project

if TYPE_CHECKING:
    from ztom.checkpoints.checkpoint import Checkpoint

router = APIRouter(tags=["files"])


@route(router, "POST", "/project/file/external", Permission.WRITE, status_code=201)
def point(body: Pointer, caller: CallerOf, services: ServicesOf) -> Project:
    """Add a checkpoint that stays where it is, under a root that the operator allowed."""
    require_format(body.format)
    project_id = caller.project(body.project_id)
    ledger = services.ledger
    part = Part.BASE if body.base_model is True else Part.ITERATION
    wanted = [_pointer(body.file_path, part, caller, services, name=body.file_name, tag=body.tag)]
    if isinstance(body.base_model, str) and ledger.projects.get(project_id).base is None:
        wanted.insert(0, _pointer(body.base_model, Part.BASE, caller, services))
    for new in wanted:
        ledger.files.add(project_id, new, actor=caller.actor)
    project = ledger.projects.get(project_id)
    return Project.of(project, warnings=body.warnings)


def _pointer(
    address: str,
    part: Part,
    caller: Caller,
    services: Services,
    *,
    name: str | None = None,
    tag: str | None = None,
) -> NewCheckpoint:
    """A checkpoint under the operator's roots, or the server's own; it is opened once to see."""
    named = named_checkpoint(address, caller, services)
    checkpoint = _opened(address, named, services)
    new = NewCheckpoint(
        file_name=name or (name_of(address) if named is None else named.name),
        format=FORMAT,
        storage=Storage.POINTER,
        address=checkpoint.reference,  # of the Hub and of registries, the commit or the version
        part=part,
        tag=tag,
        nbytes=sum(checkpoint.source.size(file) for file in checkpoint.used_files),
    )
    return new if named is None else named.as_file(new)


def _opened(address: str, named: NamedCheckpoint | None, services: Services) -> Checkpoint:
    from ztom.checkpoints.checkpoint import open_checkpoint  # it imports torch

    if named is None or named.storage is Storage.POINTER:
        place = address if named is None else named.address
        return open_checkpoint(place, settings=services.pointers)
    return open_checkpoint(named.address, settings=services.managed)


@route(router, "PATCH", "/project/file/external", Permission.WRITE)
def point_elsewhere(body: PointerChange, caller: CallerOf, services: ServicesOf) -> Project:
    """Rename a pointer, or let it point elsewhere."""
    project_id = caller.project(body.project_id)
    services.ledger.files.get(project_id, body.file_id)
    edit = CheckpointChange(file_name=body.file_name, tag=body.tag)
    if body.file_path is not None:
        named = named_checkpoint(body.file_path, caller, services)
        checkpoint = _opened(body.file_path, named, services)
        edit = CheckpointChange(
            file_name=body.file_name,
            tag=body.tag,
            storage=Storage.POINTER if named is None else named.storage,
            address=checkpoint.reference if named is None else named.address,
            unproven=named is not None and named.unproven,
        )
    return changed_file(services, caller, project_id, body.file_id, edit, None, body)
