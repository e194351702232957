"""Requests that are answered while the caller waits: on record from beginning to end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from serve_apps.control_plane.access import Caller
from serve_apps.control_plane.services import Services
from ztom.errors import ZtomError
from ztom.ledger.requests import NewRequest, RequestKind, RequestRecord, RequestStatus

logger = logging.getLogger(__name__)


@dataclass
class PendingRequest:
    """A request under way; what came of it is filled in."""

    record: RequestRecord
    result: Mapping[str, object] = field(default_factory=dict)
    artifact: str | None = None


@asynccontextmanager
async def pending_request(
    kind: RequestKind,
    caller: Caller,
    services: Services,
    project_id: str | None,
    parameters: Mapping[str, object],
) -> AsyncIterator[PendingRequest]:
    """Keep a request on record from its beginning to its end, whichever end that is."""
    ledger = services.ledger.requests

    def begin() -> RequestRecord:
        record = ledger.create(NewRequest(kind, caller.user.id, project_id, parameters))
        ledger.start(record.id, job=services.store.replica)
        return record

    pending = PendingRequest(await asyncio.shield(asyncio.to_thread(begin)))
    try:
        yield pending
        await asyncio.to_thread(
            lambda: ledger.finish(
                pending.record.id, result=pending.result, artifact=pending.artifact
            )
        )
    except BaseException as error:
        message = str(error) if isinstance(error, ZtomError) else type(error).__name__
        reason = services.store.without_folders(message)
        end = asyncio.to_thread(
            lambda: ledger.end(pending.record.id, RequestStatus.FAILED, reason=reason)
        )
        try:
            await asyncio.shield(end)
        except (ZtomError, asyncio.CancelledError) as late:
            logger.warning("request %s has no end on record: %s", pending.record.id, late)
        raise
