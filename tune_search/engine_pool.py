"""Starting and stopping the engine actors that all trials share, one per replica."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import ray

from tune_search.engine_actor import EngineActor
from tune_search.engine_client import EngineClient
from tune_search.payload import Questions, StudyInputs

logger = logging.getLogger(__name__)

#: Less than a core: where endpoints have the others, trials still find a place beside the engine.
_ENGINE_CPUS = 0.9


def make_clients(
    inputs: StudyInputs,
    *,
    replicas: int,
    deadline_s: float,
    start_deadline_s: float,
    callers: int = 1,
) -> tuple[EngineClient, ...]:
    """Make the actors, which have no engines yet.

    Args:
        inputs: Inputs of the study: the engine's factory and the stimuli.
        replicas: Number of actors.
        deadline_s: Seconds for one evaluation.
        start_deadline_s: Seconds for making an engine.
        callers: Number of trials that may wait for one engine at once.
    """
    resources = ray.cluster_resources()
    gpus = inputs.gpus if resources.get("GPU", 0) else 0
    if gpus * replicas > resources.get("GPU", 0):
        logger.warning(
            "%d engines of %d GPUs are more than the %g that Ray has now: they wait for more",
            replicas,
            gpus,
            resources.get("GPU", 0),
        )
    actor = ray.remote(EngineActor).options(
        # On a small machine an engine must not wait for cores that trials are holding.
        num_cpus=_ENGINE_CPUS if resources.get("CPU", 0) >= 2 * replicas else 0,
        num_gpus=gpus,
        max_restarts=-1,
        max_task_retries=0,
    )
    make, questions = ray.put(inputs.engine), ray.put(Questions.of(inputs))
    return tuple(
        EngineClient(actor.remote(), make, questions, deadline_s, start_deadline_s, callers)
        for _ in range(replicas)
    )


def stop_engines(clients: Sequence[EngineClient]) -> None:
    """End the actors and their processes."""
    for client in clients:
        ray.kill(client.actor, no_restart=True)
