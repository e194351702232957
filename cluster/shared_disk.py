"""Whether the nodes of a cluster read the same files: asked of each of them, before there is work.

A path means something else on every machine. A folder is shared where a file that this process has
just written there is read by all nodes that can run engines.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ztom.errors import StorageError

#: Seconds that a node may take to say what it sees.
_ANSWER_S = 60.0


@dataclass(frozen=True, slots=True)
class OtherNode:
    """A machine of the cluster besides this one.

    Attributes:
        id: Ray's id of it.
        name: Name for people: host name and address.
    """

    id: str
    name: str


def other_nodes() -> tuple[OtherNode, ...]:
    """The other nodes that can run engines, by their names."""
    here = ray.get_runtime_context().get_node_id()
    nodes = [
        OtherNode(node["NodeID"], f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})")
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] != here and {"CPU", "GPU"} & set(node["Resources"])
    ]
    return tuple(sorted(nodes, key=lambda node: node.name))


def blind_nodes(
    nodes: Sequence[OtherNode], *, shared: Sequence[Path], there: Sequence[Path]
) -> dict[Path, list[str]]:
    """What nodes do not see, and the names of these nodes; empty where all see everything.

    Args:
        nodes: The nodes that are asked.
        shared: Folders that have to be the same everywhere; a file is written into each, for a
            moment. They are made.
        there: Files and folders that only have to be there.

    Raises:
        StorageError: A folder cannot be written, or a node does not answer.
    """
    marks = {folder: _mark(folder) for folder in dict.fromkeys(shared)}
    try:
        look = ray.remote(num_cpus=0, max_retries=0)(_unseen)
        wanted = {str(file): file.read_text(encoding="ascii") for file in marks.values()}
        calls = [
            look.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
            ).remote(wanted, [str(path) for path in there])
            for node in nodes
        ]
        blind: dict[Path, list[str]] = {}
        for node, missing in zip(nodes, ray.get(calls, timeout=_ANSWER_S), strict=True):
            for path in missing:
                place = Path(path).parent if path in wanted else Path(path)
                blind.setdefault(place, []).append(node.name)
        return blind
    except RayError as error:
        raise StorageError(
            "a node of the cluster does not say what it sees", reason=type(error).__name__
        ) from error
    finally:
        for file in marks.values():
            file.unlink(missing_ok=True)


def _mark(folder: Path) -> Path:
    token = secrets.token_hex(16)
    file = folder / f".ztom-seen-{token[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(token, encoding="ascii")
    except OSError as error:
        raise StorageError(f"{folder} cannot be written", reason=error.strerror) from error
    return file


def _unseen(wanted: dict[str, str], there: list[str]) -> list[str]:
    """Runs on a node: files that are not what they should be, and paths that are missing."""
    missing = [path for path in there if not Path(path).exists()]
    for path, content in wanted.items():
        try:
            same = Path(path).read_text(encoding="ascii") == content
        except (OSError, UnicodeDecodeError):
            same = False
        if not same:
            missing.append(path)
    return missing
