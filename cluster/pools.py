"""What a Ray cluster could have, asked of Ray, of its autoscaler and of the operator.

Ray says what its nodes have now. What an autoscaler may start is known, in this order, from the
operator (``ZTOM_POOLS``, which our chart sets), from the configuration that a managed Ray reports
to its head, or from the file that the autoscaler of this machine was started with (``ray up``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
import yaml
from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import SettingsConfigDict

from cluster.capacity import ClusterCapacity, NodeShape, Pool
from ztom.io.environment import EnvironmentSettings

logger = logging.getLogger(__name__)

_PROC = Path("/proc")
_MONITORS = ("autoscaler/_private/monitor.py", "autoscaler/v2/monitor.py")
_FILE, _GCS = "--autoscaling-config=", "--gcs-address="


class PoolSetting(BaseModel):
    """A pool as the operator states it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    resources: dict[str, float]
    labels: dict[str, str] = Field(default_factory=dict)
    max_nodes: int = Field(ge=0)


class PoolSettings(EnvironmentSettings):
    """``ZTOM_POOLS``: what an autoscaler may start, where nothing else says it."""

    model_config = SettingsConfigDict(env_prefix="ZTOM_", frozen=True, extra="ignore")

    pools: tuple[PoolSetting, ...] = Field(
        default=(), description="JSON list of pools: name, resources, labels, max_nodes"
    )


def cluster_capacity() -> ClusterCapacity:
    """What the cluster that this process is connected to has, and could have."""
    nodes = tuple(
        NodeShape(entry["Resources"], entry.get("Labels") or {})
        for entry in ray.nodes()
        if entry["Alive"]
    )
    address = ray.get_runtime_context().gcs_address
    return ClusterCapacity(nodes, _stated() or _reported() or _configured(address))


def _stated() -> tuple[Pool, ...]:
    return tuple(
        Pool(pool.name, NodeShape(pool.resources, pool.labels), pool.max_nodes)
        for pool in PoolSettings().pools
    )


def _reported() -> tuple[Pool, ...]:
    """What Ray's head was told by whoever runs the cluster; -1 there stands for no limit."""
    config = ray._private.state.state.get_cluster_config()
    groups = () if config is None else config.node_group_configs
    return tuple(
        Pool(
            group.name or f"group {number}",
            NodeShape({name: float(amount) for name, amount in group.resources.items()}),
            2**31 if group.max_count < 0 else group.max_count,
        )
        for number, group in enumerate(groups, start=1)
    )


def _configured(address: str) -> tuple[Pool, ...]:
    """The pools of the autoscaler that runs on this machine for the cluster at an address."""
    for file in _autoscaler_files(address):
        try:
            content = yaml.safe_load(file.read_text())
        except (OSError, yaml.YAMLError) as error:
            logger.warning("the autoscaler's configuration cannot be read: %s", error)
            continue
        return tuple(pools_of(content))
    return ()


def pools_of(content: Mapping[str, Any]) -> Iterator[Pool]:
    """The pools of a configuration as ``ray up`` and ``ray start --autoscaling-config`` take it.

    The head's own kind of node is none.
    """
    head = content.get("head_node_type")
    limit = content.get("max_workers")
    for name, entry in (content.get("available_node_types") or {}).items():
        count = entry.get("max_workers", limit or 0)
        if name == head or not count:
            continue
        count = count if limit is None else min(count, limit)
        yield Pool(name, NodeShape(entry.get("resources") or {}, entry.get("labels") or {}), count)


def _autoscaler_files(address: str) -> Iterator[Path]:
    for folder in _PROC.glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended
            continue
        if not any(word.endswith(_MONITORS) for word in words):
            continue
        file = next((w.removeprefix(_FILE) for w in words if w.startswith(_FILE)), "")
        if file and f"{_GCS}{address}" in words:
            yield Path(file).expanduser()
