"""Releases: where each stands, live, and what one tells it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import StringConstraints
from starlette.exceptions import HTTPException

from serve_apps.control_plane.access import Caller, CallerOf, Permission, ServicesOf, route
from serve_apps.control_plane.routes.endpoints import Alias, may_alias, project_of
from serve_apps.control_plane.services import Services
from serve_apps.endpoints.traffic import rollback
from serve_apps.event_stream import event_stream
from ztom.ledger.rollouts import RolloutRecord
from ztom.rollout.release import describe
from ztom.rollout.state import Command

router = APIRouter(tags=["releases"])

RolloutId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}$")]

_EVENT_POLL_S = 0.5


@route(router, "GET", "/v1/releases", Permission.USER)
def releases(
    caller: CallerOf, services: ServicesOf, alias: Alias | None = None
) -> list[dict[str, Any]]:
    """Releases of the caller's projects, newest first."""
    return [
        release_document(record)
        for record in services.ledger.endpoints.rollouts.all(alias)
        if caller.sees(project_of(record.alias, services))
    ]


@route(router, "GET", "/v1/releases/{release_id}", Permission.READ)
def release(release_id: RolloutId, caller: CallerOf, services: ServicesOf) -> dict[str, Any]:
    """Where a release stands: its step, and what each check says."""
    return release_document(_release(release_id, caller, services))


@route(router, "GET", "/v1/releases/{release_id}/events", Permission.READ)
async def release_events(
    release_id: RolloutId, caller: CallerOf, services: ServicesOf
) -> StreamingResponse:
    """Server-sent events: the release each time that something is different, and its end."""
    await asyncio.to_thread(_release, release_id, caller, services)
    return event_stream(_release_events(release_id, services))


@route(router, "POST", "/v1/releases/{release_id}/{command}", Permission.WRITE)
def command_release(
    release_id: RolloutId, command: str, caller: CallerOf, services: ServicesOf
) -> dict[str, Any]:
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
    return release_document(commanded)


def release_document(record: RolloutRecord) -> dict[str, Any]:
    """A release over the wire."""
    return {
        "id": record.id,
        "alias": record.alias,
        "candidate": record.candidate,
        "stable": record.stable,
        "status": record.status,
        "command": record.command,
        "plan": record.plan.model_dump(mode="json"),
        "state": record.state.model_dump(mode="json"),
        "steps": [row.model_dump(mode="json") for row in describe(record.plan, record.state)],
        "actor": record.actor,
        "createdAt": record.created,
        "endedAt": record.ended,
    }


async def _release_events(release_id: str, services: Services) -> AsyncIterator[str]:
    last = ""
    while True:
        record = await asyncio.to_thread(services.ledger.endpoints.rollouts.get, release_id)
        text = json.dumps(release_document(record), default=str)
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
