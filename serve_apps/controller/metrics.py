"""What Prometheus sees of the replicas: queue, memory, and what a thousand tokens cost.

The cost is what a replica's price an hour comes to for the tokens that it generated since the last
look; an idle replica costs what it costs and generates nothing, which is no number.

Gauges are said again at every look. What has left the routing table is said no more, and leaves
with that: see `serve_apps.gateway.metrics`.
"""

from __future__ import annotations

import time

from ray.util.metrics import Gauge

from serve_apps.controller.apps import Apps
from serve_apps.controller.engine_seconds import (
    ReplicaSeconds,
    apps_with_traffic,
    engine_seconds,
    owners,
)
from serve_apps.variants.calls import ReplicaState
from ztom.ledger.deployments import DeploymentState
from ztom.ledger.endpoints import Endpoints
from ztom.ledger.usage import UsageCounts
from ztom.ledger.usage_book import UsageBook
from ztom.rollout.routing import Placement, RoutingTable, variant_id

_HOUR_S = 3600.0


class ReplicaMetrics:
    """Gauges by application and variant.

    Args:
        endpoints: Endpoints in the ledger.
        apps: Applications that run.
        book: Book in which the seconds of engines are counted; None counts none.
    """

    def __init__(self, endpoints: Endpoints, apps: Apps, book: UsageBook | None = None) -> None:
        self._endpoints = endpoints
        self._apps = apps
        self._book = book
        self._seconds: dict[str, ReplicaSeconds] = {}
        self._is_first = True
        tags = ("app",)
        self._replicas = Gauge(
            "ztom_replicas", description="Number of replicas that run.", tag_keys=tags
        )
        self._running = Gauge(
            "ztom_running_sequences",
            description="Number of sequences that are being generated.",
            tag_keys=tags,
        )
        self._waiting = Gauge(
            "ztom_waiting_sequences",
            description="Number of sequences that wait to be generated.",
            tag_keys=tags,
        )
        self._memory = Gauge(
            "ztom_memory_bytes",
            description="Bytes of memory that all replicas take: the device's, or else the host's.",
            tag_keys=tags,
        )
        self._cost = Gauge(
            "ztom_cost_per_1000_tokens",
            description="Price of the replicas per 1,000 generated tokens, in the price's unit.",
            tag_keys=tags,
        )
        self._ready = Gauge(
            "ztom_variant_ready",
            description="1 for a variant that runs, 0 for one that has just left.",
            tag_keys=("variant",),
        )
        self._tokens: dict[str, tuple[float, int]] = {}
        self._ready_before: set[str] = set()

    def look(self) -> None:
        """Ask every application how it is."""
        table = self._endpoints.table()
        ready = {variant_id(where.name, d) for d, where in table.placements.items()}
        for variant in self._ready_before | ready:
            self._ready.set(float(variant in ready), {"variant": variant})
        self._ready_before = ready
        places = {where.app: where for where in table.placements.values()}
        prices = self._prices(table)
        with_traffic = apps_with_traffic(table)
        seconds = dict[str, ReplicaSeconds]()
        for app, where in places.items():
            states = self._one(where, prices.get(app))
            self._count(app, states, table, has_traffic=app in with_traffic)
            seconds |= {state.replica: ReplicaSeconds.of(state) for state in states}
        self._seconds, self._is_first = seconds, False
        self._tokens = {app: seen for app, seen in self._tokens.items() if app in places}

    def _prices(self, table: RoutingTable) -> dict[str, float]:
        """What a replica costs an hour, by application: the highest price of what runs in it."""
        prices: dict[str, float] = {}
        for record in self._endpoints.deployments.all():
            where = table.placements.get(record.digest)
            if where is None or record.state is not DeploymentState.READY:
                continue
            price = record.options.price_per_hour
            if price is not None:
                prices[where.app] = max(price, prices.get(where.app, 0.0))
        return prices

    def _count(
        self, app: str, states: list[ReplicaState], table: RoutingTable, *, has_traffic: bool
    ) -> None:
        """Count the seconds of an application's engines for those whose they are."""
        if self._book is None:
            return
        counts = engine_seconds(
            states, self._seconds, is_first=self._is_first, has_traffic=has_traffic
        )
        share = owners(table, app)
        for digest, project in share:
            part = UsageCounts(
                busy_s=counts.busy_s / len(share),
                idle_s=counts.idle_s / len(share),
                held_s=counts.held_s / len(share),
            )
            self._book.add(part, digest=digest, project=project)

    def _one(self, where: Placement, price: float | None) -> list[ReplicaState]:
        states = self._apps.replicas(where.app, where.deployment)
        tags = {"app": where.app}
        self._replicas.set(len(states), tags)
        self._running.set(sum(state.running for state in states), tags)
        self._waiting.set(sum(state.waiting for state in states), tags)
        self._memory.set(sum(state.memory_bytes for state in states), tags)
        now, tokens = time.monotonic(), sum(state.generated_tokens for state in states)
        then, before = self._tokens.get(where.app, (now, tokens))
        self._tokens[where.app] = (now, tokens)
        generated = tokens - before
        if price is not None and generated > 0:
            spent = price * len(states) * (now - then) / _HOUR_S
            self._cost.set(1000 * spent / generated, tags)
        return states
