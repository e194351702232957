"""Who calls, and what they may do: every route declares a permission, and it is checked here.

A route is made with `route`, which takes the permission, enforces it, and writes it into the
OpenAPI document as ``x-permission``. For a project's routes the permission is about the project
that the call names, so it is checked when the handler asks for it with `Caller.project`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, TypeVar

from anyio import to_thread
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from serve_apps.control_plane.bodies import BoundedRoute
from serve_apps.control_plane.credentials import account_of, known_caller, secret_of, unknown
from serve_apps.control_plane.openapi import REFUSED
from serve_apps.control_plane.places import TERMS, ServerSide, Terms
from serve_apps.control_plane.plain_route import plain_route
from serve_apps.control_plane.services import Services
from ztom.errors import NotOnRecordError
from ztom.ledger.accounts import ApiKeyRecord, Scope, UserRecord
from ztom.ledger.projects import Role


class Permission(StrEnum):
    """What a route asks of its caller."""

    PUBLIC = "public"
    INFER = "infer"
    USER = "user"
    ADMIN = "admin"
    READ = "project:read"
    WRITE = "project:write"
    MANAGE = "project:manage"
    DEPLOY = "project:deploy"


_Handler = TypeVar("_Handler", bound=Callable[..., Any])
#: Roles that have a permission in their project.
_GRANTS = {
    Permission.READ: {Role.OWNER, Role.EDITOR, Role.VIEWER},
    Permission.WRITE: {Role.OWNER, Role.EDITOR},
    Permission.MANAGE: {Role.OWNER},
    Permission.DEPLOY: {Role.OWNER, Role.EDITOR},
}


@dataclass(frozen=True)
class Caller:
    """Whoever sent a request, after the route's permission was checked.

    Attributes:
        user: Account of the caller.
        key: The API key, where one was sent instead of a token.
        permission: Permission that the route asks for.
        services: Services of the process, among them the ledger in which roles are looked up.
        projects: Projects whose endpoints they may call; known on routes that call models.
    """

    user: UserRecord
    key: ApiKeyRecord | None
    permission: Permission
    services: Services
    projects: frozenset[str | None] | None = frozenset()

    @property
    def actor(self) -> str:
        """Name of the caller in the audit chain."""
        return f"user:{self.user.id}" + (f" key:{self.key.id}" if self.key else "")

    def project(self, project_id: str) -> str:
        """The project's id again, if the caller may do there what the route asks for.

        Raises:
            NotOnRecordError: They do not work on it, or it does not exist: one cannot tell which.
            HTTPException: 403, they work on it and may not do this.
        """
        missing = NotOnRecordError("there is no such project", got=project_id)
        if self.key is not None and self.key.project_id not in (None, project_id):
            raise missing
        if self.user.is_admin:
            self.services.ledger.projects.get(project_id)
            return project_id
        role = self.services.ledger.projects.role(project_id, self.user.id)
        if role is None:
            raise missing
        if role not in _GRANTS[self.permission]:
            raise HTTPException(403, f"This takes {self.permission} in the project.")
        if self.permission is Permission.DEPLOY and not self.user.may_deploy:
            raise HTTPException(
                403,
                "Deploying, and what moves traffic, takes the role DEPLOYER: ask an administrator "
                f"(`ztom user change {self.user.username} --role DEPLOYER`).",
            )
        return project_id

    def project_or_operator(self, project_id: str | None) -> None:
        """Let through who may do it in the project; what is of no project is for operators.

        Raises:
            NotOnRecordError: There is no such project for the caller; see `project`.
            HTTPException: 403.
        """
        if project_id is not None:
            self.project(project_id)
        elif not self.is_operator:
            raise HTTPException(403, "This takes an administrator, or a projectId.")

    @property
    def is_operator(self) -> bool:
        """Whether they may do what the route asks for with what is of no project."""
        if not self.user.is_admin:
            return False
        if self.key is None:
            return True
        wanted = Scope.READ if self.permission is Permission.READ else Scope.WRITE
        return self.key.project_id is None and wanted in self.key.scopes

    def projects_seen(self) -> frozenset[str] | None:
        """Ids of the projects whose records are listed for them; None for all of them."""
        seen = None if self.user.is_admin else self.services.ledger.projects.ids_of(self.user.id)
        only = None if self.key is None else self.key.project_id
        if only is None:
            return seen
        return frozenset({only}) if seen is None or only in seen else frozenset()

    def sees(self, project_id: str | None) -> bool:
        """Whether what is of the project, or of none, is listed for them."""
        if self.key is not None and self.key.project_id not in (None, project_id):
            return False
        if self.user.is_admin:
            return True
        if project_id is None:
            return False
        return self.services.ledger.projects.role(project_id, self.user.id) is not None


async def services_of(request: Request) -> Services:
    """What the application was made with."""
    return _services(request)


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def caller_of(request: Request) -> Caller:
    """Whoever `route` let in."""
    caller: Caller = request.state.caller
    return caller


ServicesOf = Annotated[Services, Depends(services_of)]
CallerOf = Annotated[Caller, Depends(caller_of)]


def route(
    router: APIRouter,
    method: str,
    path: str,
    permission: Permission,
    *,
    side: ServerSide | None = ServerSide.CONTROL,
    plain: bool = False,
    **options: Any,
) -> Callable[[_Handler], _Handler]:
    """Like ``router.get(path)``, with a permission and, from the docstring, a summary.

    Args:
        router: Router that gets the route.
        method: ``GET``, ``POST``, ...
        path: Path of the route below the application's root.
        permission: Permission that a call takes.
        side: Side on which a call takes its place; those to models and those without an account
            have sides of their own, and None takes none.
        plain: Whether the handler reads the body and makes the response by itself. It is called
            with request, caller and services, and FastAPI only describes it.
        options: Further options of FastAPI's decorator.
    """
    extra = {**options.pop("openapi_extra", {}), "x-permission": str(permission)}
    if permission is not Permission.PUBLIC:
        extra["security"] = [{"bearer": []}]
    options.setdefault("responses", REFUSED)

    def declare(handler: _Handler) -> _Handler:
        summary = (handler.__doc__ or "").partition("\n")[0].rstrip(".")
        router.add_api_route(
            path,
            handler,
            methods=[method],
            summary=summary,
            openapi_extra=extra,
            route_class_override=_guarded_route(permission, side, plain),
            **options,
        )
        return handler

    return declare


@cache
def _guarded_route(permission: Permission, side: ServerSide | None, plain: bool) -> type[APIRoute]:
    """The class of routes that let a caller in, and give them a place, before they read a body.

    A dependency would come too late: FastAPI reads the body before it calls any.
    """
    guard = _guard(permission, side)
    if plain:
        return plain_route(guard)

    class GuardedRoute(BoundedRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            answer = super().get_route_handler()

            async def guarded(request: Request) -> Response:
                await guard(request)
                return await answer(request)

            return guarded

    return GuardedRoute


def _guard(permission: Permission, side: ServerSide | None) -> Callable[[Request], Awaitable[None]]:
    """What lets a caller in, or not."""
    if permission is Permission.INFER:
        return _require_inference
    if permission is not Permission.PUBLIC:
        return _Require(permission, side or ServerSide.CONTROL)

    async def let_in(request: Request) -> None:
        if side is not None:
            terms_of(request).enter_unknown()

    return let_in


def terms_of(request: Request) -> Terms:
    """What a request may use, and the address that it came from."""
    terms: Terms = request.scope[TERMS]
    return terms


@dataclass(frozen=True)
class _Require:
    """Lets a caller in who has the permission, and gives them a place."""

    permission: Permission
    side: ServerSide

    async def __call__(self, request: Request) -> None:
        services = _services(request)
        caller = await to_thread.run_sync(self._caller, request, services, limiter=services.door)
        terms_of(request).enter_known(self.side, caller.user.id)
        request.state.caller = caller

    def _caller(self, request: Request, services: Services) -> Caller:
        user, key = account_of(request, services)
        if not user.enabled:
            raise unknown()
        if self.permission is Permission.ADMIN and (key is not None or not user.is_admin):
            raise HTTPException(403, "This takes an administrator.")
        if key is not None:
            _check_scope(key, self.permission, request.method)
        return Caller(user, key, self.permission, services)


async def _require_inference(request: Request) -> None:
    """The same for requests to models: what it found holds for a moment, for they are many."""
    services = _services(request)
    secret = secret_of(request)
    account = services.callers.get(secret)
    if account is None:
        account = await to_thread.run_sync(known_caller, request, services, limiter=services.door)
        services.callers.put(secret, account)
    if not account.user.enabled:
        raise unknown()
    if account.key is not None and Scope.INFER not in account.key.scopes:
        raise HTTPException(403, "The API key is not for calling models.")
    terms_of(request).enter_known(ServerSide.MODELS, account.user.id)
    request.state.caller = Caller(
        account.user, account.key, Permission.INFER, services, account.projects
    )


def _check_scope(key: ApiKeyRecord, permission: Permission, method: str) -> None:
    reads = permission is Permission.READ or (permission is Permission.USER and method == "GET")
    if reads and not {Scope.READ, Scope.WRITE} & set(key.scopes):
        raise HTTPException(403, "The API key is for calling models only.")
    if not reads and Scope.WRITE not in key.scopes:
        raise HTTPException(403, "The API key is not for changing anything.")
    if permission is Permission.USER and method != "GET" and key.project_id is not None:
        raise HTTPException(403, "The API key is for one project only.")
