"""Calling a function once on each node of the cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ztom.errors import EngineError


def on_every_node(
    function: Callable[..., Any], *arguments: object, within_s: float = 60.0
) -> dict[str, Any]:
    """What a function returns on each node that is alive, by its address and the start of its id.

    Args:
        function: A function of a module that every node has; it takes no processor.
        arguments: Arguments of the function.
        within_s: Seconds that all of them may take.

    Raises:
        EngineError: A node does not answer.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    running = {}
    for node in nodes:
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=strategy)(function)
        name = f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})"
        running[name] = task.remote(*arguments)
    try:
        answers = ray.get(list(running.values()), timeout=within_s)
    except RayError as error:
        raise EngineError(
            "a node of the cluster does not answer",
            got=type(error).__name__,
            expected=f"an answer of each of {len(nodes)} nodes within {within_s:g} s",
            fix="`ray status` shows them; the logs of that node say more.",
        ) from error
    return dict(zip(running, answers, strict=True))
