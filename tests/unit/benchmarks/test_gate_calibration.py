"""The calibration of the gate says by its exit status whether what is wanted was reached."""

import sys
from collections import Counter

import pytest
from scipy.stats import multinomial

from benchmarks import gate_calibration
from benchmarks.gate_calibration import Session, Wanted, World, chance_to_pass, main
from ztom.evaluation.gate.verdict import Outcome
from ztom.statistics.proportions import PairedDifference


@pytest.mark.parametrize(
    ("wanted", "count", "missed"),
    [
        (Wanted(Outcome.PASS, 5.0), 100, False),
        (Wanted(Outcome.PASS, 5.0), 125, False),  # 6.25 % of 2,000 may be chance
        (Wanted(Outcome.PASS, 5.0), 140, True),
        (Wanted(Outcome.FAIL, 90.0, at_least=True), 1790, False),
        (Wanted(Outcome.FAIL, 90.0, at_least=True), 1750, True),
    ],
)
def test_a_rate_is_missed_beyond_chance(wanted: Wanted, count: int, missed: bool) -> None:
    session = Session(runs=2000)
    session.check("a row", wanted, Counter({wanted.kind: count}))
    assert bool(session.missed) is missed
    assert all(told.startswith(f"a row: wanted {wanted}, got ") for told in session.missed)


@pytest.mark.parametrize("missed", [[], ["a row: too slow"]])
def test_what_is_missed_is_the_exit_status(
    missed: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gate_calibration, "TABLES", {"one": lambda s: s.missed.extend(missed)})
    monkeypatch.setattr(sys, "argv", ["gate_calibration.py"])
    assert main() == len(missed)
    assert ("missed: a row: too slow" in capsys.readouterr().out) is bool(missed)


def test_a_slow_decision_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_calibration, "decide", lambda *_: None)
    ticks = iter([0.0, 1.9, 10.0, 12.1])
    monkeypatch.setattr("time.process_time", lambda: next(ticks))
    bench, session = gate_calibration.Bench(gate_calibration.Layer.TASK, n=1), Session()
    for name in ("fast", "slow"):
        gate_calibration.time_decision(name, bench, (None, None), session)  # type: ignore[arg-type]
    assert session.missed == ["slow: wanted 2 s of the processor at most, got 2.10 s"]


def test_the_exact_sum_is_that_of_all_outcomes() -> None:
    n, margin = 40, 0.1
    found = 0.0
    for losses in range(n + 1):
        for gains in range(n + 1 - losses):
            if PairedDifference(losses, gains, n).estimate(0.05).low >= -margin - 1e-9:
                found += multinomial.pmf([losses, gains, n - losses - gains], n, [0.05, 0.05, 0.9])
    assert chance_to_pass(World(), n, margin) == pytest.approx(found, abs=1e-8)
