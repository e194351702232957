"""``ztom drift``: a log is looked at once, an alarm stays open until somebody acts."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from command_line import ztom

_START = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A monitor, and a log of ten weeks before its start and nine after, in which quality falls."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    rows = []
    for week in range(-10, 10):
        wrong = 0.1 + 0.04 * max(week + 1, 0)
        for place in range(100):
            time = _START + timedelta(days=7 * (week + place / 100))
            correct = bool(rng.uniform() >= wrong)
            rows.append({"time": time.isoformat(), "text": f"card {place}", "correct": correct})
    Path("log.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    Path("monitor.yaml").write_text(f"start: {_START.isoformat()}\nlength: P7D\n")
    return tmp_path


def test_a_log_is_looked_at_once_and_an_alarm_stays_open(folder):
    options = [
        *("drift", "replay", "monitor.yaml", "log.jsonl", "--no-meanings", "--exit-status"),
        *("--state", "state.json"),
    ]
    first = ztom(*options)
    assert first.returncode == 1
    assert first.stdout.count("an alarm is open now: quality") == 1
    assert "window 0, 2026-01-05 to 2026-01-12: 100 requests, 100 labels" in first.stdout
    assert "wrong: evidence of a rise" in first.stdout
    again = ztom(*options)
    assert (again.returncode, again.stdout) == (1, "")
    assert ztom(*["drift", "acted", "state.json"]).returncode == 0
    assert ztom(*options).returncode == 0
    assert "no alarm is open" in ztom(*["drift", "acted", "state.json"]).stderr


def test_looks_are_documents_for_scripts(folder):
    lines = ztom(
        *["drift", "replay", "monitor.yaml", "log.jsonl", "--no-meanings", "--json"]
    ).stdout.splitlines()
    looks = [json.loads(line) for line in lines]
    assert [look["window"] for look in looks] == list(range(9))
    (alarm,) = [look["alarm"] for look in looks if look["alarm"]]
    assert alarm["signals"] == ["quality"]
    assert alarm["evidence"][0]["value"] > alarm["evidence"][0]["limit"]


def test_a_plan_tells_false_alarms_and_delays(folder):
    told = json.loads(
        ztom(
            *[
                "drift",
                "plan",
                "monitor.yaml",
                "--reference",
                "log.jsonl",
                "--labels",
                "30",
                "--json",
            ]
        ).stdout
    )
    assert told["total"] == 2000
    assert told["labels"] == 30
    assert told["promises"]["false_alarms"] == pytest.approx(0.05, abs=0.01)
    text = ztom(*["drift", "plan", "monitor.yaml", "--reference", "log.jsonl"]).stdout
    assert "100 labels a window" in text
    assert "false alarms within 24 windows: " in text


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"text": "card"}', "log.jsonl, line 1 is no observation: time"),
        ('{"time": "2026-01-01T00:00:00", "text": "card"}', "time"),
        ('{"time": "2026-03-01T00:00:00Z", "text": "card"}', "there is no reference"),
    ],
)
def test_what_is_wrong_with_a_log_is_said(folder, line, words):
    Path("log.jsonl").write_text(line + "\n")
    ended = ztom(*["drift", "replay", "monitor.yaml", "log.jsonl", "--no-meanings"])
    assert ended.returncode == 3
    assert words in ended.stderr


def test_a_monitor_that_is_none_is_named(folder):
    Path("monitor.yaml").write_text(f"start: {_START.isoformat()}\nlengt: P7D\n")
    ended = ztom(*["drift", "replay", "monitor.yaml", "log.jsonl"])
    assert ended.returncode == 3
    assert "monitor.yaml is no monitor" in ended.stderr
    assert "length" in ended.stderr
