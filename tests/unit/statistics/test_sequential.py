"""Anytime-valid bounds: against direct integration, by simulation, and what follows from them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.integrate import quad

from ztom.errors import ConfigError
from ztom.statistics.sequential import (
    SequentialFinding,
    SequentialOutcome,
    Sums,
    compare,
    log_evidence_below,
    lower_bound,
    upper_bound,
)

ALPHAS = st.sampled_from([0.2, 0.05, 0.001])


@st.composite
def sums(draw, most=5000):
    n = draw(st.integers(0, most))
    return Sums(n=n, total=n * draw(st.floats(0, 1)))


def rate(n, share):
    return Sums(n=n, total=n * share)


@pytest.mark.parametrize(("n", "total"), [(0, 0.0), (1, 1.0), (7, 2.5), (40, 0.0), (60, 31.0)])
@pytest.mark.parametrize("mean", [0.02, 0.3, 0.9])
def test_the_evidence_is_the_average_over_the_bets_below(n, total, mean):
    def bet(p):
        return (p / mean) ** total * ((1 - p) / (1 - mean)) ** (n - total) / mean

    expected, _ = quad(bet, 0.0, mean, epsabs=0.0)
    assert float(log_evidence_below(n, total, mean)) == pytest.approx(math.log(expected), abs=1e-6)


@given(sums(), st.floats(0.001, 0.998), st.floats(1e-6, 1e-3))
def test_the_evidence_grows_with_the_mean(some, mean, more):
    before = log_evidence_below(some.n, some.total, mean)
    assert log_evidence_below(some.n, some.total, mean + more) >= before - 1e-9 * (1 + abs(before))


@given(sums(), ALPHAS)
def test_the_bounds_are_where_the_evidence_reaches_its_mark(some, alpha):
    low, high = lower_bound(some, alpha), upper_bound(some, alpha)
    assert 0.0 <= low <= high <= 1.0
    if some.n:
        assert low - 1e-9 <= some.mean <= high + 1e-9
    if 1e-6 < high < 1 - 1e-6:
        mark = float(log_evidence_below(some.n, some.total, high))
        assert mark == pytest.approx(-math.log(alpha), abs=1e-3)
    mirrored = Sums(n=some.n, total=some.n - some.total)
    assert low == pytest.approx(1.0 - upper_bound(mirrored, alpha), abs=1e-9)


@given(sums(), st.integers(2, 50), ALPHAS)
def test_more_of_the_same_and_a_greater_risk_narrow_the_bounds(some, times, alpha):
    many = Sums(n=some.n * times, total=some.total * times)
    assert upper_bound(many, alpha) <= upper_bound(some, alpha) + 1e-9
    assert upper_bound(some, alpha) <= upper_bound(some, alpha / 2) + 1e-9


def test_nothing_known_bounds_nothing_and_much_bounds_tightly():
    assert (lower_bound(Sums(), 0.05), upper_bound(Sums(), 0.05)) == (0.0, 1.0)
    assert upper_bound(rate(100, 1.0), 0.05) == 1.0
    assert upper_bound(rate(100, 0.0), 0.025) == pytest.approx(0.052, abs=0.001)
    many = rate(10**9, 0.25)
    assert 0.2499 < lower_bound(many, 0.001) < 0.25 < upper_bound(many, 0.001) < 0.2501


@pytest.mark.parametrize("mean", [0.01, 0.3])
def test_a_bound_looked_at_after_each_observation_is_seldom_ever_wrong(mean):
    alpha, runs, length = 0.1, 600, 1000
    generator = np.random.default_rng(7)
    totals = np.cumsum(generator.random((runs, length)) < mean, axis=1)
    n = np.arange(1, length + 1)
    mark = -math.log(alpha)
    above = (log_evidence_below(n, totals, mean) >= mark).any(axis=1).mean()
    below = (log_evidence_below(n, n - totals, 1 - mean) >= mark).any(axis=1).mean()
    # The evidence goes from 1 to 0, so most of alpha is used up: three standard errors more.
    assert max(above, below) <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)
    assert min(above, below) > 0.005


def test_the_bounds_hold_for_fractions_as_for_events():
    generator = np.random.default_rng(8)
    runs, length, alpha = 500, 600, 0.1
    values = generator.beta(0.4, 1.2, size=(runs, length))
    totals, n = np.cumsum(values, axis=1), np.arange(1, length + 1)
    wrong = (log_evidence_below(n, totals, 0.25) >= -math.log(alpha)).any(axis=1).mean()
    assert wrong <= alpha


@pytest.mark.parametrize(
    ("candidate", "baseline", "outcome"),
    [
        (rate(1000, 0.01), rate(1000, 0.01), SequentialOutcome.PASS),
        (rate(1000, 0.2), rate(1000, 0.01), SequentialOutcome.FAIL),
        (rate(50, 0.02), rate(50, 0.0), SequentialOutcome.INCONCLUSIVE),
        (Sums(), Sums(), SequentialOutcome.INCONCLUSIVE),
        (Sums(), rate(10**6, 0.99), SequentialOutcome.INCONCLUSIVE),
        (rate(10**6, 0.0), Sums(), SequentialOutcome.INCONCLUSIVE),
        (rate(10**6, 1.0), Sums(), SequentialOutcome.INCONCLUSIVE),
    ],
)
def test_every_outcome(candidate, baseline, outcome):
    finding = compare(candidate, baseline, margin=0.05, alpha=0.05)
    assert finding.outcome is outcome
    assert SequentialFinding.model_validate_json(finding.model_dump_json()) == finding
    words = {
        SequentialOutcome.PASS: "at most",
        SequentialOutcome.FAIL: "at least",
        SequentialOutcome.INCONCLUSIVE: "not decided",
    }
    known = candidate.n and baseline.n
    assert (words[outcome] if known else "no data of") in finding.reason


@given(sums(), sums(), st.floats(0, 0.9), ALPHAS, ALPHAS)
def test_a_finding_is_never_both_and_never_without_data(candidate, baseline, margin, alpha, fail):
    finding = compare(candidate, baseline, margin=margin, alpha=alpha, fail_alpha=fail)
    assert -1.0 <= finding.low <= finding.high <= 1.0
    if finding.outcome is not SequentialOutcome.INCONCLUSIVE:
        assert candidate.n > 0
        assert baseline.n > 0
        assert (finding.estimate <= margin) == (finding.outcome is SequentialOutcome.PASS)
    assert finding.reason


def test_a_smaller_risk_of_a_fail_leaves_the_pass_as_it_is():
    pair = rate(360, 0.12), rate(360, 0.01)
    wide, narrow = (compare(*pair, margin=0.02, alpha=0.05, fail_alpha=a) for a in (0.05, 1e-4))
    assert wide.high == narrow.high == upper_bound(pair[0], 0.025) - lower_bound(pair[1], 0.025)
    assert narrow.low == lower_bound(pair[0], 5e-5) - upper_bound(pair[1], 5e-5)
    assert wide.low > narrow.low
    assert (wide.outcome, narrow.outcome) == (
        SequentialOutcome.FAIL,
        SequentialOutcome.INCONCLUSIVE,
    )


@pytest.mark.parametrize(("share", "grows"), [(0.01, True), (0.01, False), (0.12, True)])
def test_the_forecast_is_about_what_is_then_needed(share, grows):
    candidate, baseline = rate(100, share), rate(2000, 0.01)
    finding = compare(candidate, baseline, margin=0.03, alpha=0.05, baseline_grows=grows)
    more = finding.more_needed()

    def after(extra):
        stable = rate(2000 + 20 * extra, 0.01) if grows else baseline
        return compare(rate(100 + extra, share), stable, margin=0.03, alpha=0.05).outcome

    assert after(more) is (SequentialOutcome.PASS if share < 0.03 else SequentialOutcome.FAIL)
    assert after(more * 9 // 10) is SequentialOutcome.INCONCLUSIVE


def test_there_is_no_forecast_where_none_can_be_made():
    on_the_margin = compare(rate(100, 0.06), rate(100, 0.01), margin=0.05, alpha=0.05)
    assert on_the_margin.more_needed() is None
    assert "no number of requests" in on_the_margin.reason
    fixed = compare(rate(9, 0.5), rate(9, 0.5), margin=0.05, alpha=0.05, baseline_grows=False)
    assert fixed.more_needed() is None
    assert compare(Sums(), Sums(), margin=0.05, alpha=0.05).more_needed() is None
    decided = compare(rate(1000, 0.0), rate(1000, 0.0), margin=0.05, alpha=0.05)
    assert decided.more_needed() is None


def test_what_is_no_series_in_the_unit_interval_is_refused():
    for n, total in ((1, 1.1), (0, 0.1), (-1, 0.0), (3, -0.1), (3, math.nan), (3, math.inf)):
        with pytest.raises(ValidationError):
            Sums(n=n, total=total)
    # The rounding of a long sum of fractions is no mistake.
    assert upper_bound(Sums(n=10, total=10.000000001), 0.05) == 1.0
    assert lower_bound(Sums(n=10, total=10.000000001), 0.05) < 1.0


def test_options_out_of_range_are_refused():
    for alpha in (0.0, 1.0, math.nan):
        with pytest.raises(ConfigError, match="alpha"):
            upper_bound(rate(10, 0.5), alpha)
        with pytest.raises(ConfigError, match="alpha"):
            lower_bound(Sums(), alpha)
    for margin in (-0.1, 1.0, math.nan):
        with pytest.raises(ConfigError, match="margin"):
            compare(rate(10, 0.5), rate(10, 0.5), margin=margin, alpha=0.05)
