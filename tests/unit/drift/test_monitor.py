"""A monitor over weeks of traffic: what it says, when it alarms, and that it forgets nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest
from streams import START, embed, week

from ztom.drift.config import MonitorConfig
from ztom.drift.findings import Signal
from ztom.drift.monitor import Monitor, MonitorState, acted
from ztom.drift.observations import split_windows
from ztom.errors import ConfigError

_CONFIG = MonitorConfig(start=START)


@pytest.fixture(scope="module")
def reference():
    return tuple(row for number in range(-10, 0) for row in week(number))


@pytest.fixture(scope="module")
def monitor(reference):
    return Monitor(_CONFIG, reference, embed=embed)


def _decaying(weeks: int) -> list:
    return [row for w in range(weeks) for row in week(w, wrong=0.1 + 0.02 * (w + 1))]


def test_unchanged_traffic_raises_no_alarm(monitor):
    log = [row for number in range(13) for row in week(number)]
    looks = [look for look, _ in monitor.replay(log)]
    assert len(looks) == 12  # the last one may not have ended
    assert [look.alarm for look in looks] == [None] * 12
    assert all(look.requests == 120 and look.labels == 100 for look in looks)
    assert {finding.test for finding in looks[0].findings} == {
        *("cusum", "lengths", "forms", "meanings"),
    }


def test_a_decay_raises_one_alarm_until_somebody_acts(monitor):
    looks = list(monitor.replay(_decaying(13)))
    alarms = [look.alarm for look, _ in looks if look.alarm]
    assert len(alarms) == 1
    assert alarms[0].signals == (Signal.QUALITY,)
    assert alarms[0].window <= 6
    assert alarms[0].time == START + timedelta(days=7) * (alarms[0].window + 1)
    state = looks[-1][1]
    assert state.open == alarms[0]
    again = acted(state)
    assert again.open is None
    assert again.next_window == state.next_window
    assert again.quality.statistic == 0.0


def test_a_replay_gives_the_same_byte_for_byte_also_across_restarts(monitor):
    log = _decaying(9)
    once = [
        (look.model_dump_json(), state.model_dump_json()) for look, state in monitor.replay(log)
    ]
    again = [
        (look.model_dump_json(), state.model_dump_json()) for look, state in monitor.replay(log)
    ]
    assert again == once
    pieces, state = [], MonitorState()
    for length in (3, 5, 9):  # the log grows, and each time another process reads it
        part = [row for row in log if row.time < START + length * timedelta(days=7)]
        restarted = Monitor(_CONFIG, monitor.reference, embed=embed)
        pieces += [
            (a.model_dump_json(), b.model_dump_json()) for a, b in restarted.replay(part, state)
        ]
        state = MonitorState.model_validate_json(pieces[-1][1])
    assert pieces == once


def test_the_order_of_a_log_does_not_matter(monitor):
    log = _decaying(5)
    looks = [look for look, _ in monitor.replay(log)]
    assert [look for look, _ in monitor.replay(log[::-1])] == looks


def test_a_new_topic_is_named_with_its_share_and_examples(monitor):
    topics = ("card", "loan", "transfer", "mortgage")
    log = [*week(0), *week(1, topics=topics), *week(2)]
    (quiet, _), (look, _) = monitor.replay(log)
    assert quiet.alarm is None
    assert look.alarm.signals == (Signal.INPUTS,)
    (finding,) = [f for f in look.alarm.evidence if f.test == "meanings"]
    grown = finding.clusters[0]
    assert grown.share_before < 0.02 < 0.15 < grown.share_now
    assert len(grown.examples) == 3
    assert all(text.startswith("mortgage") for text in grown.examples)


def test_a_rhythm_is_no_alarm(reference):
    """Two corpora that alternate: with the other one as its reference each would be an alarm."""
    corpora = (("card", "loan"), ("fever", "cough"))
    log = [row for number in range(-12, 7) for row in week(number, topics=corpora[number % 2])]
    before = tuple(row for row in log if row.time < START)
    plain = Monitor(_CONFIG, tuple(week(-1, topics=corpora[1])), embed=embed)
    assert next(iter(plain.replay(log)))[0].alarm is not None
    config = _CONFIG.model_copy(
        update={"inputs": _CONFIG.inputs.model_copy(update={"rhythm": 2}), "quality": None}
    )
    looks = [look for look, _ in Monitor(config, before, embed=embed).replay(log)]
    assert [look.alarm for look in looks] == [None] * 6
    assert all(f.test != "cusum" for look in looks for f in look.findings)


def test_chosen_labels_say_nothing_of_quality(monitor):
    rows = [*week(0, labelled=0), *week(0, wrong=0.9, random=False)]
    (window,) = split_windows(rows, start=START, length=_CONFIG.length)
    look, _ = monitor.look(MonitorState(), window)
    assert look.labels == 0
    (quality,) = [f for f in look.findings if f.signal is Signal.QUALITY]
    assert quality.value == 0.0
    assert quality.sentence.startswith("no labels")


def test_too_few_requests_are_not_tested(monitor):
    (look, _), *_ = monitor.replay([*week(0, count=20, labelled=20), *week(1)])
    assert {finding.test for finding in look.findings} == {"cusum"}


def test_a_window_without_requests_is_looked_at(monitor):
    looks = [look for look, _ in monitor.replay([*week(0), *week(2), *week(3)])]
    assert [(look.window, look.requests) for look in looks] == [(0, 120), (1, 0), (2, 120)]


def test_windows_are_looked_at_in_order(monitor):
    (window,) = split_windows(week(3), start=START, length=_CONFIG.length)
    with pytest.raises(ConfigError, match="not the next one: got 3, expected 0"):
        monitor.look(MonitorState(), window)


def test_the_e_process_alarms_later_and_never_on_a_smaller_share(reference):
    quality = _CONFIG.quality.model_copy(update={"method": "e_process"})
    patient = Monitor(_CONFIG.model_copy(update={"quality": quality}), reference)
    first = [look.window for look, _ in patient.replay(_decaying(20)) if look.alarm]
    assert first
    eager = Monitor(_CONFIG, reference)
    assert first[0] >= next(look.window for look, _ in eager.replay(_decaying(20)) if look.alarm)
    better = [row for number in range(20) for row in week(number, wrong=0.05)]
    assert not any(look.alarm for look, _ in patient.replay(better))


def test_the_monitor_says_how_late_it_is_with_fewer_labels(monitor):
    many, few = monitor.quality.promises(100), monitor.quality.promises(20)
    assert many.median_delay < few.median_delay
    assert many.false_alarms == pytest.approx(0.05, abs=0.01)
