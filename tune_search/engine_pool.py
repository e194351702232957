"""Starting and stopping the engine actors that all trials share, one per replica."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import ray

from cluster.capacity import ClusterCapacity, NodeNeeds
from cluster.pools import cluster_capacity
from tune_search.engine_actor import EngineActor
from tune_search.engine_client import EngineClient
from tune_search.payload import EnginePlace, Questions, StudyInputs
from tune_search.slots import free_slot, in_slot, make_slot

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
    needs = engine_needs(inputs.place, cluster_capacity(), replicas=replicas)
    make, questions = ray.put(inputs.engine), ray.put(Questions.of(inputs))
    clients = []
    for number in range(1, replicas + 1):
        slot = make_slot(needs)
        actor = ray.remote(EngineActor).options(
            num_cpus=needs.cpus,
            num_gpus=needs.gpus,
            resources=dict(needs.resources),
            max_restarts=-1,
            max_task_retries=0,
            scheduling_strategy=in_slot(slot),
        )
        client = EngineClient(
            actor.remote(f"{inputs.name}: engine {number} of {replicas}"),
            make,
            questions,
            deadline_s,
            start_deadline_s,
            callers=callers,
            is_alone=replicas == 1,
            slot=slot,
        )
        clients.append(client)
    return tuple(clients)


def engine_needs(place: EnginePlace, capacity: ClusterCapacity, *, replicas: int) -> NodeNeeds:
    """What each engine asks of its node, on a cluster with this capacity.

    Args:
        place: What the configuration asks for.
        capacity: What the cluster has, and could have.
        replicas: Number of engines.

    Raises:
        ConfigError: No node has what one engine asks for, and none could come.
    """
    # On a small machine an engine must not wait for cores that trials are holding.
    cpus = _ENGINE_CPUS if capacity.most("CPU") >= 2 * replicas else 0.0
    needs = replace(capacity.choose(place.needs, place.device), cpus=cpus)
    if capacity.require(needs, what="an engine") == "later":
        logger.warning("no node has what an engine asks for yet (%s): it waits for one", needs)
    elif needs.gpus * replicas > capacity.most("GPU"):
        logger.warning(
            "%d engines of %d GPUs are more than the %g that the cluster may have: they wait",
            replicas,
            needs.gpus,
            capacity.most("GPU"),
        )
    return needs


def stop_engines(clients: Sequence[EngineClient]) -> None:
    """End the actors and their processes, and give their places back."""
    for client in clients:
        ray.kill(client.actor, no_restart=True)
        if client.slot is not None:
            free_slot(client.slot)
