"""``ztom data check``: what files are understood as."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import ztom
from toys import make_tokenizer

TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho, ho"}]
RECORDS = [
    {"prompt": "a question", "completion": "b", "source": 1},
    {"messages": TURNS},
    {"prompt": "A  Question", "completion": "c"},
    {"prompt": "not answered"},
]


def _write(path: Path, records: list) -> Path:
    path.write_text("".join(json.dumps(record) + "\n\n" for record in records))
    return path


def test_a_file_is_shown_as_it_was_understood(tmp_path: Path) -> None:
    done = ztom("data", "check", _write(tmp_path / "d.jsonl", RECORDS))
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f"{tmp_path}/d.jsonl: JSON Lines, 4 stimuli "
        "(prompt and completion 2, chat turns 1, prompt 1)",
        "  expected outputs   3 of 4",
        "  longest prompt     12 characters (d:7)",
        "  longest expected   6 characters (d:3)",
        "  duplicates         1 stimulus with an earlier prompt; "
        "1 prompt with different expected outputs",
        '  left out           field "source": 1, first in 1',
        "                     blank line: 3, first in 2",
        "  example d:1        a question",
        "                     -> b",
        "  example d:5        A Question",
        "                     -> c",
        "  example d:7        not answered",
        "                     -> (none)",
    ]  # fmt: skip


def test_the_same_as_one_document(tmp_path: Path) -> None:
    first = _write(tmp_path / "a.jsonl", RECORDS)
    second = _write(tmp_path / "b.jsonl", RECORDS[:1])
    document = json.loads(ztom("data", "check", first, second, "--json").stdout)
    assert [file["stimuli"] for file in document["files"]] == [4, 1]
    assert document["files"][0]["longest_expected"] == {"length": 6, "id": "a:3"}
    assert document["files"][0]["longest_tokens"] is None
    assert document["shared_prompts"] == [{"files": [str(first), str(second)], "prompts": 1}]
    assert document["errors"] == []


def test_a_file_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    good, bad = _write(tmp_path / "a.jsonl", RECORDS), _write(tmp_path / "b.jsonl", [3])
    done = ztom("data", "check", bad, good)
    assert done.returncode not in (0, 1)
    assert "4 stimuli" in done.stdout
    assert f"StimuliError: {bad}, line 1: the line is not usable" in " ".join(done.stderr.split())


def test_tokens_are_those_of_the_model(tmp_path: Path) -> None:
    model = tmp_path / "model"
    make_tokenizer().save_pretrained(model)
    file = _write(tmp_path / "d.jsonl", [{"prompt": "a b", "expected": "c"}])
    done = ztom("data", "check", file, "--model", model, "--json")
    assert done.returncode == 0, done.stderr
    (summary,) = json.loads(done.stdout)["files"]
    assert summary["longest_tokens"]["length"] > 1


def test_expected_outputs_belong_to_one_file(tmp_path: Path) -> None:
    file = _write(tmp_path / "d.jsonl", [{"prompt": "a"}])
    answers = tmp_path / "e.txt"
    answers.write_text("b\n")
    done = ztom("data", "check", file, "--expected-outputs", answers, "--json")
    assert json.loads(done.stdout)["files"][0]["with_expected"] == 1
    done = ztom("data", "check", file, file, "--expected-outputs", answers)
    assert "expected outputs belong to one file of stimuli: got 2 files" in done.stderr


@pytest.mark.parametrize("labels", ["cat,dog", "cat, dog"])
def test_labels_are_named(tmp_path: Path, labels: str) -> None:
    file = _write(tmp_path / "d.jsonl", [{"text": "a", "label": 1}])
    done = ztom("data", "check", file, "--labels", labels, "--json")
    assert json.loads(done.stdout)["files"][0]["examples"][0]["expected"] == "dog"
