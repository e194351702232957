"""Warm engines on Ray: one keeper for a server, and a process for each engine that it keeps.

The keeper is an actor that every process of the server finds by its name. It holds nothing but what
loading makes, so one that is gone is simply made again. Its engines are its own: they go with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from serve_apps.control_plane.engine_keeper import EngineGoneError, EngineKeeper, KeeperLimits
from serve_apps.control_plane.questions import EngineQuestion, EngineSpec
from serve_apps.tasks import meanwhile
from ztom.errors import EngineError, ZtomError

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from ztom.engines.protocol import Engine

logger = logging.getLogger(__name__)

_NAMESPACE = "ztom"
_LOOK_S = 5.0
#: Calls to the keeper at once: those that wait for their turn, and those that look or make room.
_CALLS = 1000


class EngineHolder:
    """Runs in a process of its own and holds one engine, from `load` on."""

    def __init__(self) -> None:
        self._engine: Engine | None = None

    def load(self, spec: EngineSpec) -> None:
        """Load the engine.

        Raises:
            ZtomError: The model cannot be loaded.
        """
        self._engine = spec.open()

    def ask(self, question: EngineQuestion) -> Any:
        """Ask the engine; whatever it raises is an error of ours.

        Raises:
            ZtomError: What the question raised.
        """
        if self._engine is None:
            raise EngineGoneError("the engine's process is a new one")
        try:
            return question.answer(self._engine)
        except ZtomError:
            raise
        except Exception as error:
            raise EngineError(f"the engine raised {type(error).__name__}", got=error) from error


class RayEngineProcess:
    """See `serve_apps.control_plane.engine_keeper.EngineProcess`; an actor of Ray's.

    Args:
        spec: Model that the process is to load.
    """

    def __init__(self, spec: EngineSpec) -> None:
        import ray

        from cluster.capacity import NodeNeeds
        from cluster.pools import cluster_capacity

        config = spec.config
        wanted = NodeNeeds(
            gpus=config.tensor_parallel_size,
            accelerator_type=config.accelerator_type,
            label_selector=config.label_selector,
            resources=config.resources,
        )
        needs = cluster_capacity().choose(wanted, config.device)
        # No CPU is reserved: an answer does not wait for a search that has them all to end.
        self._actor = (
            ray.remote(EngineHolder)
            .options(
                num_cpus=0,
                num_gpus=needs.gpus,
                resources=dict(needs.resources),
                accelerator_type=needs.accelerator_type,
                label_selector=dict(needs.label_selector),
            )
            .remote()
        )
        self._spec = spec

    async def start(self) -> None:
        """See `EngineProcess.start`."""
        await _result(self._actor.load.remote(self._spec))

    async def ask(self, question: EngineQuestion) -> Any:
        """See `EngineProcess.ask`."""
        return await _result(self._actor.ask.remote(question))

    def kill(self) -> None:
        """See `EngineProcess.kill`."""
        import ray

        ray.kill(self._actor, no_restart=True)


class KeeperActor:
    """The keeper, as an actor of Ray's.

    Args:
        limits: How many engines there may be, and how long they are kept.
    """

    def __init__(self, limits: KeeperLimits) -> None:
        self._keeper = EngineKeeper(RayEngineProcess, limits)
        self._stack = contextlib.AsyncExitStack()
        self._watches = False

    async def ask(self, spec: EngineSpec, question: EngineQuestion) -> Any:
        """See `EngineKeeper.ask`."""
        if not self._watches:
            self._watches = True
            await self._stack.enter_async_context(meanwhile([self._tidy()]))
        return await self._keeper.ask(spec, question)

    async def make_room(self) -> None:
        """See `EngineKeeper.make_room`."""
        await self._keeper.make_room()

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            await self._keeper.tidy()


class WarmEngines:
    """The way to a server's keeper, from any of its processes.

    Args:
        server: Name of the server.
        limits: How many engines there may be, and how long they are kept.
    """

    def __init__(self, server: str, limits: KeeperLimits) -> None:
        self._name = f"engines-{server}"
        self._limits = limits
        self._actor: ActorHandle | None = None

    async def ask(self, spec: EngineSpec, question: EngineQuestion) -> Any:
        """Ask the engine of a model; a keeper that is gone is made again.

        Raises:
            ZtomError: The model cannot be loaded, or what the question raised.
        """
        try:
            return await self._ask(spec, question)
        except EngineGoneError as error:
            logger.warning("the keeper of engines is made again: %s", error)
            self._actor = None
            return await self._ask(spec, question)

    def make_room(self) -> None:
        """Have the engines go, if there are any; this is not waited for."""
        import ray

        with contextlib.suppress(ValueError):  # there is no keeper
            ray.get_actor(self._name, namespace=_NAMESPACE).make_room.remote()

    async def _ask(self, spec: EngineSpec, question: EngineQuestion) -> Any:
        import ray

        running = self._keeper().ask.remote(spec, question)
        try:
            return await _result(running)
        except asyncio.CancelledError:  # whoever asked is gone
            ray.cancel(running)
            raise

    def _keeper(self) -> ActorHandle:
        """The keeper; whoever made it holds on to it, for Ray ends what nobody refers to."""
        if self._actor is None:
            self._actor = self._find_or_make()
        return self._actor

    def _find_or_make(self) -> ActorHandle:
        import ray

        actor = ray.remote(KeeperActor).options(
            name=self._name,
            namespace=_NAMESPACE,
            get_if_exists=True,
            num_cpus=0,
            max_concurrency=_CALLS,
        )
        return actor.remote(self._limits)


async def _result(running: Any) -> Any:
    """What a call of an actor gave, or the error behind whatever Ray raises."""
    from ray.exceptions import RayActorError, RayError, RayTaskError

    try:
        return await running
    except RayTaskError as error:
        if isinstance(error.cause, ZtomError):
            raise error.cause from None
        raise EngineError("the engine failed", got=type(error.cause).__name__) from error
    except RayActorError as error:
        raise EngineGoneError("the engine's process died") from error
    except RayError as error:
        raise EngineError("the engine failed", got=type(error).__name__) from error
