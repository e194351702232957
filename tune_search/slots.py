"""Where the parts of a search run: an engine with what scores its answers, and the trials.

An engine and its scorer are in one placement group of one bundle, which is on one node: a node that
dies takes both, or nothing of the slot. Trials wait for engines and do nothing else, so they are on
the driver's own node, without which there is no search anyway.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.capacity import NodeNeeds

#: CPUs of what waits most of the time, and must never wait for a core to be free.
WAITING_CPUS = 0.001
_NODE, _HEAD = "node:", "node:__internal_head__"
_NODE_ID = "ray.io/node-id"


def make_slot(needs: NodeNeeds) -> PlacementGroup:
    """A place for one engine and its scorer; nothing is waited for.

    Args:
        needs: What the engine asks of its node.
    """
    bundle = {**needs.bundle, "CPU": needs.cpus + WAITING_CPUS}
    selector = [dict(needs.label_selector)] if needs.label_selector else None
    return placement_group([bundle], strategy="STRICT_PACK", bundle_label_selector=selector)


def in_slot(slot: PlacementGroup) -> PlacementGroupSchedulingStrategy:
    """For the option ``scheduling_strategy`` of an actor; what it starts goes elsewhere."""
    return PlacementGroupSchedulingStrategy(
        slot, placement_group_bundle_index=0, placement_group_capture_child_tasks=False
    )


def free_slot(slot: PlacementGroup) -> None:
    """Give the place back; what is still in it is killed."""
    remove_placement_group(slot)


def driver_resources() -> dict[str, float]:
    """A resource that only nodes with the driver's address have."""
    (node,) = (node for node in ray.nodes() if node["NodeID"] == _driver_node())
    name = next(key for key in node["Resources"] if key.startswith(_NODE) and key != _HEAD)
    return {name: WAITING_CPUS}


def driver_labels() -> dict[str, str]:
    """Labels that only the driver's node has."""
    return {_NODE_ID: _driver_node()}


def _driver_node() -> Any:
    return ray.get_runtime_context().get_node_id()
