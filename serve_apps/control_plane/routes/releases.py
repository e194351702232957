"""Releases: where each stands, live, and what one tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import Field
from starlette.exceptions import HTTPException

from serve_apps.control_plane.access import Caller, CallerOf, Permission, ServicesOf, route
from serve_apps.control_plane.openapi import sends_events
from serve_apps.control_plane.places import ServerSide
from serve_apps.control_plane.routes.endpoints import may_alias, project_of
from serve_apps.control_plane.services import Services
from serve_apps.endpoints.traffic import rollback
from serve_apps.event_stream import event_stream
from ztom.ledger.rollouts import RolloutRecord
from ztom.rollout.state import Command
from ztom.wire.fields import Alias, ReleaseId
from ztom.wire.releases import Release

router = APIRouter(tags=["releases"])

CommandName = Annotated[str, Field(examples=["promote"])]

_EVENT_POLL_S = 0.5


@route(router, "GET", "/v1/releases", Permission.USER)
def releases(caller: CallerOf, services: ServicesOf, alias: Alias | None = None) -> list[Release]:
    """Releases of the caller's projects, newest first."""
    return [
        Release.of(record)
        for record in services.ledger.endpoints.rollouts.all(alias)
        if caller.sees(project_of(record.alias, services))
    ]


@route(router, "GET", "/v1/releases/{release_id}", Permission.READ)
def release(release_id: ReleaseId, caller: CallerOf, services: ServicesOf) -> Release:
    """Where a release stands: its step, and what each check says."""
    return Release.of(_release(release_id, caller, services))


@route(
    router,
    "GET",
    "/v1/releases/{release_id}/events",
    Permission.READ,
    side=ServerSide.STREAMS,
    **sends_events("release", Release),
)
async def release_events(
    release_id: ReleaseId, caller: CallerOf, services: ServicesOf
) -> StreamingResponse:
    """Server-sent events: the release each time that something is different, and its end."""
    await asyncio.to_thread(_release, release_id, caller, services)
    return event_stream(_release_events(release_id, services))


@route(router, "POST", "/v1/releases/{release_id}/{command}", Permission.DEPLOY)
def command_release(
    release_id: ReleaseId, command: CommandName, caller: CallerOf, services: ServicesOf
) -> Release:
    """Tell a release: ``promote``, ``rollback``, ``resume`` (after a hold) or ``abort``."""
    record = _release(release_id, caller, services)
    if command not in set(Command):
        raise HTTPException(404, "There is no such command.")
    rollouts = services.ledger.endpoints.rollouts
    commanded = rollouts.command(record.id, Command(command), actor=caller.actor)
    if command == Command.ROLLBACK:
        rollback(
            services.ledger.endpoints,
            record.alias,
            actor=caller.actor,
            candidate=record.candidate,
        )
    return Release.of(commanded)


async def _release_events(release_id: str, services: Services) -> AsyncIterator[str]:
    last = ""
    while True:
        record = await asyncio.to_thread(services.ledger.endpoints.rollouts.get, release_id)
        text = Release.of(record).to_json()
        if text != last:
            yield f"event: release\ndata: {text}\n\n"
            last = text
        if not record.status.is_open:
            yield f'event: end\ndata: {{"status": "{record.status}"}}\n\n'
            return
        await asyncio.sleep(_EVENT_POLL_S)


def _release(release_id: str, caller: Caller, services: Services) -> RolloutRecord:
    record = services.ledger.endpoints.rollouts.get(release_id)
    may_alias(record.alias, caller, services)
    return record
