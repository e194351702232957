"""How many engines one account may have, and how many it has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from ztom.errors import QuotaError
from ztom.rollout.options import DeployOptions

#: What an engine on CPU takes where nothing is said, GiB; see `ztom.rollout.options`.
_CACHE_GIB = 0.5


class Deployed(Protocol):
    """What counts of a deployment: of one on record, and of one that is wanted."""

    @property
    def digest(self) -> str:
        """Digest of the variant."""

    @property
    def options(self) -> DeployOptions:
        """Options of its engine and replicas."""

    @property
    def base(self) -> Mapping[str, str] | None:
        """Base that an adapter is loaded on: ``reference`` and ``digest``."""


@dataclass(frozen=True, slots=True)
class EngineQuota:
    """What the deployments of one account may take together when all have scaled up.

    Attributes:
        deployments: Number of deployments that start or serve.
        replicas: Number of replicas.
        devices: Number of devices, a share of one counted as such.
        cache_gib: Key-value caches, GiB.
    """

    deployments: int
    replicas: int
    devices: float
    cache_gib: float

    def limits(self) -> dict[str, float]:
        """The limits by the names of `engines_of`."""
        return {
            "deployments": self.deployments,
            "replicas": self.replicas,
            "devices": self.devices,
            "GiB of key-value cache": self.cache_gib,
        }

    def require(self, deployments: Iterable[Deployed]) -> None:
        """Let an account have these deployments.

        Raises:
            QuotaError: They are more than it may have.
        """
        engines = engines_of(deployments)
        for name, limit in self.limits().items():
            if engines[name] > limit:
                raise QuotaError(
                    f"the account would have more {name} than it may",
                    got=f"{engines[name]:g} with this deployment",
                    expected=f"at most {limit:g}",
                    fix="Remove an endpoint, or ask for less (the operator's settings end in "
                    "_per_caller).",
                )


def engines_of(deployments: Iterable[Deployed]) -> dict[str, float]:
    """What deployments may take together when all of them have scaled up, by name."""
    count, engines = 0, dict[str, DeployOptions]()
    for deployment in deployments:
        count += 1
        if deployment.options.swap_into is not None:
            continue  # it is in another one's engine
        # adapters are in the engine of their base
        base = None if deployment.base is None else deployment.base.get("digest")
        key = base or deployment.digest
        known = engines.get(key)
        if known is None or known.max_replicas < deployment.options.max_replicas:
            engines[key] = deployment.options
    return {
        "deployments": count,
        "replicas": sum(options.max_replicas for options in engines.values()),
        "devices": sum(
            options.max_replicas * options.tensor_parallel_size * options.gpu_fraction
            for options in engines.values()
        ),
        "GiB of key-value cache": sum(
            options.max_replicas * (options.kv_cache_gib or _CACHE_GIB)
            for options in engines.values()
        ),
    }
