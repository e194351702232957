"""How far the code goes: 100 variants, 1,000 requests a second, 30 nodes, with a simulated clock.

No engine, no HTTP and no Ray: what a gateway decides and counts for each request (routing table,
quotas, counts of releases, usage), what it writes every second, and what the controller works out
in a round. Seconds are of the CPU, measured here; the clock of the simulation runs as fast as it
can. A part's largest rate is one core's on nothing else. What follows from these rates for more
nodes is arithmetic and printed as such: nobody has run it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serve_apps.controller.apps import AppState, AppStatus
from serve_apps.controller.steps import plan_steps
from serve_apps.endpoints.specs import app_spec
from serve_apps.gateway.callers import CallerHashes
from serve_apps.gateway.observe import Observer
from serve_apps.gateway.quota import Quota, Quotas
from ztom.ledger import Ledger
from ztom.ledger.deployments import DeploymentRecord, DeploymentState
from ztom.ledger.usage import UsageCounts
from ztom.ledger.usage_book import UsageBook
from ztom.rollout.callers import CallerShares
from ztom.rollout.options import DeployOptions
from ztom.rollout.plan import parse_plan
from ztom.rollout.release import decide
from ztom.rollout.routing import Choice, Placement, Route, RoutingTable, choose
from ztom.rollout.state import ReleaseContext, ReleaseState


@dataclass(frozen=True, slots=True)
class Size:
    """What is simulated.

    Attributes:
        variants: Number of endpoints, each with a stable variant and a canary.
        keys: Number of API keys that call.
        rate: Requests a second, of all nodes.
        nodes: Number of nodes, each with a gateway.
        seconds: Seconds on the clock of the simulation.
    """

    variants: int
    keys: int
    rate: int
    nodes: int
    seconds: int


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time, seconds."""
        return self.now


class Stopwatch:
    """Seconds of the CPU, by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what is in the context for a part."""
        began = time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - began


def digest_of(number: int) -> str:
    """A digest that no other number has."""
    return f"{number:064x}"


def table_of(size: Size, releases: list[str]) -> RoutingTable:
    """A table of endpoints, each of which has a release under way."""
    placements, routes = {}, {}
    for number in range(size.variants):
        for digest in (digest_of(2 * number), digest_of(2 * number + 1)):
            placements[digest] = Placement(
                name=f"v{number}", app=f"variant-{digest[-8:]}", deployment="d", folder="/v"
            )
        routes[f"alias-{number}"] = Route(
            stable=digest_of(2 * number),
            canary=digest_of(2 * number + 1),
            canary_percent=5,
            release=releases[number],
        )
    return RoutingTable(routes=routes, placements=placements)


class GatewayRun:
    """One gateway's part of the traffic, request by request.

    Args:
        size: What is simulated.
        ledger: Ledger that it writes to.
        table: Routing table.
        watch: Stopwatch of its parts.
    """

    def __init__(self, size: Size, ledger: Ledger, table: RoutingTable, watch: Stopwatch) -> None:
        self._size, self._watch, self.clock = size, watch, Clock()
        self._table = table
        self._quotas = Quotas(1 / size.nodes)
        self._observer = Observer(
            ledger.endpoints, lambda release: CallerShares(), clock=self.clock
        )
        self._book = UsageBook(ledger.usage, "gateway", clock=self.clock)
        self._hashes = CallerHashes(b"x" * 48)
        self.requests = 0

    def second(self, keys: np.ndarray, aliases: np.ndarray) -> None:
        """The requests of a second on the clock, and what is written after it."""
        watch, quota = self._watch, Quota(10**9, 10**12)
        pairs = [(f"key-{key}", f"alias-{alias}") for key, alias in zip(keys, aliases, strict=True)]
        with watch.part("quota: admit"):
            for key, _ in pairs:
                self._quotas.admit([(key, quota), (f"user-{key}", quota)], now=self.clock.now)
        choices: list[tuple[str, Choice]] = []
        with watch.part("route"):
            for key, alias in pairs:
                caller = self._hashes.sticky(key, "a")
                choice = choose(
                    self._table, alias, caller=caller, request=caller, headers={}, key=key
                )
                if choice is not None:
                    choices.append((key, choice))
        with watch.part("count for releases"):
            for key, choice in choices:
                hashed = self._hashes.caller(key)
                self._observer.answered(choice, hashed, status=200, seconds=0.2, empty=False)
        with watch.part("quota: tokens"):
            for key, _ in pairs:
                self._quotas.use(key, quota, 300, now=self.clock.now)
        with watch.part("count usage"):
            for key, choice in choices:
                counts = UsageCounts(1, 0, 200, 100, 0.1)
                self._book.add(counts, digest=choice.digest, project="p", key=key)
        self.requests += len(pairs)
        self.clock.now += 1.0
        with watch.part("write (SQLite): releases"):
            self._observer.write()
        with watch.part("write (SQLite): usage"):
            self._book.write()


def records_of(size: Size, folder: Path) -> list[DeploymentRecord]:
    """Deployments that serve, two for each endpoint."""
    return [
        DeploymentRecord(
            digest_of(number),
            f"v{number // 2}",
            str(folder),
            None,
            DeployOptions(),
            None,
            None,
            None,
            DeploymentState.READY,
            None,
            False,
            "user:a",
            "2026",
        )
        for number in range(2 * size.variants)
    ]


def milliseconds(work: Callable[[], object], *, rounds: int) -> float:
    """CPU milliseconds of a round."""
    began = time.process_time()
    for _ in range(rounds):
        work()
    return 1000 * (time.process_time() - began) / rounds


def controller_rounds(
    size: Size, table: RoutingTable, folder: Path, *, rounds: int
) -> dict[str, float]:
    """CPU milliseconds of what the controller works out in a round, by part."""
    records = records_of(size, folder)
    running = {app_spec(record).name: AppStatus(AppState.RUNNING, "", 1) for record in records}
    plan = parse_plan()
    context = ReleaseContext(plan=plan, seconds_since_last_tick=0.3)

    def releases() -> None:
        for _ in range(size.variants):
            decide(context, ReleaseState())

    return {
        f"steps of {len(records)} deployments": milliseconds(
            lambda: plan_steps(records, table, running), rounds=rounds
        ),
        f"decisions of {size.variants} releases": milliseconds(releases, rounds=rounds),
        "table read and checked": milliseconds(
            lambda: RoutingTable.model_validate_json(table.model_dump_json()), rounds=rounds
        ),
    }


def run(size: Size, folder: Path) -> None:
    """Simulate one of the gateways, and the controller; print what each part takes."""
    plan, watch = parse_plan(), Stopwatch()
    with Ledger.open(folder / "ledger.db") as ledger:
        releases = []
        for number in range(size.variants):
            ledger.endpoints.claim(f"alias-{number}", None)
            record = ledger.endpoints.rollouts.start(
                f"alias-{number}",
                candidate=digest_of(2 * number + 1),
                stable=digest_of(2 * number),
                plan=plan,
                actor="local:bench",
            )
            releases.append(record.id)
        table = table_of(size, releases)
        gateway = GatewayRun(size, ledger, table, watch)
        share = max(1, size.rate // size.nodes)
        generator = np.random.default_rng(0)
        for _ in range(size.seconds):
            keys = generator.integers(size.keys, size=share)
            gateway.second(keys, generator.integers(size.variants, size=share))
    _print_gateway(size, gateway.requests, watch)
    _print_controller(size, controller_rounds(size, table, folder, rounds=20))


def _print_gateway(size: Size, requests: int, watch: Stopwatch) -> None:
    print(
        f"one gateway of {size.nodes}: {requests:,} requests in {size.seconds} s of the "
        f"simulation, {size.variants} endpoints with a release each, {size.keys:,} keys\n"
    )
    print(f"{'measured, one core':28} {'CPU ms a request':>17} {'largest rate, 1/s':>18}")
    total = 0.0
    for name, seconds in watch.seconds.items():
        cost_ms = 1000 * seconds / requests
        total += cost_ms
        print(f"{name:28} {cost_ms:17.4f} {1000 / cost_ms:18,.0f}")
    print(f"{'all of these':28} {total:17.4f} {1000 / total:18,.0f}")
    writes = sum(s for name, s in watch.seconds.items() if name.startswith("write"))
    second = writes / size.seconds
    path = (sum(watch.seconds.values()) - writes) / requests
    print("\nextrapolated from that, not run:")
    print(f"  {size.nodes} gateways, a core each, on the path of requests: "
          f"{size.nodes / path:,.0f} requests a second")  # fmt: skip
    print(f"  gateways that write one after the other: {1 / second:,.0f} "
          f"({1000 * second:.1f} ms of CPU each a second; the disk comes on top)")  # fmt: skip


def _print_controller(size: Size, rounds: dict[str, float]) -> None:
    print(f"\n{'controller, measured':36} {'CPU ms a round':>15}")
    for name, cost_ms in rounds.items():
        print(f"{name:36} {cost_ms:15.2f}")
    whole = sum(rounds.values())
    most = size.variants * 300 / whole
    print(f"\nextrapolated: a round of 0.3 s is full at {most:,.0f} endpoints "
          "(the parts grow with their number; calls to Ray come on top)")  # fmt: skip


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", type=int, default=100)
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=1000, help="requests a second, of all nodes")
    parser.add_argument("--nodes", type=int, default=30)
    parser.add_argument("--seconds", type=int, default=60, help="on the simulation's clock")
    options = parser.parse_args()
    size = Size(options.variants, options.keys, options.rate, options.nodes, options.seconds)
    with tempfile.TemporaryDirectory() as folder:
        run(size, Path(folder))


if __name__ == "__main__":
    main()
