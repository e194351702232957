"""What the routes work with, put together once per replica."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from anyio import CapacityLimiter

from serve_apps.control_plane.account_limits import AccountLimits
from serve_apps.control_plane.callers import RecentCallers
from serve_apps.control_plane.config import ServerConfig
from serve_apps.control_plane.hashing import Hashing
from serve_apps.control_plane.identity import ServerIdentity
from serve_apps.control_plane.keys import ServerKeys
from serve_apps.control_plane.limits import LoginLimit
from serve_apps.control_plane.places import Places
from serve_apps.control_plane.runner import Runner
from serve_apps.control_plane.store import Store
from serve_apps.control_plane.tokens import Tokens
from serve_apps.endpoints.aliases import AliasRules
from serve_apps.endpoints.evidence import AdmissionRules
from serve_apps.gateway.backends import Backends
from serve_apps.gateway.callers import CallerHashes
from serve_apps.gateway.gateway import Gateway
from serve_apps.gateway.response_ids import ResponseIds
from serve_apps.tracing import Tracing
from serve_apps.variants.request_size import RequestLimits
from ztom.io.signatures import public_key_of
from ztom.ledger.ledger import Ledger
from ztom.ledger.usage_book import UsageBook
from ztom.settings import Settings
from ztom.variants.copies import VARIANTS

#: Threads that look up who calls: they are for nothing else, so that no work makes callers wait.
_AT_THE_DOOR = 4


@dataclass(frozen=True)
class Services:
    """Everything a request may need.

    Attributes:
        pointers: Settings of what users may point to: the operator's roots, never the server's own
            files.
        managed: Settings of reading the server's own files.
        places: Places of requests in work.
        door: Limit of the threads that look up who calls.
        keys: Secrets of the server.
    """

    config: ServerConfig
    pointers: Settings
    managed: Settings
    ledger: Ledger
    tokens: Tokens
    limit: LoginLimit
    store: Store
    runner: Runner
    gateway: Gateway
    callers: RecentCallers
    places: Places
    door: CapacityLimiter
    hashing: Hashing
    keys: ServerKeys
    account_limits: AccountLimits

    @classmethod
    def open(
        cls,
        config: ServerConfig,
        runner: Runner,
        backends: Backends,
        *,
        identity: ServerIdentity | None = None,
    ) -> Self:
        """Open ledger, keys and store.

        Args:
            config: Configuration of the server.
            runner: Runner of the server's own work.
            backends: Back ends in which variants run.
            identity: Server that this process has to be one of; None where it is the only one.

        Raises:
            ZtomError: One of them cannot be used, or it is another server's.
        """
        if identity is not None:
            identity.require_data(config)  # before a ledger is made where there is none
        store = Store.open(config.data)
        ledger = Ledger.open(config.ledger_address)
        keys = ServerKeys.open(config, ledger.server_keys)
        if identity is not None:
            identity.require_keys(keys)
        places = Places.of(config)
        pointers = Settings(
            allowed_roots=config.pointer_roots,
            denied_roots=(str(config.data),),
            cache_dir=store.cache,
            names_roots=False,
        )
        return cls(
            config=config,
            pointers=pointers,
            managed=Settings(
                allowed_roots=_own_roots(config),
                cache_dir=store.cache,
                max_archive_bytes=config.max_upload_bytes,
                names_roots=False,
            ),
            ledger=ledger,
            tokens=Tokens(keys.tokens),
            limit=LoginLimit(config),
            store=store,
            runner=runner,
            gateway=Gateway(
                ledger.endpoints,
                backends,
                ResponseIds(keys.tokens[-1]),
                CallerHashes(keys.callers),
                share=1 / config.http_replicas,
                limits=RequestLimits(config.max_answers, config.max_request_tokens),
                tracing=Tracing.from_environment(),
                book=UsageBook(ledger.usage, "gateway"),
            ),
            callers=RecentCallers(),
            places=places,
            door=CapacityLimiter(_AT_THE_DOOR),
            hashing=Hashing(),
            keys=keys,
            account_limits=AccountLimits(config, ledger, store, places),
        )

    @property
    def rules(self) -> AdmissionRules:
        """What the operator has set for deployments."""
        config = self.config
        aliases = AliasRules(config.reserved_aliases, config.aliases == "project-prefixed")
        return AdmissionRules(
            config.gate_required,
            self.pointers,
            self.managed,
            aliases,
            own_key=public_key_of(self.keys.variants),
            signed_only=config.signed_variants,
            quota=config.engine_quota,
        )

    def close(self) -> None:
        """Give back what was opened."""
        self.hashing.close()
        self.ledger.close()
        self.store.close()


def _own_roots(config: ServerConfig) -> tuple[str, ...]:
    """Where the server's own files are: its data folder, and variants in the operator's storage."""
    storage = Settings().storage_place
    return (str(config.data), *(() if storage is None else (str(storage / VARIANTS),)))
