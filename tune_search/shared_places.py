"""What the other nodes of a cluster have to read, looked at before a search has anything to lose.

Engines run on any node: they open the chain there, and the proof loads the variant there. And a job
may be started again where nothing of this machine is left: its ledger and its output have to be
found there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cluster.shared_disk import OtherNode, blind_nodes, other_nodes
from ztom.blending.chain_file import ChainConfig
from ztom.checkpoints.reference import is_address
from ztom.errors import ConfigError
from ztom.io.places import LEDGER_FIX
from ztom.search.config import SearchConfig
from ztom.settings import Settings

#: What Ray sets in the processes of a job.
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"

Look = Callable[..., Mapping[Path, Sequence[str]]]


def require_shared_places(config: SearchConfig, chain: ChainConfig, settings: Settings) -> None:
    """Refuse a search that another node of its cluster could not serve.

    On one machine nothing is looked at.

    Args:
        config: Configuration of the search.
        chain: The chain, with absolute references.
        settings: Settings of the installation, with the operator's storage.

    Raises:
        ConfigError: Names what which node does not see, and what to give.
        StorageError: A folder cannot be written, or a node does not answer.
    """
    nodes = other_nodes()
    if nodes:
        check_shared_places(
            config, chain, settings, nodes=nodes, is_job=_JOB in os.environ, look=blind_nodes
        )


def check_shared_places(
    config: SearchConfig,
    chain: ChainConfig,
    settings: Settings,
    *,
    nodes: Sequence[OtherNode],
    is_job: bool,
    look: Look,
) -> None:
    """The same, on what is known of the cluster.

    Args:
        config: Configuration of the search.
        chain: The chain, with absolute references.
        settings: Settings of the installation.
        nodes: The other nodes.
        is_job: Whether the search is a job, which may be started again elsewhere.
        look: Function that asks the nodes; see `cluster.shared_disk.blind_nodes`.

    Raises:
        ConfigError: See `require_shared_places`.
    """
    storage = settings.storage_place
    variants = config.output if storage is None else storage
    needs = {
        "the folder of the variant": variants,
        **({"the search's output": config.output, **_ledger_folder(config)} if is_job else {}),
    }
    folders = {what: place.absolute() for what, place in needs.items() if isinstance(place, Path)}
    members = [m.reference for m in chain.checkpoints if not is_address(m.reference)]
    paths = [Path(reference).expanduser() for reference in members]
    blind = look(nodes, shared=[*folders.values()], there=paths)
    for what, folder in folders.items():
        if folder in blind:
            raise _unseen(what, folder, blind[folder], _fix(what))
    for path in paths:
        if path in blind:
            raise _unseen(
                "a checkpoint", path, blind[path], "Put it into a store, or on a disk they share."
            )


def _ledger_folder(config: SearchConfig) -> dict[str, Path]:
    address = config.ledger_address
    if "://" not in address:
        return {"the ledger": Path(address).absolute().parent}
    path = address.partition(":///")[2]
    return {"the ledger": Path(path).parent} if address.startswith("sqlite") and path else {}


def _fix(what: str) -> str:
    if what == "the ledger":
        return LEDGER_FIX
    if what == "the search's output":
        return "Give output: gs://bucket/folder, or a folder on a disk that all nodes share."
    return (
        "Set ZTOM_STORAGE to a gs:// or s3:// address, or to a folder on a disk that all nodes "
        "share."
    )


def _unseen(what: str, path: Path, nodes: Sequence[str], fix: str) -> ConfigError:
    return ConfigError(
        f"not every node of the cluster sees {what}",
        got=f"{path}, which {', '.join(nodes)} does not see",
        expected="a place that all of them read",
        fix=fix,
    )
