"""The controller's Ray Serve deployment: one replica, which holds nothing but what it looks at.

It can be killed at any moment: what is wanted and how far it is stand in the ledger.
"""

# No `from __future__ import annotations`: Serve reads these annotations at run time.
import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator

from ray import serve

from cluster.local import dashboard_address
from serve_apps.control_plane.config import ServerConfig
from serve_apps.control_plane.identity import ServerIdentity
from serve_apps.control_plane.runner import ray_runner
from serve_apps.control_plane.services import Services
from serve_apps.controller.apps import Apps, ServeApps
from serve_apps.controller.lanes import ThreadLanes
from serve_apps.controller.metrics import ReplicaMetrics
from serve_apps.controller.reconcile import Reconciler
from serve_apps.controller.record_metrics import RecordMetrics
from serve_apps.controller.releases import move_releases
from serve_apps.gateway.backends import ServeBackends
from serve_apps.server.background import again_and_again, background
from serve_apps.tasks import meanwhile
from ztom.ledger.deployments import DeploymentState
from ztom.ledger.usage_book import UsageBook

_EVERY_S = 0.3
_METRICS_EVERY_S = 5.0
#: A controller that slept longer than this between two looks has not watched meanwhile.
_LONGEST_TICK_S = 5.0


@contextlib.asynccontextmanager
async def controlling(
    services: Services, apps: Apps, *, every_s: float = _EVERY_S
) -> AsyncIterator[None]:
    """Make what runs what the ledger says, and move releases, while in the context."""
    endpoints = services.ledger.endpoints
    lanes = ThreadLanes()
    reconciler = Reconciler(endpoints, services.ledger.verdicts, apps, lanes=lanes)
    book = UsageBook(services.ledger.usage, "controller")
    metrics = ReplicaMetrics(endpoints, apps, book)
    record = RecordMetrics(services.ledger.work)
    revision = services.ledger.revision
    last, moving = time.monotonic(), False

    def round_of_deployments() -> bool:
        if any(record.state is DeploymentState.STARTING for record in endpoints.deployments.all()):
            services.runner.make_room()
        return reconciler.round()

    async def deployments() -> bool:
        return await asyncio.to_thread(round_of_deployments)

    async def swaps() -> bool:
        return await asyncio.to_thread(reconciler.keep_swapped)

    async def releases() -> bool:
        nonlocal last, moving
        now = time.monotonic()
        # what began since the last look has not been watched for longer than a look takes to come
        seconds, last = min(now - last, _LONGEST_TICK_S if moving else every_s), now
        moving = await asyncio.to_thread(move_releases, endpoints, seconds=seconds)
        return moving

    async def look() -> bool:
        await asyncio.to_thread(metrics.look)
        await asyncio.to_thread(record.look)
        return True

    try:
        async with (
            background(services),
            again_and_again((deployments, swaps, releases), revision, every_s=every_s),
            again_and_again((look,), revision, every_s=_METRICS_EVERY_S),
            meanwhile((book.keep_writing(),)),
        ):
            await asyncio.to_thread(services.ledger.usage.forget_ended)
            yield
    finally:
        lanes.close()
        await asyncio.to_thread(book.write, ends=True)


@serve.deployment(name="controller", num_replicas=1, max_ongoing_requests=4)
class Controller:
    """The one replica."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, config: ServerConfig, identity: ServerIdentity
    ) -> None:
        os.umask(0o077)
        runner = ray_runner(config, dashboard_address())
        self._services = Services.open(config, runner, ServeBackends(), identity=identity)
        self._stack = contextlib.AsyncExitStack()
        await self._stack.enter_async_context(controlling(self._services, ServeApps()))

    async def __del__(self) -> None:
        await self._stack.aclose()
        self._services.close()
