"""Processes that die, a disk that fills and a clock that jumps, under load, for half an hour.

    python benchmarks/chaos.py [--minutes 30] [--seed 0] [--engine vllm] [--only raylet]

A server on PostgreSQL answers completions (half of them streaming), takes writes, moves releases
and runs searches; meanwhile one thing after the other is killed with SIGKILL, in an order that the
seed decides. Counted are requests that were lost, by when they were made: those in flight when
something died may be lost with it; what is offered later waits, gets a 503 that says when to try
again, or finds no door for a moment; a 200 that is not whole is always a fault. Every write that
was acknowledged has to be on record at the end, every release to end as promoted (all candidates
are good), every search with its budget, and the audit chain has to hold.

The clock needs Debian's packages libfaketime and gcc, the disk the right to mount; without them
these events are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from chaos_load import SMALL, Releases, Request, Requests, Rows, Searches
from chaos_world import Clock, Database, Disk, Supervised
from running import blend, create_account, deploy, make_chain

from ztom.client import Client
from ztom.ledger import Ledger

#: Processes of the server by the command lines that they have.
KILLED = {
    "driver": "tune_search",
    "engine": "EngineCore",
    "replica": "ray::ServeReplica:variant-",
    "controller": "ray::ServeReplica:ztom:controller",
    "gateway": "ray::ServeReplica:ztom:control-plane",
    "Serve's controller": "ray::ServeController",
    "HAProxy": "haproxy -",
    "raylet": "raylet/raylet",
}
DATABASE_DOWN_S, DISK_FULL_S, CLOCK_WRONG_S = 3.0, 10.0, 20.0
LONGEST_OUTAGE_S = 600.0
#: Requests in a row that are answered when all is well again.
WELL = 12
#: Seconds that a process takes to be gone with what hangs on it.
DYING_S = {"raylet": 10.0}
KEPT_MB = 400


@dataclass
class Event:
    """Something that was done, and what it cost; seconds are monotonic ones.

    Attributes:
        at: When it was done.
        over: When what died of it was gone.
        first_answer_s: Seconds from `at` to the first answer to a request that was made later.
        well_s: Seconds from `at` to the first of `WELL` answers in a row.
    """

    kind: str
    at: float
    over: float
    first_answer_s: float = float("nan")
    well_s: float = float("inf")
    lost: Counter[str] = field(default_factory=Counter)


class Chaos:
    """The world, and what can happen in it."""

    def __init__(
        self, server: Supervised, database: Database, disk: Disk, clock: Clock, seed: int
    ) -> None:
        self.events: list[Event] = []
        self.missed: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._server = server
        self._other: dict[str, Callable[[], None]] = {
            "PostgreSQL": lambda: database.kill(DATABASE_DOWN_S),
        }
        if disk.is_small:
            self._other["disk full"] = lambda: disk.fill(DISK_FULL_S)
        if clock.is_there:
            self._other["clock +1 h"] = lambda: _put(clock, 3600)
            self._other["clock -1 h"] = lambda: _put(clock, -3600)
        self.kinds = [*KILLED, *self._other]

    def happen(self, kind: str, requests: Requests) -> None:
        """Do it, and wait until requests that were made afterwards are answered."""
        at = time.monotonic()
        if kind in self._other:
            self._other[kind]()
        elif found := self._server.find(KILLED[kind]):
            with contextlib.suppress(ProcessLookupError):
                self._random.choice(found).kill()
        else:
            self.missed[kind] += 1
            return
        event = Event(kind, at, time.monotonic() + DYING_S.get(kind, 0.0))
        self.events.append(event)
        event.first_answer_s = _seconds_to_answers(requests, at, 1)
        event.well_s = _seconds_to_answers(requests, at, WELL)
        first, well = event.first_answer_s, event.well_s
        print(f"{kind:<20} first answer after {first:6.1f} s, all well {well:6.1f} s", flush=True)


def _put(clock: Clock, seconds: float) -> None:
    clock.put(seconds)
    time.sleep(CLOCK_WRONG_S)
    clock.put(0)


def _seconds_to_answers(requests: Requests, at: float, count: int) -> float:
    """Wait for so many answers in a row to requests made since; seconds to the first of them."""
    while time.monotonic() < at + LONGEST_OUTAGE_S:
        row: list[Request] = []
        for request in requests.made:
            if request.began > at:
                row = [*row, request] if request.outcome == "answered" else []
            if len(row) == count:
                return row[0].ended - at
        time.sleep(0.2)
    return float("inf")


def attribute(events: list[Event], made: list[Request]) -> Counter[str]:
    """Give each request that was lost to the event it was in flight in, or to those after it.

    Returns:
        What was lost although nothing had been done while it was in flight.
    """
    without = Counter[str]()
    for request in made:
        if request.outcome in ("answered",):
            continue
        during = [e for e in events if request.began < e.over and request.ended > e.at]
        before = [e for e in events if e.at < request.began]
        if during:
            during[-1].lost[f"{request.outcome}, in flight"] += 1
        elif before and request.began < before[-1].at + before[-1].well_s:
            before[-1].lost[f"{request.outcome}, made later"] += 1
        else:
            without[request.outcome] += 1
    return without


def report(chaos: Chaos, made: list[Request]) -> tuple[list[str], dict[str, object]]:
    """Print what happened; returns what should not have, and the figures."""
    wrong = []
    without = attribute(chaos.events, made)
    answered = sum(request.outcome == "answered" for request in made)
    print(f"\n{answered} requests answered, {len(made) - answered} not")
    print(f"{'':<20}{'times':>6}{'first answer, s: median':>25}{'longest':>9}{'all well':>9}  lost")
    table = []
    for kind in chaos.kinds:
        events = [event for event in chaos.events if event.kind == kind]
        if not events:
            print(f"{kind:<20}{0:>6}")
            continue
        lost = sum((event.lost for event in events), Counter[str]())
        seconds = [event.first_answer_s for event in events]
        print(
            f"{kind:<20}{len(events):>6}{statistics.median(seconds):>25.1f}{max(seconds):>9.1f}"
            f"{statistics.median(event.well_s for event in events):>9.1f}  "
            + ", ".join(f"{count} {what}" for what, count in lost.most_common())
        )
        wrong += [f"{what} ({kind})" for what in lost if _is_fault(what)]
        table.append(
            {
                "kind": kind,
                "first_answer_s": seconds,
                "well_s": [e.well_s for e in events],
                "lost": dict(lost),
            }
        )
    print("with nothing done:", dict(without) or "none lost")
    wrong += [f"{what}, with nothing done" for what in without if what != "later"]
    outcomes = dict(Counter(request.outcome for request in made))
    return wrong, {"requests": outcomes, "with nothing done": dict(without), "events": table}


def _is_fault(what: str) -> bool:
    outcome, _, when = what.rpartition(", ")
    return outcome == "truncated" or (when == "made later" and outcome not in ("later", "no door"))


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--pause", type=float, default=15, help="mean seconds between events")
    parser.add_argument("--engine", choices=["vllm", "torch"], default="vllm", help="of searches")
    parser.add_argument("--only", default="", help="kinds whose names hold this")
    parser.add_argument("--out", type=Path, default=None, help="JSON file of the figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="zc-") as name, contextlib.ExitStack() as undo:
        home = Path(name)
        home.chmod(0o755)
        disk = Disk(home / "disk", KEPT_MB)
        undo.callback(disk.close)
        database = Database(home / "database")
        undo.callback(database.stop)
        key = create_account(database.address)
        roots = home / "roots"
        chain = make_chain(roots / "chain", hidden=64, layers=2, vocabulary=None)
        folders = [
            blend(chain, f, roots / n) for n, f in (("one", (0.5, -0.5)), ("two", (0.2, 0.2)))
        ]
        stimuli = roots / "stimuli.jsonl"
        pairs = [{"prompt": f"a few words {n}", "expected": "to have"} for n in range(16)]
        stimuli.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
        clock = Clock(home / "clock")
        server = Supervised(
            disk.folder / "data",
            settings=[f'pointer_roots=["{roots}"]'],
            ledger=database.address,
            environment=clock.environment,
            log=home / "server.log",
        )
        undo.callback(server.stop)
        return _run(options, server, database, disk, clock, key, roots, folders, stimuli)


def _run(
    options: argparse.Namespace,
    server: Supervised,
    database: Database,
    disk: Disk,
    clock: Clock,
    key: str,
    roots: Path,
    folders: list[Path],
    stimuli: Path,
) -> int:
    print(f"starting the server; its log is {server.log}", flush=True)
    server.wait_until_up()
    chaos = Chaos(server, database, disk, clock, options.seed)
    chance = random.Random(options.seed)
    requests = Requests(server.url, key, options.clients)
    with Client(server.url, key=key) as client:
        deploy(client, "chaos", folders[0], options=SMALL, now=True)
    members = sorted((roots / "chain").glob("0*"))
    searches = Searches(server.url, key, members, stimuli, options.engine)
    releases, rows = Releases(server.url, key, [folders[1], folders[0]]), Rows(server.url, key)
    work = (requests, searches, releases, rows)
    for part in work:
        part.start()
    kinds = [kind for kind in chaos.kinds if options.only in kind]
    ends = time.monotonic() + options.minutes * 60
    while time.monotonic() < ends:
        for kind in chance.sample(kinds, len(kinds)):
            time.sleep(chance.expovariate(1 / options.pause))
            chaos.happen(kind, requests)
            if time.monotonic() > ends:
                break
    for part in reversed(work):
        part.stop()
    wrong, figures = report(chaos, requests.made)
    lost = rows.lost()
    print(f"rows: {len(rows.acknowledged)} acknowledged, {lost} lost; {dict(rows.counts)}")
    print(f"releases: {dict(releases.counts)}; searches: {dict(searches.counts)}")
    print(f"the server was started {server.starts} times")
    with Ledger.open(database.address) as ledger:
        audit = ledger.audit.check()
    print(f"audit chain: {audit} rows hold")
    wrong += [f"{lost} acknowledged rows"] * bool(lost)
    wrong += [f"releases: {count} {what}" for what, count in releases.counts.items() if _bad(what)]
    wrong += ["searches: none ended"] * (not searches.counts["finished"])
    wrong += [f"searches: {count} {what}" for what, count in searches.counts.items() if _bad(what)]
    figures |= {
        "missed": dict(chaos.missed),
        "rows": {"acknowledged": len(rows.acknowledged), "lost": lost, **rows.counts},
        "releases": dict(releases.counts),
        "searches": dict(searches.counts),
        "audit rows": audit,
        "starts": server.starts,
        "wrong": wrong,
    }
    if options.out is not None:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")
    for what in wrong:
        print(f"WRONG: {what}", file=sys.stderr)
    return 1 if wrong else 0


def _bad(what: str) -> bool:
    return what not in ("promoted", "finished") and not what.startswith("refused")


if __name__ == "__main__":
    sys.exit(main())
