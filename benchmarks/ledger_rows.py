"""Rows that gateways write: one in a transaction against many, on PostgreSQL, in one run.

Before, every judgement of an answer and every step's counts were a transaction of their own, which
takes the writers' lock and waits for the disk. Now those that come at the same time share one. Both
are measured here with the same threads on the same database; what is compared is their ratio.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

import postgres

from ztom.ledger import Ledger
from ztom.ledger.accounts import NewUser
from ztom.ledger.feedback import FeedbackRecord
from ztom.rollout.observations import StepObservations
from ztom.rollout.plan import parse_plan


def rows_a_second(write: Callable[[int], int], *, threads: int, seconds: float) -> float:
    """Rows a second of some threads.

    Args:
        write: Function of a number that nobody else has, which writes and says how many rows.
        threads: Number of threads that call it.
        seconds: Seconds to measure.
    """
    numbers, count, lock = itertools.count(), [0], threading.Lock()
    end = time.perf_counter() + seconds

    def work() -> None:
        while time.perf_counter() < end:
            with lock:
                number = next(numbers)
            rows = write(number)
            with lock:
                count[0] += rows

    began = time.perf_counter()
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return count[0] / (time.perf_counter() - began)


def report(what: str, before: float, after: float) -> None:
    """Print a line of the table."""
    print(f"{what:42} {before:8.0f} {after:8.0f} {after / before:6.1f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement")
    parser.add_argument("--threads", type=int, default=40, help="as many as a server has")
    parser.add_argument("--steps", type=int, default=20, help="steps of releases under way")
    options = parser.parse_args()
    with postgres.server() as base, Ledger.open(postgres.new_database(base)) as ledger:
        user = ledger.accounts.create(NewUser("ada", "ada@x.org", "h"), actor="local:bench").id
        rollouts = ledger.endpoints.rollouts
        print(f"{'rows a second, PostgreSQL':42} {'alone':>8} {'together':>8} {'ratio':>6}")

        def judged(prefix: str, number: int) -> FeedbackRecord:
            return FeedbackRecord(f"{prefix}{number}", "v" * 12, "stable", 0.5, user)

        def alone(number: int) -> int:
            return len(rollouts.feedback.add_all([judged("a", number)]))

        def together(number: int) -> int:
            rollouts.feedback.add(judged("t", number))
            return 1

        measured = {"threads": options.threads, "seconds": options.seconds}
        before, after = rows_a_second(alone, **measured), rows_a_second(together, **measured)
        report(f"feedback, {options.threads} at once", before, after)

        plan = parse_plan()
        releases = []
        for number in range(options.steps):
            alias = f"a{number}"
            ledger.endpoints.claim(alias, None)
            release = rollouts.start(
                alias, candidate="c" * 64, stable="s" * 64, plan=plan, actor="local:bench"
            )
            releases.append(release.id)
        counts = StepObservations()

        def step_by_step(number: int) -> int:
            rollouts.observe(releases[number % len(releases)], 0, "g", counts)
            return 1

        def all_steps(_number: int) -> int:
            rollouts.observe_all([(release, 0, "g", counts) for release in releases])
            return len(releases)

        before = rows_a_second(step_by_step, threads=1, seconds=options.seconds)
        after = rows_a_second(all_steps, threads=1, seconds=options.seconds)
        report(f"observations of {options.steps} steps, one gateway", before, after)


if __name__ == "__main__":
    main()
