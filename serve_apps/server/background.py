"""What a server does besides answering: searches move on, checkpoints are looked at, leftovers go.

Each round reads the ledger anew, so a round that fails is simply followed by the next one. While
nothing is in work, a round waits until somebody has written to the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from serve_apps.control_plane.scores import Scorer
from serve_apps.control_plane.searches import advance
from serve_apps.control_plane.services import Services
from serve_apps.tasks import meanwhile
from ztom.errors import AuditError, StorageError, ZtomError
from ztom.io.files import read_place, write_whole
from ztom.io.places import StoragePlace, parse_place
from ztom.ledger.audit import SignedHead
from ztom.ledger.requests import RequestKind, RequestStatus

logger = logging.getLogger(__name__)


#: A look at the ledger; it returns whether something is in work, which the next look moves on.
Work = Callable[[], Awaitable[bool]]
#: Seconds between two looks at nothing new: what is not in the ledger may have changed.
QUIET_S = 2.0


@contextlib.asynccontextmanager
async def background(services: Services) -> AsyncIterator[None]:
    """Keep working while in the context; one process of a server does."""

    async def searches() -> bool:
        return await asyncio.to_thread(advance, services)

    async def scores() -> bool:
        return await scorer.round(services)

    async def head() -> bool:
        await asyncio.to_thread(exported.write, services)
        return False

    scorer, exported = Scorer(), HeadExport()
    works = (searches, scores) if services.config.audit_head is None else (searches, scores, head)
    async with again_and_again(works, services.ledger.revision, every_s=services.config.poll_s):
        yield


@contextlib.asynccontextmanager
async def again_and_again(
    works: Sequence[Work], revision: Callable[[], str], *, every_s: float
) -> AsyncIterator[None]:
    """Do each of these over and over while in the context; what one raises is logged.

    Args:
        works: What is done; while a work has nothing in hand it is not done again before the
            ledger has changed, or `QUIET_S` have passed.
        revision: Function that tells one state of the ledger from another.
        every_s: Seconds between two looks.
    """
    async with meanwhile(_again(work, revision, every_s) for work in works):
        yield


class HeadExport:
    """Writes the signed end of the audit chain where the operator wants it, when it has grown."""

    def __init__(self) -> None:
        self._rows = -1

    def write(self, services: Services) -> None:
        """Sign and write, if there is something new.

        The head that is there is evidence: it is replaced by one of a chain that holds it, and by
        no other.

        Raises:
            AuditError: The chain is not the one whose end is there.
            SignatureError: The key cannot be used.
            StorageError: The place cannot be read or written.
        """
        address = services.config.audit_head
        rows = services.ledger.audit.length()
        if address is None or rows == self._rows:
            return
        before = _head_at(address)
        if before is not None:
            before.check()
            services.ledger.audit.check(before)
        if before is None or before.sequence < rows:
            head = services.ledger.audit.sign(
                services.keys.audit(), time=datetime.now(UTC).isoformat()
            )
            _write_head(address, head)
        self._rows = rows


def _head_at(address: str) -> SignedHead | None:
    try:
        return SignedHead.model_validate_json(read_place(_place_of_head(address)))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise AuditError(f"{address} holds something else than a head") from error
    except OSError as error:
        raise StorageError(f"{address} cannot be read", reason=error) from error


def _write_head(address: str, head: SignedHead) -> None:
    """It appears whole, as a file or as an object of a store."""
    try:
        write_whole(_place_of_head(address), head.model_dump_json(indent=1) + "\n")
    except OSError as error:
        raise StorageError(
            f"the end of the audit chain cannot be written to {address}", reason=error
        ) from error


def _place_of_head(address: str) -> StoragePlace:
    place = parse_place(address)
    return place.expanduser() if isinstance(place, Path) else place


def tidy(services: Services) -> None:
    """Sweep what killed processes left, and end the requests that died with them."""
    for name in services.store.sweep(
        services.ledger.files.managed_addresses(), services.ledger.files.purge
    ):
        logger.warning("removed %s, which a killed process left", name)
    for request in services.ledger.requests.open():
        if request.kind is RequestKind.SEARCH:
            continue
        if request.job is None or not services.store.is_alive(request.job):
            services.ledger.requests.end(
                request.id, RequestStatus.FAILED, reason="the server stopped; send it again"
            )


async def _again(work: Work, revision: Callable[[], str], every_s: float) -> None:
    seen, busy, looked_s = "", True, 0.0
    while True:
        try:
            now = await asyncio.to_thread(revision)
            if busy or now != seen or time.monotonic() - looked_s >= QUIET_S:
                seen, busy, looked_s = now, True, time.monotonic()
                busy = await work()
        except ZtomError as error:
            logger.error("%s", error)
        except Exception as error:
            logger.error("background work failed: %s", type(error).__name__, exc_info=error)
        await asyncio.sleep(every_s)
