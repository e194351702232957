"""Projects and their members."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from serve_apps.control_plane.access import CallerOf, Permission, ServicesOf, route
from serve_apps.control_plane.chains import with_base
from serve_apps.control_plane.parameters import parameter_names
from serve_apps.control_plane.services import Services
from ztom.ledger.projects import Role
from ztom.wire.fields import FORMAT, Id
from ztom.wire.projects import (
    MemberPatch,
    NewMember,
    NewProject,
    Project,
    ProjectDeletion,
    ProjectMember,
    ProjectMetadata,
    ProjectPatch,
)

router = APIRouter(tags=["projects"])


@route(router, "GET", "/project", Permission.USER)
def projects(caller: CallerOf, services: ServicesOf) -> list[Project]:
    """The caller's projects; all of them for an administrator."""
    visible = services.ledger.projects.visible_to(None if caller.user.is_admin else caller.user.id)
    only = None if caller.key is None else caller.key.project_id
    return [Project.of(project) for project in visible if only in (None, project.id)]


@route(router, "POST", "/project", Permission.USER, status_code=201)
def create_project(body: NewProject, caller: CallerOf, services: ServicesOf) -> Project:
    """Make a project, which belongs to the caller."""
    require_format(body.format)
    project = services.ledger.projects.create(
        name=body.name,
        description=body.description,
        format=body.format,
        owner=caller.user.id,
        actor=caller.actor,
    )
    return Project.of(project, warnings=body.warnings)


@route(router, "PATCH", "/project", Permission.WRITE)
def change_project(body: ProjectPatch, caller: CallerOf, services: ServicesOf) -> Project:
    """Rename a project, or describe it anew; its format stays what it is."""
    project_id = caller.project(body.project_id)
    current = services.ledger.projects.get(project_id)
    if body.format not in (None, current.format):
        raise HTTPException(422, "The format of a project cannot be changed.")
    changed = services.ledger.projects.change(
        project_id, name=body.name, description=body.description, actor=caller.actor
    )
    return Project.of(changed, warnings=body.warnings)


@route(router, "DELETE", "/project", Permission.MANAGE, status_code=204)
def delete_projects(body: ProjectDeletion, caller: CallerOf, services: ServicesOf) -> None:
    """Delete projects: all of those named, or none. ``hardDelete`` takes their files as well."""
    wanted = list(dict.fromkeys(map(caller.project, body.project_ids)))
    ledger = services.ledger
    requests = [
        request for project_id in wanted for request in ledger.requests.of_project(project_id)
    ]
    orphans = ledger.projects.delete(wanted, hard=body.hard_delete, actor=caller.actor)
    ledger.files.purge(orphans, services.store.remove)
    if body.hard_delete:
        for project_id in wanted:
            services.store.remove(str(services.store.data_folder(project_id)))
        served = {deployment.address for deployment in ledger.endpoints.deployments.all()}
        kept = ledger.files.managed_addresses() | served
        for request in requests:
            folder = services.store.requests / request.id
            if not any(Path(address).is_relative_to(folder) for address in kept):
                services.store.remove(str(folder))


@route(router, "GET", "/project/{project_id}", Permission.READ)
def project(project_id: Id, caller: CallerOf, services: ServicesOf) -> Project:
    """A project with its files."""
    return Project.of(services.ledger.projects.get(caller.project(project_id)))


@route(
    router,
    "GET",
    "/project/{project_id}/metadata",
    Permission.READ,
    response_model=ProjectMetadata,
)
def project_metadata(
    project_id: Id, caller: CallerOf, services: ServicesOf
) -> ProjectMetadata | Response:
    """What is known of the project's model; an empty body while there is no checked checkpoint."""
    project = services.ledger.projects.get(caller.project(project_id))
    known = [file for file in project.chain if file.digest is not None]
    if not known:
        return Response(status_code=200)
    chain = with_base(project.chain, services)
    names = parameter_names(chain, known[-1], services)
    return ProjectMetadata.of(project, known[-1], length=chain.length, names=names)


@route(router, "GET", "/project/{project_id}/user", Permission.READ)
def members(project_id: Id, caller: CallerOf, services: ServicesOf) -> list[ProjectMember]:
    """The members of a project with their roles."""
    records = services.ledger.projects.members(caller.project(project_id))
    return [ProjectMember.of(member) for member in records]


@route(router, "POST", "/project/{project_id}/user", Permission.MANAGE, status_code=201)
def add_member(
    project_id: Id, body: NewMember, caller: CallerOf, services: ServicesOf
) -> ProjectMember:
    """Let somebody in."""
    caller.project(project_id)
    user = services.ledger.accounts.by_email(body.email_address)
    role = Role(body.role.lower())
    services.ledger.projects.set_member(project_id, user.id, role, actor=caller.actor)
    return _member(project_id, user.id, services)


@route(router, "PATCH", "/project/{project_id}/user/{user_id}", Permission.MANAGE)
def change_member(
    project_id: Id, user_id: Id, body: MemberPatch, caller: CallerOf, services: ServicesOf
) -> ProjectMember:
    """Change what a member may do."""
    caller.project(project_id)
    if services.ledger.projects.role(project_id, user_id) is None:
        raise HTTPException(404, "there is no such member")
    role = Role(body.role.lower())
    services.ledger.projects.set_member(project_id, user_id, role, actor=caller.actor)
    return _member(project_id, user_id, services)


@route(router, "DELETE", "/project/{project_id}/user/{user_id}", Permission.MANAGE, status_code=204)
def remove_member(project_id: Id, user_id: Id, caller: CallerOf, services: ServicesOf) -> None:
    """Take somebody out."""
    caller.project(project_id)
    services.ledger.projects.remove_member(project_id, user_id, actor=caller.actor)


def _member(project_id: str, user_id: str, services: Services) -> ProjectMember:
    records = services.ledger.projects.members(project_id)
    for member in records:
        if member.user_id == user_id:
            return ProjectMember.of(member)
    raise HTTPException(404, "there is no such member")  # taken out meanwhile


def require_format(name: str) -> None:
    """Refuse what this server does not work with yet.

    Raises:
        HTTPException: 501.
    """
    if name != FORMAT:
        raise HTTPException(501, f"{name} is not supported yet; {FORMAT} is.")
