"""What a replica does besides answering: searches move on, checkpoints are looked at, leftovers go.

Each round reads the ledger anew, so a round that fails is simply followed by the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from serve_apps.control_plane.runner import in_thread
from serve_apps.control_plane.scores import score_pending
from serve_apps.control_plane.searches import advance
from serve_apps.control_plane.services import Services
from ztom.errors import ZtomError
from ztom.ledger.requests import RequestKind, RequestStatus

logger = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def background(services: Services) -> AsyncIterator[None]:
    """Tidy up after whoever died, then keep working while in the context."""
    await in_thread(tidy, services)

    async def searches() -> None:
        await in_thread(advance, services)

    async def scores() -> None:
        await score_pending(services)

    tasks = [asyncio.create_task(_again(work, services)) for work in (searches, scores)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def tidy(services: Services) -> None:
    """Sweep what killed processes left, and end the requests that died with them."""
    for name in services.store.sweep(services.ledger.projects.managed_addresses()):
        logger.warning("removed %s, which a killed process left", name)
    for request in services.ledger.requests.open():
        if request.kind is RequestKind.SEARCH:
            continue
        if request.job is None or not services.store.is_alive(request.job):
            services.ledger.requests.end(
                request.id, RequestStatus.FAILED, reason="the server stopped; send it again"
            )


async def _again(work: Callable[[], Awaitable[None]], services: Services) -> None:
    while True:
        try:
            await work()
        except ZtomError as error:
            logger.error("%s", error)
        except Exception as error:
            logger.error("background work failed: %s", type(error).__name__, exc_info=error)
        await asyncio.sleep(services.config.poll_s)
