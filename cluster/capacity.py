"""What a cluster has and what it could have: a pool that is scaled to zero still has GPUs.

Engines are asked for by the bundle of resources that one node has to have, with its labels. Whether
there is such a node, or a pool that could bring one, is arithmetic over plain values here; Ray is
asked in `cluster.pools`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ztom.errors import ConfigError

#: Where a bundle finds a place: on a node that is there, on one that a pool may bring, nowhere.
Place = Literal["now", "later", "never"]
Device = Literal["auto", "cpu", "gpu"]

_ACCELERATOR = "accelerator_type:"
#: Of a resource that marks a node, as Ray takes it for an accelerator's type.
_TOUCH = 0.001


@dataclass(frozen=True)
class NodeShape:
    """What one node has, or a node of a pool would have.

    Attributes:
        resources: Amounts by Ray's names, such as ``CPU``, ``GPU`` and ``accelerator_type:L4``.
        labels: Labels of the node.
    """

    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pool:
    """Nodes of one kind that an autoscaler starts when they are asked for.

    Attributes:
        name: Name of the pool.
        node: What each of its nodes has.
        max_nodes: Most nodes of it at once.
    """

    name: str
    node: NodeShape
    max_nodes: int


@dataclass(frozen=True)
class NodeNeeds:
    """What one engine asks of the one node that it runs on.

    Attributes:
        gpus: Number of GPUs, or a share of one.
        cpus: Number of CPUs that are reserved.
        accelerator_type: Kind of GPU as Ray names it, such as ``L4``; None for any.
        label_selector: Labels that the node must have, as Ray selects by them.
        resources: Amounts of custom resources.
    """

    gpus: float = 0.0
    cpus: float = 0.0
    accelerator_type: str | None = None
    label_selector: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, float] = field(default_factory=dict)

    @property
    def bundle(self) -> dict[str, float]:
        """The resources by Ray's names; what is zero is left out."""
        bundle = {"CPU": self.cpus, "GPU": self.gpus, **self.resources}
        if self.accelerator_type is not None:
            bundle[f"{_ACCELERATOR}{self.accelerator_type}"] = _TOUCH
        return {name: amount for name, amount in bundle.items() if amount}

    def __str__(self) -> str:
        parts = [f"{amount:g} {name}" for name, amount in self.bundle.items() if amount != _TOUCH]
        if self.accelerator_type is not None:
            parts.append(self.accelerator_type)
        parts += [f"{key}={value}" for key, value in self.label_selector.items()]
        return ", ".join(parts) or "nothing"


@dataclass(frozen=True)
class ClusterCapacity:
    """Nodes that are there, and pools that bring more.

    Attributes:
        nodes: The nodes that are alive.
        pools: What an autoscaler may start; empty where there is none, or none is known.
    """

    nodes: tuple[NodeShape, ...]
    pools: tuple[Pool, ...] = ()

    def place(self, needs: NodeNeeds) -> Place:
        """Where an engine finds a place; what else runs there is not looked at."""
        if any(_fits(needs, node, is_known=True) for node in self.nodes):
            return "now"
        pools = (pool.node for pool in self.pools if pool.max_nodes > 0)
        return "later" if any(_fits(needs, node, is_known=False) for node in pools) else "never"

    def has_gpus(self) -> bool:
        """Whether any node has a GPU, or would have one."""
        return self.place(NodeNeeds(gpus=_TOUCH)) != "never"

    def choose(self, needs: NodeNeeds, device: Device) -> NodeNeeds:
        """The same needs, without GPUs where the engine is to run on the CPU.

        Args:
            needs: What is asked for, with the GPUs that it takes where it takes any.
            device: ``auto`` takes GPUs where there are any, or could be; a kind of GPU is one.
        """
        wanted = device == "gpu" or needs.accelerator_type is not None
        takes = wanted or (device == "auto" and self.has_gpus())
        return needs if takes else replace(needs, gpus=0.0)

    def kinds(self, needs: NodeNeeds) -> tuple[str, ...]:
        """Kinds of GPUs that an engine may come to, as far as they are known, sorted."""
        if needs.accelerator_type is not None:
            return (needs.accelerator_type,)
        nodes = [node for node in self.nodes if _fits(needs, node, is_known=True)]
        nodes += [pool.node for pool in self.pools if _fits(needs, pool.node, is_known=False)]
        names = (name for node in nodes for name in node.resources)
        return tuple(
            sorted({n.removeprefix(_ACCELERATOR) for n in names if n.startswith(_ACCELERATOR)})
        )

    def most(self, resource: str) -> float:
        """How much of a resource there is in the cluster, or could be, whichever is more."""
        now = sum(node.resources.get(resource, 0.0) for node in self.nodes)
        pools = sum(p.max_nodes * p.node.resources.get(resource, 0.0) for p in self.pools)
        return max(now, pools)

    def require(self, needs: NodeNeeds, *, what: str) -> Place:
        """See that there is a place for it, or could be one.

        Args:
            needs: What it asks of its node.
            what: What it is, as the message names it.

        Raises:
            ConfigError: No node has all of it, and no pool would bring one that has.
        """
        place = self.place(needs)
        if place != "never":
            return place
        raise ConfigError(
            f"no node of the cluster has what {what} asks for, and no pool brings one",
            got=self._listed(),
            expected=f"a node with {needs}",
            fix="Ask for less, or add such nodes. Pools that are scaled to zero are known from the "
            "autoscaler's configuration on the head, or from ZTOM_POOLS.",
        )

    def _listed(self) -> str:
        nodes = sorted({_shape(node) for node in self.nodes})
        pools = [f"pool {p.name}: {p.max_nodes} x ({_shape(p.node)})" for p in self.pools]
        return "; ".join([*(f"nodes: ({shape})" for shape in nodes), *pools]) or "no nodes"


def _shape(node: NodeShape) -> str:
    shown = {
        name: amount
        for name, amount in node.resources.items()
        if not name.startswith("node:") and "memory" not in name
    }
    return ", ".join(f"{amount:g} {name}" for name, amount in sorted(shown.items()))


def _fits(needs: NodeNeeds, node: NodeShape, *, is_known: bool) -> bool:
    """Whether a node has everything; of a pool's node Ray finds out the GPU's kind by itself."""
    for name, amount in needs.bundle.items():
        if name.startswith(_ACCELERATOR) and not is_known and not _names_accelerator(node):
            continue
        if node.resources.get(name, 0.0) < amount:
            return False
    return matches(needs.label_selector, node.labels)


def _names_accelerator(node: NodeShape) -> bool:
    return any(name.startswith(_ACCELERATOR) for name in node.resources)


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether labels are what Ray's selector asks for: ``v``, ``!v``, ``in(a,b)``, ``!in(a,b)``."""
    return all(_matches(labels.get(key), wanted) for key, wanted in selector.items())


def _matches(value: str | None, wanted: str) -> bool:
    negated = wanted.startswith("!")
    plain = wanted.removeprefix("!")
    choice = re.fullmatch(r"in\((.*)\)", plain)
    values = [part.strip() for part in choice[1].split(",")] if choice else [plain]
    return (value in values) != negated
