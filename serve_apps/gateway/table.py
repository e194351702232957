"""The routing table of one gateway process, kept up with the ledger's.

A request is routed by the table that it finds when it comes, whole; the next one may find another.
When the ledger cannot be read, the table stays as it was: traffic does not stop with the database.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable

from ztom.errors import ZtomError
from ztom.ledger.endpoints import Endpoints
from ztom.rollout.callers import CallerShares
from ztom.rollout.routing import RoutingTable

logger = logging.getLogger(__name__)

#: A change has to be seen within a second by every gateway.
POLL_S = 0.2
#: Clients that ask for models that are not there make it look no more often.
_LEAST_S = 0.05


class TableKeeper:
    """Looks for a newer table.

    Args:
        endpoints: Endpoints in the ledger.
        on_change: Callback with the version and the applications that no variant runs in any more.
    """

    def __init__(
        self, endpoints: Endpoints, on_change: Callable[[int, frozenset[str]], None]
    ) -> None:
        self._endpoints = endpoints
        self._on_change = on_change
        self.version = 0
        self._revision = ""
        self.table = RoutingTable()
        self._callers: dict[str, CallerShares] = {}
        self._looking = asyncio.Lock()
        self._looked = -math.inf

    async def look(self) -> None:
        """Take the newest table, if there is a newer one.

        Raises:
            LedgerError: The ledger cannot be read, or what it holds is no table.
        """
        async with self._looking:
            await self._look()

    async def look_again(self) -> None:
        """Look once more before it is said that there is no such model: it may have come since."""
        async with self._looking:
            if time.monotonic() - self._looked < _LEAST_S:
                return
            try:
                await self._look()
            except ZtomError as error:
                logger.error("the routing table stays at version %d: %s", self.version, error)

    async def _look(self) -> None:
        newer = await asyncio.to_thread(self._newer)
        self._looked = time.monotonic()
        if newer is None:
            return
        version, table, self._callers = newer
        gone = _apps(self.table) - _apps(table)
        self.version, self.table = version, table
        self._on_change(version, gone)

    async def keep_up(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self.look()
            except Exception as error:
                logger.error("the routing table stays at version %d: %s", self.version, error)

    def callers_before(self, release: str) -> CallerShares:
        """Shares of the callers in the traffic before a release that the table names."""
        return self._callers.get(release, CallerShares())

    def _newer(self) -> tuple[int, RoutingTable, dict[str, CallerShares]] | None:
        revision = self._endpoints.revision()
        if revision == self._revision:  # an eightieth of the time of asking for the version
            return None
        if self._endpoints.routing_version() == self.version:
            self._revision = revision
            return None
        version, table = self._endpoints.routing()
        releases = {route.release for route in table.routes.values() if route.release is not None}
        callers = {
            release: self._callers[release]
            if release in self._callers
            else self._endpoints.rollouts.callers(release)
            for release in sorted(releases)
        }
        self._revision = revision
        return version, table, callers


def _apps(table: RoutingTable) -> frozenset[str]:
    return frozenset(placement.app for placement in table.placements.values())
