"""What one account, one address and all of them together may hold of a server.

The defaults are meant for a team on one machine. What stands in memory (requests, streams, logins)
is counted by each process that takes requests in, what stands in the ledger for all of them.
"""

from __future__ import annotations

from ipaddress import ip_address

from pydantic import Field, field_validator

from ztom.io.environment import EnvironmentSettings
from ztom.ledger.engine_quota import EngineQuota


class LimitSettings(EnvironmentSettings):
    """Limits of a server, part of `ServerConfig`."""

    max_requests: int = Field(
        default=256,
        gt=0,
        description="requests in work at once, those to models aside; beyond it, status 503",
    )
    requests_per_caller: int = Field(
        default=64, gt=0, description="of these by one account; beyond it, status 429"
    )
    max_model_requests: int = Field(
        default=1024, gt=0, description="requests to models in work at once; beyond it, status 429"
    )
    model_requests_per_caller: int = Field(
        default=256, gt=0, description="of these by one account; beyond it, status 429"
    )
    max_streams: int = Field(
        default=1024, gt=0, description="event streams open at once; beyond it, status 503"
    )
    streams_per_caller: int = Field(
        default=16, gt=0, description="of these by one account; beyond it, status 429"
    )
    max_waits: int = Field(
        default=1024,
        gt=0,
        description="calls at once that wait for a search to end; beyond it, status 503",
    )
    waits_per_caller: int = Field(
        default=16, gt=0, description="of these by one account; beyond it, status 429"
    )
    anonymous_requests: int = Field(
        default=128,
        gt=0,
        description="requests at once by callers who are not logged in; beyond it, status 503",
    )
    anonymous_requests_per_address: int = Field(
        default=32, gt=0, description="of these from one address; beyond it, status 429"
    )
    anonymous_body_bytes: int = Field(
        default=16 * 2**10, gt=0, description="longest body of a caller who is not logged in"
    )
    anonymous_body_s: float = Field(
        default=5, gt=0, description="seconds such a body may take from beginning to end"
    )
    trusted_proxies: tuple[str, ...] = Field(
        default=(),
        description="addresses of proxies in front of this server: who calls through one is the "
        "X-Forwarded-For that it adds, and not the proxy",
    )
    login_failures: int = Field(
        default=5,
        ge=1,
        description="wrong passwords a minute for one account from one address before status 429",
    )
    login_failures_per_address: int = Field(
        default=30, ge=1, description="the same for all accounts together"
    )
    login_failures_per_account: int = Field(
        default=100,
        ge=1,
        description="wrong passwords an hour for one account from everywhere before status 429 to "
        "addresses from which nobody has logged in to it",
    )

    searches_per_caller: int = Field(
        default=32, ge=1, description="searches of one account that are queued and running"
    )
    bytes_per_caller: int = Field(
        default=2**40,
        gt=0,
        description="on disk: uploads (unpacked as well) and data of the projects that an account "
        "owns, and what its searches and edits wrote",
    )
    deployments_per_caller: int = Field(
        default=256, ge=0, description="deployments of one account that start or serve"
    )
    replicas_per_caller: int = Field(
        default=64, ge=0, description="their max_replicas together; adapters of a base share its"
    )
    devices_per_caller: float = Field(
        default=64,
        ge=0,
        description="max_replicas times tensor_parallel_size times gpu_fraction, of all of them",
    )
    cache_gib_per_caller: float = Field(
        default=1024, ge=0, description="max_replicas times kv_cache_gib, of all of them"
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ip_address(address)) for address in value)

    @property
    def engine_quota(self) -> EngineQuota:
        """Engines that one account may have."""
        return EngineQuota(
            deployments=self.deployments_per_caller,
            replicas=self.replicas_per_caller,
            devices=self.devices_per_caller,
            cache_gib=self.cache_gib_per_caller,
        )

    @property
    def most_at_once(self) -> int:
        """Largest number of requests in work at once, of every kind."""
        return (
            self.max_requests
            + self.max_model_requests
            + self.max_streams
            + self.max_waits
            + self.anonymous_requests
        )
