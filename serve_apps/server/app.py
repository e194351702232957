"""The application: routes, guards and background work, and its Ray Serve deployment.

``ztom up`` starts it; `create_app` alone is an ASGI application like any other.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from ray import serve
from ray.serve.schema import LoggingConfig

from cluster.local import dashboard_address
from serve_apps.control_plane.access import Permission, route
from serve_apps.control_plane.config import ServerConfig
from serve_apps.control_plane.errors import LastResort, add_error_handlers
from serve_apps.control_plane.flow import BodyGuard, BodyLimits
from serve_apps.control_plane.hosts import KnownHosts
from serve_apps.control_plane.identity import ServerIdentity
from serve_apps.control_plane.openapi import TAGS, VERSION, describe, operation_id
from serve_apps.control_plane.places import ALWAYS_ANSWERED, PlaceKeeper
from serve_apps.control_plane.prefix import LaterPrefix
from serve_apps.control_plane.routes import (
    accounts,
    activations,
    analyses,
    deployments,
    edits,
    endpoints,
    files,
    pointers,
    projects,
    releases,
    searches,
    signing_keys,
    usage,
    verdicts,
)
from serve_apps.control_plane.routes import inference as gateway
from serve_apps.control_plane.runner import ray_runner
from serve_apps.control_plane.services import Services
from serve_apps.gateway.backends import ServeBackends
from serve_apps.server.background import tidy
from serve_apps.server.controller import Controller
from ztom.io.private import private_folder
from ztom.version import __version__
from ztom.wire.problems import Health

DEPLOYMENT_NAME = "control-plane"
#: Of the resource that each node has one of, by which work is kept on it.
_SLIVER = 0.0001

health_router = APIRouter(tags=["health"])


@route(health_router, "GET", ALWAYS_ANSWERED, Permission.PUBLIC, side=None)
async def health() -> Health:
    """Up."""
    return Health(status="ok", version=__version__)


def create_app(
    services: Services, *, besides: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
) -> FastAPI:
    """The application on opened services, which it closes when it shuts down.

    Args:
        services: Opened services that the routes work with.
        besides: Context that the process is in while it answers.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            await asyncio.to_thread(tidy, services)
            async with services.gateway.running(), besides():
                yield
        finally:
            services.close()

    app = FastAPI(
        title="Z-TOM",
        description="Every path can be called below `/api/v2` as well.",
        version=__version__,
        openapi_tags=TAGS,
        generate_unique_id_function=operation_id,
        openapi_url="/v3/api-docs",
        docs_url="/docs",
        redoc_url=None,
        lifespan=lifespan,
    )
    app.openapi_version = VERSION
    app.state.services = services
    # models first: routes are tried in this order, and most requests are to models; files before
    # projects: /project/file is not the project called "file"
    rooms = (
        gateway,
        accounts,
        files,
        pointers,
        projects,
        edits,
        analyses,
        activations,
        searches,
        deployments,
        endpoints,
        releases,
    )
    for room in (*rooms, verdicts, signing_keys, usage):
        app.include_router(room.router)
    app.include_router(health_router)
    add_error_handlers(app)
    describe(app)
    config = services.config
    app.add_middleware(
        BodyGuard,
        known=BodyLimits(config.max_body_bytes, config.max_upload_bytes, config.body_timeout_s),
        unknown=BodyLimits(
            config.anonymous_body_bytes,
            config.anonymous_body_bytes,
            config.anonymous_body_s,
            whole_s=config.anonymous_body_s,
        ),
    )
    if config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.cors_origins),
            allow_methods=["*"],
            allow_headers=["Authorization", "Content-Type"],
        )
    app.add_middleware(LastResort)
    app.add_middleware(PlaceKeeper, places=services.places, settings=config)
    app.add_middleware(LaterPrefix)
    app.add_middleware(KnownHosts, names=config.allowed_hosts)
    return app


def build(args: ServerConfig | Mapping[str, Any]) -> serve.Application:
    """The Ray Serve application: an ingress that scales, and one controller.

    Anybody can deploy it, by ``import_path: serve_apps.server.app:build`` and ``args`` in a file of
    `serve deploy` or in a RayService.

    Args:
        args: Configuration of the server, or its keys and values.

    Raises:
        ConfigError: A key is misspelt, or a value out of range.
    """
    config = args if isinstance(args, ServerConfig) else ServerConfig(**args)
    return bind(config)


def bind(
    config: ServerConfig, *, node: str | None = None, identity: ServerIdentity | None = None
) -> serve.Application:
    """The application of `build`, where wanted on one node of a cluster.

    Args:
        config: Configuration of the server.
        node: Address of the node that all its processes stay on; None for any.
        identity: Server that all of its processes have to be one of; the one of this machine's data
            folder when not given.
    """
    private_folder(config.data)
    identity = identity or ServerIdentity.of(config)

    def on_replica() -> FastAPI:
        os.umask(0o077)  # on another node of a cluster nobody has set it before
        runner = ray_runner(config, dashboard_address())
        return create_app(Services.open(config, runner, ServeBackends(), identity=identity))

    ingress = serve.ingress(on_replica)
    # both wait and carry bytes; a search must not be short of a CPU because of them
    idle: dict[str, Any] = {"num_cpus": 0}
    if node is not None:
        idle["resources"] = {f"node:{node}": _SLIVER}
    # the controller calls variants from threads, where no event loop is
    threads = {"env_vars": {"RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "1"}}
    deployment: serve.Deployment = Controller  # what its decorator makes of the class
    controller = deployment.options(ray_actor_options={**idle, "runtime_env": threads})
    return serve.deployment(
        name=DEPLOYMENT_NAME,
        num_replicas=config.http_replicas,
        # the application has places of its own, and refuses at once; some are for doing that
        max_ongoing_requests=2 * config.most_at_once,
        # a replica that died is replaced as soon as it is looked for
        health_check_period_s=2,
        graceful_shutdown_timeout_s=config.drain_s,
        graceful_shutdown_wait_loop_s=0.5,
        ray_actor_options=idle,
        logging_config=LoggingConfig(encoding="JSON", enable_access_log=False),
    )(ingress()).bind(controller.bind(config, identity))
