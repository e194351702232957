"""Tables of what `benchmarks.samplers` measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import t as student

Row = Mapping[str, Any]
#: Family, factors, noise, tolerance.
Cell = tuple[str, int, float, float]
_YARDSTICK = ("gp", "optuna_gp")


def print_tables(rows: Sequence[Row]) -> None:
    """Print a line for each sampler in each cell, then the paired differences."""
    cells: dict[Cell, dict[str, dict[int, Row]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        cell = (row["family"], row["factors"], row["noise"], row["tolerance"])
        cells[cell][row["sampler"]][row["seed"]] = row
    print("share of the gain: mean and worst over the seeds")
    print(
        f"{'family':10} {'factors':>7} {'noise':>5} {'sampler':10} {'seeds':>5} {'mean':>6} "
        f"{'worst':>6} {'evaluations':>11} {'s of thinking':>13}"
    )
    for cell in sorted(cells):
        for sampler, runs in sorted(cells[cell].items()):
            _print_line(cell, sampler, list(runs.values()))
    _print_differences(cells)


def _print_line(cell: Cell, sampler: str, runs: Sequence[Row]) -> None:
    family, factors, noise, tolerance = cell
    shares = [run["share"] for run in runs]
    name = sampler if tolerance == 0 else f"{sampler}*"
    print(
        f"{family:10} {factors:7d} {noise:5.2f} {name:10} {len(runs):5d} {np.mean(shares):6.3f} "
        f"{min(shares):6.3f} {np.mean([run['evaluations'] for run in runs]):11.1f} "
        f"{np.mean([run['thinking_s'] for run in runs]):13.2f}"
    )


def _print_differences(cells: Mapping[Cell, Mapping[str, Mapping[int, Row]]]) -> None:
    ours, theirs = _YARDSTICK
    print(f"\n{ours} minus {theirs}, paired by seed: mean, and lower end of the one-sided 95 %")
    pooled: dict[tuple[str, float], list[float]] = defaultdict(list)
    for cell, samplers in sorted(cells.items()):
        family, factors, noise, tolerance = cell
        both = sorted(samplers.get(ours, {}).keys() & samplers.get(theirs, {}).keys())
        if tolerance or not both:
            continue
        pairs = [samplers[ours][seed]["share"] - samplers[theirs][seed]["share"] for seed in both]
        pooled[family, noise] += pairs
        print(f"{family:10} {factors:7d} {noise:5.2f} {_interval(pairs)}")
    for (family, noise), pairs in sorted(pooled.items()):
        print(f"{family:10}     all {noise:5.2f} {_interval(pairs)}")


def _interval(values: Sequence[float]) -> str:
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return f"{count:4d} pairs {mean:+.3f}"
    error = float(np.std(values, ddof=1)) / count**0.5
    return f"{count:4d} pairs {mean:+.3f} {mean - float(student.ppf(0.95, count - 1)) * error:+.3f}"
