"""What N customers with bursty traffic cost: an engine each, adapters, live swap, scale to zero.

A simulation with a clock of its own, no engine: customers sleep and wake (exponential times), and
while awake send requests (Poisson) that take an engine some seconds each. The same arrivals are
played to each way of serving them:

- dedicated: an engine per customer, always there;
- to zero: an engine per customer that leaves after some idle seconds and is loaded again;
- adapters: engines that all customers share, which answer requests of several at once, as many as
  the traffic needs at its peak;
- live swap: shared engines that hold the chain and answer one request at a time; going over to
  another customer takes the seconds of a swap.

Requests that an engine answers at once do not slow each other down here, up to its batch.

Printed is what each costs in engine seconds, which share of them engines worked, and how long
requests waited. Seconds of loads, swaps and answers are arguments: measure them on your machine
(`benchmarks/density.py`, `benchmarks/serve.py`).
"""

from __future__ import annotations

import argparse
import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Traffic:
    """How customers ask.

    Attributes:
        customers: Number of customers.
        awake_s: Mean seconds for which one is awake.
        asleep_s: Mean seconds for which one sleeps.
        rate: Requests a second of one who is awake.
        service_s: Mean seconds that an engine works on a request that it has to itself.
        hours: Hours that are simulated.
    """

    customers: int
    awake_s: float
    asleep_s: float
    rate: float
    service_s: float
    hours: float


@dataclass(frozen=True, slots=True)
class Request:
    """One request: when it comes, of whom, and how long an engine works on it, seconds."""

    at: float
    customer: int
    work_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a way of serving came to.

    Attributes:
        name: Name of the way.
        engines: Engines at the same time, at most.
        engine_s: Seconds for which engines were held, loads included.
        busy_s: Seconds for which they worked on requests.
        waits_s: Seconds for which each request waited before it was worked on, sorted.
    """

    name: str
    engines: int
    engine_s: float
    busy_s: float
    waits_s: tuple[float, ...]

    def wait_s(self, share: float) -> float:
        """The wait that a share of all requests does not exceed."""
        place = min(len(self.waits_s) - 1, math.ceil(share * len(self.waits_s)) - 1)
        return self.waits_s[max(0, place)] if self.waits_s else 0.0


def arrivals(traffic: Traffic, generator: np.random.Generator) -> list[Request]:
    """Requests of all customers in the order in which they come."""
    end, requests = traffic.hours * 3600, list[Request]()
    for customer in range(traffic.customers):
        # each begins at any point of a sleep
        at = float(generator.exponential(traffic.asleep_s))
        while at < end:
            until = min(end, at + float(generator.exponential(traffic.awake_s)))
            while (at := at + float(generator.exponential(1 / traffic.rate))) < until:
                work_s = float(generator.exponential(traffic.service_s))
                requests.append(Request(at, customer, work_s))
            at = until + float(generator.exponential(traffic.asleep_s))
    return sorted(requests, key=lambda request: request.at)


def dedicated(requests: Sequence[Request], traffic: Traffic, *, batch: int) -> Outcome:
    """An engine for each customer, all the time; it answers some requests at once."""
    waits, busy_s = list[float](), 0.0
    for customer in range(traffic.customers):
        theirs = [request for request in requests if request.customer == customer]
        customer_waits, customer_busy_s = _pooled(theirs, 1, batch)
        waits += customer_waits
        busy_s += customer_busy_s
    held_s = traffic.customers * traffic.hours * 3600
    return Outcome("an engine each", traffic.customers, held_s, busy_s, tuple(sorted(waits)))


def to_zero(requests: Sequence[Request], *, idle_s: float, load_s: float) -> Outcome:
    """An engine for each customer, which leaves after some idle seconds and is loaded again."""
    ends: dict[int, float] = {}
    loaded: dict[int, float] = {}
    spans: list[tuple[float, float]] = []
    waits, busy_s = [], 0.0
    for request in requests:
        who = request.customer
        if who not in ends or request.at > ends[who] + idle_s:
            if who in ends:
                spans.append((loaded[who] - load_s, ends[who] + idle_s))
            loaded[who] = ends[who] = request.at + load_s
        begins = max(loaded[who], request.at)
        waits.append(begins - request.at)
        ends_at = begins + request.work_s
        busy_s += max(0.0, ends_at - max(ends[who], begins))
        ends[who] = max(ends[who], ends_at)
    spans += [(loaded[who] - load_s, until + idle_s) for who, until in ends.items()]
    held_s = sum(until - start for start, until in spans)
    return Outcome("scale to zero", _most_at_once(spans), held_s, busy_s, tuple(sorted(waits)))


def adapters(requests: Sequence[Request], traffic: Traffic, *, batch: int) -> Outcome:
    """Shared engines, as few as keep up; each answers some requests at once.

    Requests in work on one engine do not slow each other down up to its batch, as decoding is bound
    by memory; beyond it they wait.
    """
    engines = max(1, math.ceil(_work(requests) / (0.7 * batch * traffic.hours * 3600)))
    while True:
        waits, busy_s = _pooled(requests, engines, batch)
        if not waits or waits[math.ceil(0.95 * len(waits)) - 1] <= traffic.service_s:
            break
        engines += 1
    return Outcome("adapters", engines, engines * traffic.hours * 3600, busy_s, waits)


def live_swap(requests: Sequence[Request], traffic: Traffic, *, swap_s: float) -> Outcome:
    """Shared engines, as few as keep up, each for one customer at a time."""
    engines = max(1, math.ceil(_work(requests) / (0.7 * traffic.hours * 3600)))
    while True:
        waits, busy_s = _swapped(requests, engines, swap_s)
        if not waits or waits[math.ceil(0.95 * len(waits)) - 1] <= traffic.service_s + 2 * swap_s:
            break
        engines += 1
    return Outcome("live swap", engines, engines * traffic.hours * 3600, busy_s, waits)


def _work(requests: Sequence[Request]) -> float:
    return sum(request.work_s for request in requests)


def _pooled(
    requests: Sequence[Request], engines: int, batch: int
) -> tuple[tuple[float, ...], float]:
    """Waits, and seconds for which engines had work, with places on shared engines.

    The engine with the most requests that has a place left takes the next one, so that others may
    be idle; an engine is busy while it has any.
    """
    places: list[list[float]] = [[] for _ in range(engines)]  # ends of the requests in work
    until = [0.0] * engines
    waits, busy_s = [], 0.0
    for request in requests:
        for ends in places:
            while ends and ends[0] <= request.at:
                heapq.heappop(ends)
        open_places = [place for place in range(engines) if len(places[place]) < batch]
        if open_places:
            chosen = max(open_places, key=lambda place: len(places[place]))
            begins = request.at
        else:
            chosen = min(range(engines), key=lambda place: places[place][0])
            begins = heapq.heappop(places[chosen])
        ends_at = begins + request.work_s
        heapq.heappush(places[chosen], ends_at)
        waits.append(begins - request.at)
        busy_s += max(0.0, ends_at - max(until[chosen], begins))
        until[chosen] = max(until[chosen], ends_at)
    return tuple(sorted(waits)), busy_s


def _swapped(
    requests: Sequence[Request], engines: int, swap_s: float
) -> tuple[tuple[float, ...], float]:
    """Waits, and seconds of work, swaps excluded, with engines that hold one customer each."""
    free = [0.0] * engines
    holds = [-1] * engines
    waits, busy_s = [], 0.0
    for request in requests:

        def begin(place: int, request: Request = request) -> float:
            swaps = swap_s if holds[place] != request.customer else 0.0
            return max(free[place], request.at) + swaps

        chosen = min(range(engines), key=begin)
        begins = begin(chosen)
        waits.append(begins - request.at)
        free[chosen], holds[chosen] = begins + request.work_s, request.customer
        busy_s += request.work_s
    return tuple(sorted(waits)), busy_s


def _most_at_once(spans: Sequence[tuple[float, float]]) -> int:
    edges = sorted([(start, 1) for start, _ in spans] + [(until, -1) for _, until in spans])
    count = most = 0
    for _, change in edges:
        count += change
        most = max(most, count)
    return most


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", type=int, nargs="+", default=[10, 30, 100])
    parser.add_argument("--awake-s", type=float, default=600, help="mean seconds awake")
    parser.add_argument("--asleep-s", type=float, default=3000, help="mean seconds asleep")
    parser.add_argument("--rate", type=float, default=0.5, help="requests a second, awake")
    parser.add_argument("--service-s", type=float, default=1.0, help="seconds of an answer")
    parser.add_argument("--idle-s", type=float, default=300, help="before an engine leaves")
    parser.add_argument("--load-s", type=float, default=60, help="seconds of a load")
    parser.add_argument("--swap-s", type=float, default=0.2, help="seconds of a live swap")
    parser.add_argument("--batch", type=int, default=16, help="requests at once of one engine")
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(
        f"{'customers':>9} {'served by':15} {'engines':>7} {'engine h':>9} {'of each':>8} ", end=""
    )
    print(f"{'busy':>6} {'wait p50':>9} {'p95':>7} {'p99':>7}")
    for customers in options.customers:
        traffic = Traffic(
            customers,
            options.awake_s,
            options.asleep_s,
            options.rate,
            options.service_s,
            options.hours,
        )
        requests = arrivals(traffic, np.random.default_rng(options.seed))
        base = dedicated(requests, traffic, batch=options.batch)
        outcomes = (
            base,
            to_zero(requests, idle_s=options.idle_s, load_s=options.load_s),
            live_swap(requests, traffic, swap_s=options.swap_s),
            adapters(requests, traffic, batch=options.batch),
        )
        for outcome in outcomes:
            ratio = base.engine_s / outcome.engine_s
            print(
                f"{customers:9} {outcome.name:15} {outcome.engines:7} "
                f"{outcome.engine_s / 3600:9.1f} {f'1/{ratio:.1f}':>8} "
                f"{outcome.busy_s / outcome.engine_s:6.1%} {outcome.wait_s(0.5):9.2f} "
                f"{outcome.wait_s(0.95):7.2f} {outcome.wait_s(0.99):7.2f}"
            )


if __name__ == "__main__":
    main()
