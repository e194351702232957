"""``ztom data`` on data sets: from a file to a version, to labels, to what a search reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import ztom

from ztom.stimuli.files import read_stimuli

_TASKS = ["data", "export", "support", "train", "--unlabelled", "--label-studio"]


def _json(*arguments: str):
    ended = ztom(*arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [
        {"prompt": f"how do I close account {i} of {i * 7919}", "group": f"customer {i}"}
        | ({"expected": "close"} if i % 2 else {})
        for i in range(60)
    ]
    Path("march.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    added = ztom("data", "add", "support", "march.jsonl")
    assert added.returncode == 0, added.stderr
    assert "march.jsonl: 60 new rows, 30 new labels" in added.stdout
    made = ztom("data", "version", "support")
    assert made.stdout.startswith("version 1, ")
    return tmp_path


def test_a_version_is_shown_checked_and_made_once(folder):
    shown = _json("data", "show", "support")
    assert sum(split["rows"] for split in shown["splits"].values()) == 60
    assert sum(split["labelled"] for split in shown["splits"].values()) == 30
    assert "train" in ztom("data", "show", "support").stdout
    assert "nothing was added" in ztom("data", "version", "support").stdout
    assert "1 versions are as they were made" in ztom("data", "check", "support").stdout
    assert _json("data", "check", "support") == {"versions": 1, "leaks": []}


def test_a_split_is_what_a_search_reads(folder):
    assert ztom("data", "export", "support", "train", "--output", "train.jsonl").returncode == 0
    stimuli = read_stimuli("train.jsonl")
    assert {stimulus.expected for stimulus in stimuli} == {"close"}
    assert all(stimulus.group.startswith("customer") for stimulus in stimuli)
    shown = _json("data", "show", "support")
    assert len(stimuli) == shown["splits"]["train"]["labelled"]


def test_labels_come_back_from_label_studio(folder):
    assert ztom(*_TASKS, "--output", "tasks.json").returncode == 0
    tasks = json.loads(Path("tasks.json").read_text())
    assert all(set(task["data"]) == {"row", "group", "text"} for task in tasks)
    for task in tasks:
        task["annotations"] = [
            {
                "result": [{"value": {"choices": ["keep"]}, "type": "choices"}],
                "created_at": "2026-03-02T10:00:00Z",
                "completed_by": {"email": "ann@example.org"},
            },
            {"result": [], "created_at": "2026-03-02T11:00:00Z", "was_cancelled": True},
        ]
    Path("done.json").write_text(json.dumps(tasks))
    added = ztom("data", "add", "support", "done.json", "--label-studio")
    assert f"0 new rows, {len(tasks)} new labels" in added.stdout
    ztom("data", "version", "support")
    diff = _json("data", "diff", "support", "1", "2")
    assert diff["splits"]["train"] == {"added": 0, "removed": 0, "labels changed": len(tasks)}
    ended = ztom(*_TASKS, "--output", "more.json")
    assert "train of version 2 has no unlabelled rows" in ended.stderr


def test_labels_are_typed_and_kept_at_once(folder, monkeypatch):
    answers = iter(["close\n", "\n", "keep\n", ""])

    class Typed:
        def readline(self) -> str:
            return next(answers)

    monkeypatch.setattr("sys.stdin", Typed())
    ended = ztom("data", "label", "support", "--source", "ann")
    assert ended.returncode == 0, ended.stderr
    assert "how do I close account" in ended.stdout
    assert "2 labels" in ended.stdout
    ztom("data", "version", "support")
    shown = _json("data", "show", "support")
    assert sum(split["labelled"] for split in shown["splits"].values()) == 32


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "support", "--version", "4"], "no such version: got 4, expected 1 to 1"),
        (["export", "support", "dev2", "--output", "x"], "there is no such split: got dev2"),
        (["show", "nowhere"], "dataset.yaml cannot be read"),
        (["add", "support", "march.jsonl", "--label-studio"], "march.jsonl is not JSON"),
        (["add", "other", "march.jsonl", "--label-studio"], "there is no data set in other"),
    ],
)
def test_what_cannot_be_done_is_said(folder, arguments, words):
    ended = ztom("data", *arguments)
    assert ended.returncode == 3
    assert words in ended.stderr


def test_an_edited_file_is_noticed(folder):
    (file,) = Path("support/rows").iterdir()
    file.write_text(file.read_text().replace("close account 3", "close account 4"))
    ended = ztom("data", "check", "support")
    assert ended.returncode == 3
    assert "was changed" in ended.stderr
